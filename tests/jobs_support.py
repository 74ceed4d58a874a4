"""What the tests of jobs/ share: GoogleTest's lines for tools/count_tests.awk, and a folder with pools and campaigns.

Plain Python. The executable is that of the environment variable SEINE_BIN.
"""
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

NIGHT_SECONDS = 120  # no night of a test takes a quarter of that
JOBS = Path(__file__).resolve().parent.parent / "jobs"
SEINE = os.environ.get("SEINE_BIN", "seine")


class Skip(Exception):
    """Says why a case cannot be tried here."""


def expect(true, *what):
    if not true:
        raise AssertionError(" ".join(map(str, what)) or "not so")


def expect_equal(found, expected, what=""):
    expect(found == expected, f"{what}: expected {expected!r}, found {found!r}")


def run_cases(suite, cases, after=lambda: None):
    """Runs functions, and `after` each; words of the command line choose those whose names have one in them. Returns
    the exit code."""
    chosen = [case for case in cases if not sys.argv[1:] or any(word in case.__name__ for word in sys.argv[1:])]
    failed = 0
    for case in chosen:
        name = f"{suite}.{case.__name__}"
        print(f"[ RUN      ] {name}", flush=True)
        begin = time.monotonic()
        try:
            try:
                case()
            finally:
                after()
            end = "[       OK ]"
        except Skip as why:
            print(f"{name}: Skipped\n{why}\n")
            end = "[  SKIPPED ]"
        except Exception:
            traceback.print_exc(file=sys.stdout)
            failed += 1
            end = "[  FAILED  ]"
        print(f"{end} {name} ({1000 * (time.monotonic() - begin):.0f} ms)", flush=True)
    return 1 if failed or not chosen else 0


def wait_for(what, condition, seconds=60, step=0.05):
    """The first true value of condition(); TimeoutError that names what was waited for."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(step)


def processes_of(folder):
    """Every process, by id, that has `folder` in its command line or environment."""
    mark = str(folder).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def selections_of(folder):
    """The processes of `seine select` that work in this folder: one for each rank."""
    found = []
    for pid in processes_of(folder):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0] == SEINE.encode() and words[1] == b"select":
                found.append(pid)
    return found


@contextlib.contextmanager
def frozen(folder):
    """No rank in this folder works meanwhile, so that what is tried is tried in the middle of a selection."""
    ranks = wait_for("a selection", lambda: selections_of(folder))
    for pid in ranks:
        send(pid, signal.SIGSTOP)
    try:
        yield ranks
    finally:
        for pid in ranks:
            send(pid, signal.SIGCONT)


def send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@contextlib.contextmanager
def work_folder():
    """A temporary folder that is gone afterwards, and whatever still runs in it."""
    folder = Path(tempfile.mkdtemp(prefix="seine-jobs-"))
    # Open MPI names shared memory by the number of the job, which is 1 in every Slurm that was just started, and what was
    # killed leaves it behind.
    variable = "OMPI_MCA_btl_vader_backing_directory"
    before = os.environ.get(variable)
    os.environ[variable] = str(folder)
    try:
        yield folder
    finally:
        os.environ.pop(variable) if before is None else os.environ.update({variable: before})
        for pid in processes_of(folder):
            send(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def seine(*words, **more):
    return subprocess.run([SEINE, *map(str, words)], text=True, capture_output=True, check=True, timeout=120,
                          **more).stdout


def digest_in(text):
    return re.search(r"\bdigest=([0-9a-f]{32})", text).group(1)


def slow_words(pool, rows):
    """Words of a selection that takes seconds for some thousand rows and has much to keep: facility location."""
    return ["--pool", f"{pool}/*.h5", "--strategy", "facility_location", "--batch", rows, "--certificate", "off"]


class Pool:
    """A synthetic pool in shards; only the first `shown` of them lie in `folder`, so that it can grow."""

    def __init__(self, folder, rows, shards=4, dim=16, ids="string", seed=0):
        self.folder = Path(folder)
        self.hidden = self.folder.with_name(self.folder.name + ".to-come")
        self.folder.mkdir(parents=True)
        seine("synth", "--rows", rows, "--dim", dim, "--classes", 4, "--ids", ids, "--shards", shards, "--seed", seed,
              "--out", self.hidden, "--quiet")
        self.shards = sorted(self.hidden.iterdir())

    def grow(self, shards):
        for shard in self.shards[:shards]:
            if shard.exists():
                os.rename(shard, self.folder / shard.name)
        return self


CAMPAIGN = """
name = "{name}"
first = 2025-03-01
labelled = ["{name}.labels/*"]
catch_up = {catch_up}
[run]
by = "{by}"
seine = "{seine}"
{run}
[select]
pool = ["{pool}/*.h5"]
{select}
"""


class Campaign:
    """A campaign file in `base`, and nightly.sh for it."""

    def __init__(self, base, name="plankton", pool="pool", by="local", catch_up=7, run='launch = ["env"]',
                 select='strategy = "badge"\nbatch = 10'):
        self.base, self.name = base, name
        self.file, self.folder, self.labels = base / f"{name}.toml", base / name, base / f"{name}.labels"
        self.published, self.ledger = self.folder / "published", self.folder / "ledger.jsonl"
        self.labels.mkdir(exist_ok=True)
        self.write(name=name, pool=pool, by=by, catch_up=catch_up, run=run, select=select)

    def write(self, **values):
        self.values = {**getattr(self, "values", {}), **values}
        self.file.write_text(CAMPAIGN.format(seine=SEINE, **self.values), encoding="utf-8")

    def words(self, *words):
        return [str(JOBS / "nightly.sh"), str(self.file), *map(str, words)]

    def start(self, *words, environment=None):
        """nightly.sh, and nobody waits for it."""
        return subprocess.Popen(self.words(*words), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=environment or {**os.environ, "PYTHON": sys.executable})

    def nightly(self, *words, code=0, says="", environment=None):
        """nightly.sh to its end; what it wrote."""
        process = self.start(*words, environment=environment)
        out, err = process.communicate(timeout=NIGHT_SECONDS)
        expect(process.returncode == code,
               f"nightly.sh {words} ended with {process.returncode}, expected {code}:\n{err}")
        expect(says in err, f"nightly.sh {words} does not say {says!r}:\n{err}")
        return out + err

    def events(self):
        return [json.loads(line) for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []

    def nights(self):
        return sorted(path.name for path in self.published.glob("2*")) if self.published.exists() else []

    def batch(self, night):
        return json.loads((self.published / night / "batch.json").read_text())

    def ids(self):
        return {night: self.batch(night)["ids"] for night in self.nights()}

    def checkpoint(self, night):
        return self.folder / "nights" / night / "checkpoint"

    def expect_sound(self, nights):
        """These nights and no others are published; ledger and files agree; the chain holds; no id is there twice."""
        events = self.events()
        previous = ""
        for number, (event, line) in enumerate(zip(events, self.ledger.read_bytes().splitlines()), 1):
            expect_equal((event["number"], event["previous"]), (number, previous), "chain of the ledger")
            previous = hashlib.sha256(line).hexdigest()
        last = {event["night"]: event for event in events}
        expect_equal(sorted(night for night, event in last.items() if event["event"] == "published"), nights, "ledger")
        expect_equal(self.nights(), nights, "published folders")
        seen = set()
        for night in nights:
            batch, event = self.batch(night), last[night]
            expect_equal((batch["digest"], len(batch["ids"])), (event["batch"], event["rows"]), night)
            for name, sha in event["files"].items():
                expect_equal(hashlib.sha256((self.published / night / name).read_bytes()).hexdigest(), sha, name)
            listed = (self.published / night / "ids.csv").read_text().splitlines()[1:]
            expect_equal(listed, list(map(str, batch["ids"])), night)
            expect(seen.isdisjoint(batch["ids"]), f"ids of {night} were published before")
            seen.update(batch["ids"])
