"""The nights of a labelling campaign: chooses a batch, checks it, publishes it, keeps the books. nightly.sh starts it.

One folder per campaign holds everything: a ledger that only grows, a lock, and a folder per night. Every step leaves a
file by rename and looks for that file first, so a start after any kind of death goes on where the last one stopped:

    prepared (request and lists of ids are frozen) -> selected -> checked -> published -> in the ledger
"""
import argparse
import datetime
import fcntl
import os
import signal
import socket
import sys
import traceback

from campaign import Campaign
from files import CANNOT_CREATE, CONFIG, INTERNAL, IO_ERROR, LATER, USAGE, Stop, counted, say, utc_now
from ledger import Ledger
from night import Interrupted, Night
from published import check_published, checked_record, ids_of, is_whole, left_out, publish, remove_published

CLOCK_MAY_DIFFER = datetime.timedelta(hours=1)  # between two starts, as nodes do


def take_lock(folder):
    """Held until this process and the selection that it started have ended, however they end."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 1000, 0).decode(errors="replace").strip()
        raise Stop(LATER, f"{folder}: in use by {holder}, or by the selection that it started") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()} since {utc_now()}\n".encode(), 0)
    return lock


def due_nights(campaign, ledger, asked_day):
    """Today, and of the nights before it those that are not too long ago and have no event."""
    today = asked_day or datetime.date.today()
    known = ledger.state()
    begin = datetime.date.fromordinal(max(campaign.first.toordinal(), today.toordinal() - campaign.catch_up))
    count = (min(today, campaign.last) - campaign.first).days + 1
    days = [campaign.first + datetime.timedelta(days=n) for n in range(count)]
    missed = [str(day) for day in days if day < begin and str(day) not in known]
    if not asked_day:
        check_clock(ledger, missed)
    last = max(known, default="")
    if missed := [night for night in missed if night > last]:  # the others were told when they were missed
        nights = f"{missed[0]} to {missed[-1]} have" if missed[1:] else f"{missed[0]} has"
        say(f"{counted(len(missed), 'night')}, {nights} no batch, too long ago; --night makes one")
    return [str(day) for day in days if day >= begin and str(day) not in known]


def check_clock(ledger, missed):
    """A clock that is wrong decides nothing: neither may it lie behind the last line of the ledger, nor may nights get
    lost between that line and now. --today says what day it is, and is believed."""
    if not ledger.events:
        return
    last, now = ledger.events[-1]["at"], utc_now()
    hint = "set the clock right, or say what day it is: --today DATE"
    if now < last and datetime.datetime.fromisoformat(last) - datetime.datetime.fromisoformat(now) > CLOCK_MAY_DIFFER:
        raise Stop(CONFIG, f"the clock says {now}, but the ledger was written to at {last}; {hint}")
    if lost := [night for night in missed if night > last[:10]]:
        raise Stop(CONFIG, f"the clock says {now}, and the ledger was last written to at {last}: "
                           f"{counted(len(lost), 'night')} from {lost[0]} on would get no batch; {hint}")


def run_nights(campaign, ledger, dates, lock):
    """Publishes these nights. A night that fails is the last: later ones would build on what is not known."""
    chosen = check_published(campaign, ledger)
    for date in dates:
        folder = campaign.publish / date
        night = Night(campaign, date, chosen, lock)
        if folder.exists() and not night.is_checked():
            raise Stop(CANNOT_CREATE, f"{folder} is in the way; it is not of this campaign")
        night.finish()
        record = checked_record(night.folder)
        if not folder.exists():
            publish(campaign, date)
        elif not is_whole(folder, record):
            raise Stop(CANNOT_CREATE, f"{folder} is in the way; it is not what this campaign has checked")
        ledger.append(record)
        chosen[date] = ids_of(folder)
        say(f"{date}: published {counted(record['rows'], 'id')} in {folder}, digest {record['batch']}")
    say(f"{campaign.name}: {'published ' + ', '.join(dates) if dates else 'nothing to do'}")


def show_status(campaign, ledger, asked_day):
    state, left = ledger.state(), left_out(campaign, ledger)
    due = {*left, *due_nights(campaign, ledger, asked_day)}
    for date in sorted({*state, *due}):
        if date in due:
            is_begun = campaign.night(date).exists()
            print(f"{date}  {'published, not in the ledger' if date in left else 'begun' if is_begun else 'due'}")
        else:
            event = state[date]
            more = event["why"] if "why" in event else f"{counted(event['rows'], 'id')}, digest {event['batch']}"
            print(f"{date}  {event['event']:<10} {more}")
    return LATER if due else 0


def record_word(ledger, date, event, why):
    if not why:
        raise Stop(USAGE, "--why TEXT is needed: it goes into the ledger")
    ledger.append({"night": date, "event": event, "why": why, "at": utc_now()})
    say(f"{date}: {event}")


def act(asked):
    campaign = Campaign(asked.campaign)
    path = campaign.folder / "ledger.jsonl"
    if asked.status:
        return show_status(campaign, Ledger(path), asked.today)
    lock = take_lock(campaign.folder)
    if asked.repair:
        Ledger.repair(path, campaign)
    ledger = Ledger(path)
    published = {event["night"] for event in ledger.published()}
    if asked.skip:
        if asked.skip in published.union(left_out(campaign, ledger)):
            raise Stop(USAGE, f"{asked.skip} was published; --withdraw takes it back")
        record_word(ledger, asked.skip, "skipped", asked.why)
    elif asked.withdraw:
        if asked.withdraw not in published:
            raise Stop(USAGE, f"{asked.withdraw} was not published")
        record_word(ledger, asked.withdraw, "withdrawn", asked.why)
        remove_published(campaign, asked.withdraw)
    else:
        dates = left_out(campaign, ledger)  # first, because later nights build on them
        if asked.night and asked.night > str(asked.today or datetime.date.today()):
            raise Stop(USAGE, f"{asked.night} is not yet")
        wanted = [asked.night] if asked.night else due_nights(campaign, ledger, asked.today)
        dates += [date for date in wanted if date not in published.union(dates)]
        run_nights(campaign, ledger, dates, lock)
    return 0


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        raise Stop(USAGE, message)


def main():
    parser = Parser(
        prog="nightly.sh", description="The nights of a labelling campaign. Exit codes: 0 all that was due is"
        " published; 64 wrong usage; 65 ledger, batch or data damaged; 69 nothing could be started, or Slurm does not"
        " answer; 75 start it again (locked, interrupted, cancelled); 78 the campaign file or the clock is wrong; else"
        " that of seine. jobs/README.md has all.")
    day = datetime.date.fromisoformat

    def date(text):
        return str(day(text))
    parser.add_argument("campaign", metavar="CAMPAIGN.toml")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--night", type=date, metavar="DATE", help="just this night, however old, skipped or withdrawn")
    what.add_argument("--status", action="store_true", help="print what happened in which night; 75 where one is due")
    what.add_argument("--skip", type=date, metavar="DATE", help="this night gets no batch (with --why)")
    what.add_argument("--withdraw", type=date, metavar="DATE", help="its batch is taken back (with --why)")
    what.add_argument("--repair", action="store_true", help="write a damaged ledger anew, then go on")
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason, for the ledger")
    parser.add_argument("--today", type=day, metavar="DATE", help="what day it is, whatever the clock says")

    def interrupt(number, _):
        raise Interrupted(f"interrupted by {signal.Signals(number).name}")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        return act(parser.parse_args())
    except Stop as stop:
        say(f"stopped: {stop} (exit {stop.code})")
        return stop.code
    except Interrupted as interrupted:
        say(f"stopped: {interrupted}; the next start goes on (exit {LATER})")
        return LATER
    except OSError as error:
        say(f"stopped: {error} (exit {IO_ERROR})")
        return IO_ERROR
    except Exception:  # a bug, told as one
        traceback.print_exc()
        return INTERNAL


if __name__ == "__main__":
    sys.exit(main())
