"""What happened in which night: a file that only grows."""
import hashlib
import json
import os

from files import BAD_DATA, Stop, counted, move_aside, say, sync


def _check_of(head):
    return b'"' + hashlib.sha256(head).hexdigest()[:16].encode() + b'"}'


class Ledger:
    """One JSON object a line. Each holds its number, the SHA-256 of the line before it and one of itself, so that
    damaged, missing and exchanged lines show."""

    def __init__(self, path):
        self.path = path
        self.lines, self.events = [], []
        text = path.read_bytes() if path.exists() else b""
        whole, end, torn = text.rpartition(b"\n")
        self._size = len(whole + end)  # an unfinished last line is an append that died: it never happened
        if torn:
            say(f"{path}: the unfinished last line does not count")
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            event = self._parse(line)
            if event is None or event["number"] != number or event["previous"] != self._previous():
                raise Stop(BAD_DATA, f"{path}: line {number} is damaged; jobs/README.md: \"The ledger is damaged\"")
            self._keep(line, event)

    @staticmethod
    def _parse(line):
        """The event, or None where the line is not as it was written."""
        head, _, tail = line.rpartition(b', "check": ')
        if tail != _check_of(head):
            return None
        return json.loads(head + b"}")

    def _keep(self, line, event):
        self.lines.append(line)
        self.events.append(event)

    def _previous(self):
        return hashlib.sha256(self.lines[-1]).hexdigest() if self.lines else ""

    def _line(self, event):
        event = {**event, "number": len(self.lines) + 1, "previous": self._previous()}
        head = json.dumps(event, ensure_ascii=False).encode()[:-1]
        return head + b', "check": ' + _check_of(head), event

    def append(self, event):
        line, event = self._line(event)
        with open(self.path, "ab") as file:
            file.truncate(self._size)
            self._size += file.write(line + b"\n")
        sync(self.path)
        sync(self.path.parent)
        self._keep(line, event)

    def state(self):
        """The last event of every night that has one."""
        return {event["night"]: event for event in self.events}

    def holds(self, record):
        """Whether what is to be said of a checked night stands in a line, whatever happened to that night since."""
        return any({**event, **record} == event for event in self.events)

    def published(self):
        return [event for event in self.state().values() if event["event"] == "published"]

    @classmethod
    def repair(cls, path, campaign):
        """Writes it anew from its good lines and from the record that every checked night left."""
        lines = (path.read_bytes() if path.exists() else b"").split(b"\n")
        events = [event for line in lines if (event := cls._parse(line))]
        known = {(event["night"], event["at"]) for event in events}
        for record in sorted((campaign.folder / "nights").glob("*/checked/record.json")):  # withdrawn ones, too
            event = json.loads(record.read_text(encoding="utf-8"))
            if (event["night"], event["at"]) not in known:
                # Good lines keep their order, whatever the clock said when they were written.
                later = (place for place, other in enumerate(events)
                         if other["night"] == event["night"] and other["at"] > event["at"])
                events.insert(next(later, len(events)), event)
        if path.exists():
            say(f"the ledger as it was is kept as {move_aside(path, 'damaged')}")
        temporary = path.with_name(path.name + ".new")
        temporary.write_bytes(b"")
        ledger = cls(temporary)
        for event in events:
            ledger.append(event)
        os.rename(temporary, path)
        sync(path.parent)
        say(f"the ledger has {counted(len(events), 'line')} again; compare it with --status and the damaged one")
