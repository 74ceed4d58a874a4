"""The batches that the consumers see: one folder a night, each a copy of what the campaign keeps for itself."""
import json

from files import BAD_DATA, Stop, appear, copy_file, move_aside, say, sha256_of

PUBLISHED_FILES = ("batch.json", "ids.csv", "summary.md")


def publish(campaign, date):
    """The checked batch of a night appears in the folder of the consumers, whole."""
    source = campaign.night(date) / "checked"
    campaign.publish.mkdir(parents=True, exist_ok=True)

    def fill(folder):
        for name in (*PUBLISHED_FILES, "record.json"):
            copy_file(source / name, folder / name)
    appear(campaign.publish / date, fill)


def ids_of(folder):
    return json.loads((folder / "batch.json").read_text(encoding="utf-8"))["ids"]


def is_whole(folder, event):
    return all((folder / name).is_file() and sha256_of(folder / name) == event["files"][name]
               for name in PUBLISHED_FILES)


def checked_record(night):
    """What the ledger says, or is going to say, of the batch that this folder of a night has checked; or None."""
    path = night / "checked/record.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def left_out(campaign, ledger):
    """Nights that lie published and are not in the ledger: an append died, or the ledger is out of a backup. A night
    that was withdrawn or skipped before is one of them if what it has checked since is in no line."""
    state, found = ledger.state(), []
    for date in sorted(path.name for path in campaign.publish.glob("????-??-??")):
        if date not in state:
            found.append(date)
        elif state[date]["event"] != "published":
            record = checked_record(campaign.night(date))
            if record and not ledger.holds(record):
                found.append(date)
    return found


def check_published(campaign, ledger):
    """Every batch of the ledger lies published as it was, or is put there again; no id was chosen twice.
    Returns night -> ids."""
    chosen, first_seen = {}, {}
    for event in ledger.published():
        date = event["night"]
        folder, kept = campaign.publish / date, campaign.night(date) / "checked"
        if not is_whole(folder, event):
            if not is_whole(kept, event):
                raise Stop(BAD_DATA, f"{folder}: not what the ledger says, and the copy {kept} is not, either; "
                                     "jobs/README.md: \"A published batch is damaged\"")
            was = f"; what was there is {move_aside(folder, 'damaged')}" if folder.exists() else ""
            publish(campaign, date)
            say(f"{folder}: damaged, published again from {kept}{was}")
        chosen[date] = ids_of(folder)
        for each in chosen[date]:
            if (other := first_seen.setdefault(each, date)) != date:
                raise Stop(BAD_DATA, f"id {each} was published on {other} and on {date}; withdraw one of them")
    for date, event in ledger.state().items():  # a withdrawal that died half-way
        if event["event"] == "withdrawn":
            record = checked_record(campaign.night(date))
            if ledger.holds(record) if record else (campaign.publish / date).exists():
                remove_published(campaign, date)
    return chosen


def remove_published(campaign, date):
    for folder in (campaign.publish / date, campaign.night(date)):
        if folder.exists():
            move_aside(folder, "withdrawn")
