#!/usr/bin/python3
"""Interrupted runs against undisturbed ones. Three tables on standard output:

kills   SIGKILL of a random rank at a random moment, then the same command with other ranks, threads, shards and memory,
        until it is done: how many digests are those of the undisturbed run, and how many picks were made again.
stops   SIGUSR1 to one rank of a streamed run at a random moment: seconds until all have ended, with exit code 75.
cost    seconds that runs spend on checkpoints, by their own clock: as they were made, and every 300 seconds.

Everything random comes from --seed, which is printed. `--kills 100 --stops 50` takes about an hour on two cores.
"""
import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POOL = ["--rows", "40000", "--dim", "96", "--classes", "10", "--passes", "2", "--clusters", "1", "--labelled", "0.001"]
MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PMIX_MCA_gds": "hash",  # or mpirun waits for ever, now and then, where a rank is killed while MPI starts
}
# Batches that take some seconds, so that moments differ.
CASES = {
    "random": (20000, []),
    "entropy": (20000, []),
    "least_confidence": (20000, []),
    "margin": (20000, []),
    "bald": (20000, []),
    "k_center": (3000, []),
    "k_means_pp": (3000, []),
    "badge": (2000, []),
    "facility_location": (100, ["--set", "ground=4000"]),
    "log_det": (1000, []),
    "k_center, kept": (2000, ["--score", "entropy", "--keep", "10"]),
    "k_means_pp, weighted": (2000, ["--score", "entropy", "--score-power", "1"]),
    "k_center, merged": (500, ["--reduce", "merge", "--partitions", "16"]),
    "k_means_pp, merged": (500, ["--reduce", "merge", "--partitions", "16"]),
    "badge, merged": (300, ["--reduce", "merge", "--partitions", "16", "--fan-in", "4"]),
    "facility_location, merged": (50, ["--reduce", "merge", "--partitions", "16", "--set", "ground=4000"]),
    "log_det, merged": (300, ["--reduce", "merge", "--partitions", "16"]),
}


class Run:
    """One start of `seine select`, alone or under mpirun."""

    def __init__(self, words, ranks):
        self.log = tempfile.TemporaryFile()
        launcher = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            [*launcher, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**MPI, **os.environ},
            start_new_session=True,
        )
        self.ranks = ranks

    def processes(self):
        """Of the ranks that are there: this process, or what mpirun has started."""
        if self.ranks == 1:
            return [self.process.pid]
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, fields = status.read_text().rsplit(")", 1)
            except OSError:
                continue
            if int(fields.split()[1]) == self.process.pid and name.endswith("(seine"):
                found.append(int(status.parent.name))
        return found

    def send(self, number, rank):
        """To one rank, if it is there; the time of the clock."""
        processes = sorted(self.processes())
        if self.process.poll() is None and processes:
            try:
                os.kill(processes[rank % len(processes)], number)
            except ProcessLookupError:
                pass
        return time.monotonic()

    def end(self):
        out, _ = self.process.communicate()
        self.seconds = time.monotonic() - self.begin
        self.log.seek(0)
        self.errors = self.log.read().decode(errors="replace")
        self.digest = re.findall(r"digest=(\w+)", out.decode())
        return self.process.returncode

    def picks(self, pattern):
        found = re.findall(pattern, self.errors)
        return int(found[-1]) if found else 0


class Campaign:
    def __init__(self, options, folder):
        self.binary, self.folder, self.random = options.seine, folder, random.Random(options.seed)
        self.pools = []
        for shards in (1, 3):
            pool = folder / f"pool-{shards}"
            words = [self.binary, "synth", "--quiet", *POOL, "--shards", shards, "--out", pool]
            subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL)
            self.pools.append(sorted(pool.glob("*.h5")))

    def words(self, case, checkpoint, every="0.3", streamed=False, threads=1, shards=0):
        batch, more = CASES[case]
        words = [self.binary, "select", "--pool", *self.pools[shards], "--strategy", case.split(",")[0]]
        words += ["--batch", batch, "--device", "cpu", "--threads", threads, *more]
        words += ["--out", self.folder / "batch.csv", "--force", "--progress", "always"]
        if streamed:
            words += ["--memory", "0.045"]
        if checkpoint:
            words += ["--checkpoint", self.folder / "checkpoint", "--checkpoint-every", every]
        return words

    def undisturbed(self, case):
        run = Run(self.words(case, False), 1)
        if run.end() != 0:
            sys.exit(run.errors)
        return run

    def wait_until_mpi_is_up(self, run):
        """Before that, signals are not answered with a checkpoint."""
        while run.process.poll() is None and not (self.folder / ".checkpoint.lock").exists():
            time.sleep(0.01)

    def forget(self):
        for name in ("checkpoint", "checkpoint.previous", ".checkpoint.lock"):
            (self.folder / name).unlink(missing_ok=True)

    def kill_until_done(self, case, want):
        """(kills, picks that were made again after each, whether the batch is that of the undisturbed run)"""
        kills, redone, reached = 0, [], 0
        while True:
            ranks = self.random.choice([1, 2, 3, 4])
            streamed, threads = self.random.random() < 0.4, self.random.choice([1, 2])
            run = Run(self.words(case, True, streamed=streamed, threads=threads, shards=self.random.randrange(2)), ranks)
            if kills < 6:  # then it may finish
                while run.process.poll() is None and not run.processes():
                    time.sleep(0.002)
                time.sleep(self.random.uniform(0, 0.3 + 1.2 * want.seconds))
                run.send(signal.SIGKILL, self.random.randrange(ranks))
            code = run.end()
            if kills > 0:
                redone.append(max(0, reached - run.picks(r"going on from \S+: (\d+) pick")))
            if code == 0:
                return kills, redone, run.digest == want.digest
            if "seine: error" in run.errors:
                sys.exit(run.errors)
            kills += 1
            reached = run.picks(r"select \d+ % \((\d+) of")

    def seconds_to_stop(self, case, longest):
        """From SIGUSR1 to one of the ranks until all have ended; none where the run was done before."""
        self.forget()
        ranks = self.random.choice([1, 2, 3])
        run = Run(self.words(case, True, every="300", streamed=True), ranks)
        self.wait_until_mpi_is_up(run)
        time.sleep(0.1 + self.random.uniform(0, longest))
        sent = run.send(signal.SIGUSR1, self.random.randrange(ranks))
        code = run.end()
        seconds = run.begin + run.seconds - sent
        return (code, seconds) if code != 0 else None


def kills(campaign, wanted):
    print(f"{'case':28} {'runs':>5} {'kills':>6} {'equal':>6} {'picks made again after a kill (of batch)':>44}")
    undisturbed = {case: campaign.undisturbed(case) for case in CASES}
    total, equal, runs = 0, 0, 0
    again = {case: ([], [0, 0, 0]) for case in CASES}
    while total < wanted:
        case = list(CASES)[runs % len(CASES)]
        count, redone, is_equal = campaign.kill_until_done(case, undisturbed[case])
        runs, total, equal = runs + 1, total + count, equal + is_equal
        again[case][0].extend(redone)
        for k, value in enumerate((1, count, is_equal)):
            again[case][1][k] += value
    for case, (redone, (ran, killed, same)) in again.items():
        spread = f"median {sorted(redone)[len(redone) // 2]}, most {max(redone)}" if redone else "-"
        print(f"{case:28} {ran:5} {killed:6} {same:6} {spread + f' ({CASES[case][0]})':>44}")
    print(f"{'all':28} {runs:5} {total:6} {equal:6}", flush=True)
    return runs == equal


def stops(campaign, wanted):
    cases = ["k_center", "badge", "log_det", "facility_location", "k_means_pp, merged"]
    seconds, codes = [], {}
    longest = {case: 1.0 for case in cases}
    for case in cases:
        run = Run(campaign.words(case, False, streamed=True), 2)
        run.end()
        longest[case] = max(0.2, run.seconds - 1.0)
    while len(seconds) < wanted:
        case = cases[len(seconds) % len(cases)]
        stopped = campaign.seconds_to_stop(case, longest[case])
        if stopped:
            codes[stopped[0]] = codes.get(stopped[0], 0) + 1
            seconds.append(stopped[1])
    seconds.sort()
    at = {name: seconds[int(share * (len(seconds) - 1))] for name, share in (("median", 0.5), ("90 %", 0.9), ("most", 1))}
    print("SIGUSR1 to one rank of a streamed run, until all have ended: exit codes", codes)
    print("seconds:", ", ".join(f"{name} {value:.2f}" for name, value in at.items()), flush=True)
    return codes == {75: len(seconds)}


def cost(campaign):
    print(f"{'case':28} {'seconds':>8} {'checkpoints':>12} {'seconds each':>13} {'share':>8} {'every 300 s':>12}")
    for case, batch in (("k_center", 12000), ("badge", 8000), ("facility_location", 2000), ("log_det", 4000)):
        words = campaign.words(case, True, every="0.5", streamed=True)
        words[words.index("--batch") + 1] = batch
        campaign.forget()
        run = Run(words, 2)
        if run.end() != 0:
            sys.exit(run.errors)
        saved = [float(text) for text in re.findall(r"checkpoint of .*, in ([\d.]+) s", run.errors)]
        each = sum(saved) / max(1, len(saved))
        share, usual = 100 * sum(saved) / run.seconds, 100 * each / 300
        print(f"{case:28} {run.seconds:8.2f} {len(saved):12} {each:13.4f} {share:6.2f} % {usual:10.4f} %", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seine", default=ROOT / "build/release/bin/seine", help="the executable")
    parser.add_argument("--kills", type=int, default=100, help="0: none")
    parser.add_argument("--stops", type=int, default=50, help="0: none")
    parser.add_argument("--cost", action="store_true", help="measure checkpoints, too")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(options, Path(folder))
        good = options.kills == 0 or kills(campaign, options.kills)
        good &= options.stops == 0 or stops(campaign, options.stops)
        if options.cost:
            cost(campaign)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
