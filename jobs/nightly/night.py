"""One night: from frozen inputs to a batch that was checked."""
import itertools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import xxhash

import slurm
from files import (BAD_DATA, CANNOT_CREATE, CONFIG, INTERNAL, IO_ERROR, LATER, NO_INPUT, NO_MEMORY, UNAVAILABLE, USAGE,
                   Stop, appear, copy_file, counted, move_aside, say, sha256_of, utc_now, write_file)
from frozen import FrozenPool
from ids import as_csv, key_of, natural_key, read_ids
from published import PUBLISHED_FILES
from summary import summary_of

# Verdicts of seine, and of select.sbatch (CONFIG); a launcher's code is worth another start.
FINAL_CODES = (USAGE, BAD_DATA, NO_INPUT, UNAVAILABLE, INTERNAL, NO_MEMORY, CANNOT_CREATE, IO_ERROR, CONFIG)
# PMIx 4.2.2 frees twice what it keeps of a rank that is killed while MPI starts, and mpirun never ends; a hash table it
# keeps well.
FOR_MPIRUN = {"PMIX_MCA_gds": "hash"}
SCRIPT = Path(__file__).resolve().parent.parent / "select.sbatch"
# Options of sbatch, one behind the other; as in that script.
ASKS_FOR_GPUS = re.compile(r"(^| )(-G|--gpus(-per-\w+)?[= ]|--(gres|tres-per-\w+)[= ]\S*gpu)")


class Interrupted(Exception):
    """A signal came."""


class NotChecked(Stop):
    """The check came to no verdict, which is not the fault of the batch."""


def digest_of(rows):
    """The `digest` of a batch file, computed again: XXH3-128 of its rows as little-endian int64."""
    return xxhash.xxh3_128_hexdigest(struct.pack(f"<{len(rows)}q", *rows))


def reason_in(log):
    """Why it ended, of what a start has left in the log: seine's own line, or what a launcher put between its rules."""
    lines = [line.strip() for line in log.splitlines()]
    if error := next((line for line in lines if line.startswith("seine: error: ")), None):
        return error
    rules = [k for k, line in enumerate(lines) if re.fullmatch(r"-{20,}", line)]
    words = " ".join(itertools.takewhile(str, lines[rules[0] + 1:])) if rules else ""
    return words or next((line for line in reversed(lines) if line), "nothing")


class Night:
    def __init__(self, campaign, date, chosen, lock):
        self.campaign, self.date, self.chosen, self.lock = campaign, date, chosen, lock
        self.folder = campaign.night(date)
        self.batch, self.checkpoint = self.folder / "batch.json", self.folder / "checkpoint"
        self.request, self.pool = self.folder / "request.toml", self.folder / "pool.txt"
        self.seine = shutil.which(campaign.run["seine"], path=os.environ.get("PATH"))

    def finish(self):
        """From wherever the last start stopped to a batch that may be published."""
        if self.is_checked():
            return
        if not self.seine:
            raise Stop(CONFIG, f"run.seine = {self.campaign.run['seine']!r}: no such program in PATH")
        fresh = self.prepare()
        try:
            self.select()
        except Stop as stop:
            if fresh or stop.code not in (BAD_DATA, NO_INPUT):
                raise
            say(f"{stop}. What it read has changed since it began; it starts over")
            move_aside(self.folder, "abandoned")
            self.prepare()
            self.select()
        self.check()

    def is_checked(self):
        return (self.folder / "checked").exists()

    # - the request, frozen so that a night that is resumed asks the same -

    def prepare(self):
        """True where the night begins with this start."""
        request = self.request_text()
        pool = FrozenPool.now(self.campaign.pool_files())
        if self.request.exists():
            if self.request.read_text(encoding="utf-8") != request:
                changed = "the campaign file has changed"
            elif not self.batch.exists() and self.lists_lack_ids():
                changed = "other nights have chosen ids"
            elif FrozenPool.of(self.folder).change(pool) and not self.has_ids(pool):
                changed = "files of a pool without ids have changed"
            else:
                say(f"{self.date}: goes on where it stopped")
                return False
            say(f"{self.date}: {changed} since it began; it starts over")
            move_aside(self.folder, "abandoned")
        gone = self.files_gone(pool)
        labelled = self.campaign.labelled_ids()
        published = self.published_before()
        key = key_of(published)
        back = {key(each) for each in labelled}
        pending = [each for each in published if each not in back]
        facts = {"pool_files": len(pool.paths), "pool_bytes": sum(pool.sizes), "sizes": pool.sizes, "gone": gone,
                 "labelled": len(labelled), "published": len(published), "pending": len(pending)}

        def fill(folder):
            write_file(folder / "request.toml", request)
            write_file(folder / "pool.txt", "".join(path + "\n" for path in pool.paths))
            write_file(folder / "labelled.csv", as_csv(labelled))
            write_file(folder / "pending.csv", as_csv(pending))
            write_file(folder / "facts.json", json.dumps(facts))
        appear(self.folder, fill)
        say(f"{self.date}: begins: {len(labelled)} labelled, {len(pending)} pending, "
            f"{counted(len(pool.paths), 'file')} of the pool")
        return True

    def published_before(self):
        return [each for ids in self.chosen.values() for each in ids]

    def lists_lack_ids(self):
        """Whether an id was chosen since the lists were frozen: the selection might choose it again."""
        published = self.published_before()
        key = key_of(published)
        frozen = {key(each) for name in ("labelled.csv", "pending.csv") for each in read_ids(str(self.folder / name))}
        return not frozen.issuperset(published)

    def request_text(self):
        options = {**self.campaign.select, "pool": [str(self.pool)], "labelled": [str(self.folder / "labelled.csv")],
                   "pending": [str(self.folder / "pending.csv")], "threads": self.campaign.run["threads"],
                   "checkpoint": str(self.checkpoint), "out": str(self.batch)}
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in options.items()]
        # The pool as the campaign has it, too: where that changes, the night starts over.
        given = json.dumps(self.campaign.select["pool"], ensure_ascii=False)
        return f"# seine select --config {self.request}\n# pool of the campaign: {given}\n" + "\n".join(lines) + "\n"

    def files_gone(self, pool):
        """How many files the pool has lost since the last night. Without ids of its own, a row is known by its place in
        the pool, and that must stay what it was."""
        last = max(self.chosen, default=None)
        kept = last and self.campaign.night(last)
        if not kept or not (kept / "facts.json").exists():
            return 0
        before = FrozenPool.of(kept)
        gone = sorted(set(before.paths).difference(pool.paths), key=natural_key)
        if gone:
            others = f" and {len(gone) - 1:,} others" if gone[1:] else ""
            say(f"{self.date}: the pool has lost {counted(len(gone), 'file')} since {last}: {gone[0]}{others}")
        batch = json.loads((self.campaign.publish / last / "batch.json").read_text(encoding="utf-8"))
        if batch["ids"] == batch["rows"] and (change := before.change(pool)) and not self.has_ids(pool):
            raise Stop(BAD_DATA, f"{self.date}: the pool has no ids, so a row is known by its place: files may only be "
                                 f"added behind the others, and stay as they are. Since {last}: {change}")
        return len(gone)

    def has_ids(self, pool):
        """Whether the pool names its samples."""
        words = ["plan", "--pool", pool.paths[0], "--strategy", "random", "--batch", "1", "--device", "cpu", "--json"]
        if "ids" in self.campaign.select:
            words += ["--ids", self.campaign.select["ids"]]
        done = subprocess.run([self.seine, *words], capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise Stop(done.returncode if done.returncode in FINAL_CODES else UNAVAILABLE,
                       f"{self.date}: {done.stderr.strip()}")
        return json.loads(done.stdout)["pool"]["ids"] != "row number"

    # - the selection -

    def select(self):
        if self.batch.exists():
            return
        once = self.select_by_slurm if self.campaign.run["by"] == "slurm" else self.select_here
        before, log = self.progress(), self.folder / "log"
        for _ in range(self.campaign.run["attempts"]):
            begin = log.stat().st_size if log.exists() else 0
            code, what = once()
            if self.batch.exists():
                return
            said = reason_in(log.read_bytes()[begin:].decode(errors="replace")) if log.exists() else "nothing"
            if code in FINAL_CODES:
                raise Stop(code, f"{self.date}: {what} ended with {code}: {said}; see {log}")
            say(f"{self.date}: {what} ended with {code} and without a batch")
        attempts = counted(self.campaign.run["attempts"], "attempt")
        raise Stop(LATER if self.progress() != before else UNAVAILABLE,
                   f"{self.date}: no batch after {attempts}; the next start goes on from the checkpoint, if there is "
                   f"one; {log} says \"{said}\"")

    def progress(self):
        """Changes when a checkpoint is written."""
        return [path.stat().st_mtime_ns for path in self.folder.glob("checkpoint*")]

    def count_start(self):
        with open(self.folder / "starts", "a", encoding="utf-8") as file:
            file.write(utc_now() + "\n")

    def starts(self):
        path = self.folder / "starts"
        return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0

    def select_here(self):
        run = self.campaign.run
        launch = run["launch"] or ["mpirun", "-n", str(run["ranks"]), "--bind-to", "none"]
        self.count_start()
        with open(self.folder / "log", "ab") as log:
            # The lock goes to the child: while a selection lives whose nightly.sh was killed, nobody starts another.
            try:
                child = subprocess.Popen([*launch, self.seine, "select", "--config", str(self.request)],
                                         cwd=self.campaign.base, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         pass_fds=[self.lock], env={**FOR_MPIRUN, **os.environ})
            except OSError as error:
                raise Stop(UNAVAILABLE, f"{self.date}: {launch[0]} cannot be started: {error.strerror}") from None
            try:
                return child.wait(), f"{launch[0]} seine select"
            except Interrupted as interrupted:
                child.send_signal(signal.SIGUSR1)  # mpirun passes it on, and waits for the checkpoint
                try:
                    child.wait(60)
                except subprocess.TimeoutExpired:
                    child.kill()
                raise Stop(LATER, f"{self.date}: {interrupted}; the next start goes on") from None

    def select_by_slurm(self):
        name = f"seine-{self.campaign.name}-{self.date}"
        if job := slurm.job_in_queue(name):
            say(f"{self.date}: waits for job {job}, which an earlier start submitted")
        else:
            job = self.submit(name)
        try:
            slurm.wait_for_job(job, self.campaign.run["poll"])
        except Interrupted as interrupted:
            raise Stop(LATER, f"{self.date}: {interrupted}; job {job} goes on, the next start waits for it") from None
        if self.batch.exists():
            return 0, f"job {job}"
        state, code = slurm.end_of(job)
        if state == "CANCELLED":
            raise Stop(LATER, f"{self.date}: job {job} was cancelled; the next start submits it again")
        return code, f"job {job} ({state})"

    def submit(self, name):
        run = self.campaign.run
        wants = self.campaign.select.get("device") == "cuda" and not ASKS_FOR_GPUS.search(" ".join(run["sbatch"]))
        gpus = ["--gpus-per-task=1"] if wants else []
        job = slurm.submit(f"--job-name={name}", f"--chdir={self.campaign.base}", f"--output={self.folder / 'log'}",
                           f"--ntasks={run['ranks']}", f"--cpus-per-task={run['threads']}", *gpus, *run["sbatch"],
                           str(SCRIPT), "--config", str(self.request), "--out", str(self.batch), "--checkpoint",
                           str(self.checkpoint), SEINE=self.seine)
        self.count_start()
        say(f"{self.date}: submitted job {job}")
        return job

    # - the check -

    def check(self):
        """Nothing that the program claims of its batch is believed; a batch that fails is put aside, and one of which
        nothing was found out stays for the next start."""
        try:
            batch = json.loads(self.batch.read_text(encoding="utf-8"))
            self.check_alone(batch)
            self.check_against_pool(batch)
            self.keep(batch)
        except NotChecked:
            raise
        except (Stop, ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
            aside = move_aside(self.batch, "rejected")
            said = error if isinstance(error, (Stop, ValueError)) else f"{type(error).__name__}: {error}"
            raise Stop(INTERNAL, f"{self.date}: the batch is not published: {said}; it is kept as {aside}") from None

    def check_alone(self, batch):
        def expect(true, what):
            if not true:
                raise ValueError(what)
        ids, rows, select = batch["ids"], batch["rows"], self.campaign.select
        expect(batch["format"] == "seine-batch", "it is not a batch file of seine")
        expect(batch["strategy"] == select["strategy"], f"it was chosen by {batch['strategy']}")
        expect(len(ids) == len(rows) == len(batch["score"]) == len(batch["gain"]), "its columns differ in length")
        expect(len(ids) == select["batch"] or (batch["truncated"] and 0 < len(ids) < select["batch"]),
               f"it has {counted(len(ids), 'id')} instead of {select['batch']}")
        expect(len(set(ids)) == len(ids) and len(set(rows)) == len(rows), "an id is in it twice")
        expect(digest_of(rows) == batch["digest"], "its digest is not that of its rows")
        for date, before in self.chosen.items():
            expect(set(ids).isdisjoint(before), f"ids of {date} are in it again")
        key = key_of(ids)
        labelled = {key(each) for each in read_ids(str(self.folder / "labelled.csv"))}
        expect(labelled.isdisjoint(ids), "ids are in it that are labelled already")

    def check_against_pool(self, batch):
        """seine, asked for these ids as the only candidates of another selection, reads them from the pool again."""
        again = self.folder / "check.json"
        select = self.campaign.select
        words = ["--pool", self.pool, "--labels", "none", "--strategy", "random", "--batch", len(batch["ids"]),
                 "--candidates", self.batch, "--strict-ids", "--certificate", "off",
                 "--device", "cpu", "--force", "--out", again]
        if "ids" in select:
            words += ["--ids", select["ids"]]
        again.unlink(missing_ok=True)
        command = [*self.campaign.run["check"], self.seine, "select", *map(str, words)]
        try:
            done = subprocess.run(command, cwd=self.campaign.base, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise NotChecked(UNAVAILABLE, f"{self.date}: the check, {command[0]}: {error.strerror}") from None
        said = reason_in(done.stderr)
        if done.returncode == BAD_DATA and "--candidates: " in said:  # and not a pool that has been damaged since
            raise ValueError(f"its ids were looked up in the pool: {said}")
        if done.returncode or not again.exists():
            code = done.returncode if done.returncode in (*FINAL_CODES, LATER) else UNAVAILABLE
            raise NotChecked(code, f"{self.date}: the check ended with {done.returncode} and no verdict; the batch is "
                                   f"kept, and the next start checks it: {said}")
        found = json.loads(again.read_text(encoding="utf-8"))
        if dict(zip(found["rows"], found["ids"])) != dict(zip(batch["rows"], batch["ids"])):
            raise ValueError("its ids are not those of its rows in the pool")

    def keep(self, batch):
        """Puts together what is going to be published, and what the ledger will say of it."""
        facts = json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))
        facts |= {"campaign": self.campaign.name, "night": self.date, "starts": self.starts(),
                  "request": str(self.request), "by": self.campaign.run["by"]}

        def fill(folder):
            copy_file(self.batch, folder / "batch.json")
            write_file(folder / "ids.csv", as_csv(batch["ids"]))
            write_file(folder / "summary.md", summary_of(batch, facts))
            record = {"night": self.date, "event": "published", "at": utc_now(),
                      "batch": batch["digest"], "rows": len(batch["ids"]), "candidates": batch["candidates"],
                      "pool_rows": batch["pool_rows"], "pool": batch["pool_fingerprint"],
                      "labelled": facts["labelled"], "pending": facts["pending"], "starts": facts["starts"],
                      "files": {name: sha256_of(folder / name) for name in PUBLISHED_FILES}}
            write_file(folder / "record.json", json.dumps(record, ensure_ascii=False))
        appear(self.folder / "checked", fill)
