#!/usr/bin/python3
"""A month in the life of a campaign, in minutes: a pool that grows every night, annotators who give labels back, and
five faults, under a Slurm on this machine that it starts itself (as root, with the packages slurm-wlm and munge).

usage: SEINE_BIN=build/release/bin/seine tools/simulate_month.py [--nights N] [--local] [--seed S] ...

Ends with 0 where every night has its batch, no id is in two of them, and ledger, batches and pool agree.
"""
import argparse
import contextlib
import csv
import datetime
import json
import os
import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from jobs_support import (NIGHT_SECONDS, Campaign, Pool, expect, expect_equal, frozen, seine,  # noqa: E402
                          selections_of, send, wait_for, work_folder)
from slurm_cluster import Cluster, why_not  # noqa: E402

SIGKILL, SIGTERM = 9, 15
LABELLED_AFTER = 3  # nights; one sample in ten never comes back


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--nights", type=int, default=30, help="how many [30]")
    add("--shards", type=int, default=50, help="of the pool in the first night; one more every night [50]")
    add("--rows", type=int, default=4000, help="of a shard [4000]")
    add("--dim", type=int, default=32, help="of the embeddings [32]")
    add("--batch", type=int, default=500, help="ids a night [500]")
    add("--strategy", default="badge", help="[badge]")
    add("--ranks", type=int, default=2, help="[2]")
    add("--local", action="store_true", help="without Slurm")
    add("--seed", type=int, default=1, help="of the pool, the nights of the faults, the ranks that die [1]")
    return parser.parse_args()


class Month:
    def __init__(self, asked, folder, cluster):
        self.asked, self.cluster, self.random = asked, cluster, random.Random(asked.seed)
        self.pool = Pool(folder / "pool", asked.rows * (asked.shards + asked.nights), asked.shards + asked.nights,
                         asked.dim, seed=asked.seed)
        launch = f'launch = ["mpirun", "-n", "{asked.ranks}", "--oversubscribe"]'
        under_slurm = f'ranks = {asked.ranks}\npoll = 0.3\nsbatch = ["--mem-per-cpu=1500M", "--time=30"]'
        self.campaign = Campaign(
            folder, "month", by="slurm" if cluster else "local", run=under_slurm if cluster else launch,
            select=f'strategy = "{asked.strategy}"\nbatch = {asked.batch}\nseed = {asked.seed}\ncheckpoint-every = 0.2')
        self.environment = {**(cluster.environment if cluster else os.environ), "PYTHON": sys.executable}
        first = datetime.date(2025, 3, 1)
        self.dates = [str(first + datetime.timedelta(days=n)) for n in range(asked.nights)]
        faults = [self.rank_killed, self.nightly_killed, self.machine_off, self.published_damaged,
                  self.node_failed if cluster else self.shut_down]
        # Never in the last night, which has nobody to catch up, nor two of them in one.
        self.faults = dict(zip(self.random.sample(range(1, asked.nights - 1), min(5, asked.nights - 2)), faults))

    def nightly(self, number, **more):
        return self.campaign.nightly("--today", self.dates[number], environment=self.environment, **more)

    def start(self, number):
        return self.campaign.start("--today", self.dates[number], environment=self.environment)

    # --- the faults ---

    def rank_killed(self, number):
        process = self.start(number)
        with frozen(self.campaign.folder) as ranks:
            send(self.random.choice(ranks), SIGKILL)
        _, err = process.communicate(timeout=NIGHT_SECONDS)
        expect_equal(process.returncode, 0, err)

    def nightly_killed(self, number):
        process = self.start(number)
        with frozen(self.campaign.folder):
            process.kill()
            process.wait()
        if not self.cluster:
            wait_for("the end of the orphan", lambda: not selections_of(self.campaign.folder))
        self.nightly(number)

    def machine_off(self, number):
        """Nothing starts; the next night makes up for it."""

    def published_damaged(self, number):
        batch = self.campaign.published / self.campaign.nights()[-1] / "batch.json"
        batch.write_bytes(batch.read_bytes()[:-1000])
        with open(self.campaign.ledger, "ab") as ledger:  # and an append that died
            ledger.write(b'{"night": "2025-')
        self.nightly(number, says="damaged, published again")

    def node_failed(self, number):
        process = self.start(number)
        with frozen(self.campaign.folder):
            self.cluster.kill_node()
        self.cluster.start_node()
        _, err = process.communicate(timeout=NIGHT_SECONDS)
        expect_equal(process.returncode, 0, err)

    def shut_down(self, number):
        process = self.start(number)
        with frozen(self.campaign.folder):
            process.send_signal(SIGTERM)
        process.communicate(timeout=60)
        self.nightly(number)

    # --- the nights ---

    def annotate(self, number):
        """What was published some nights ago comes back."""
        if number >= LABELLED_AFTER and (ids := self.campaign.ids().get(self.dates[number - LABELLED_AFTER])):
            back = [each for each in ids if self.random.random() < 0.9]
            path = self.campaign.labels / f"{self.dates[number]}.csv"
            path.write_text("id,class\n" + "".join(f"{each},{self.random.randrange(4)}\n" for each in back))

    def run(self):
        print(f"{'night':<12}{'pool':>9}{'labelled':>10}{'pending':>9}{'starts':>8}{'seconds':>9}  digest")
        for number, date in enumerate(self.dates):
            self.pool.grow(self.asked.shards + number + 1)
            self.annotate(number)
            begin, known = time.monotonic(), len(self.campaign.events())
            fault = self.faults.get(number)
            fault(number) if fault else self.nightly(number)
            seconds = time.monotonic() - begin
            for event in self.campaign.events()[known:]:
                what = f"  {fault.__name__}" if fault and event["night"] == date else ""
                print(f"{event['night']:<12}{event['pool_rows']:>9,}{event['labelled']:>10,}{event['pending']:>9,}"
                      f"{event['starts']:>8}{seconds:>9.1f}  {event['batch']}{what}", flush=True)
            if not self.campaign.events()[known:]:
                print(f"{date:<12}  {fault.__name__}", flush=True)

    # --- what must be true afterwards ---

    def check(self):
        self.campaign.expect_sound(self.dates)
        chosen = [each for ids in self.campaign.ids().values() for each in ids]
        expect_equal(len(set(chosen)), self.asked.nights * self.asked.batch, "different ids")
        for event in self.campaign.events():
            expect_equal(event["candidates"], event["pool_rows"] - event["labelled"] - event["pending"], event["night"])
        # The pool, asked for all of them: each is there, in a row of its own.
        everything = self.campaign.base / "chosen.csv"
        with open(everything, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id"], *([each] for each in chosen)])
        seine("select", "--pool", f"{self.pool.folder}/*.h5", "--strategy", "random", "--batch", len(chosen),
              "--candidates", everything, "--strict-ids", "--certificate", "off", "--out",
              self.campaign.base / "found.json")
        found = json.loads((self.campaign.base / "found.json").read_text())
        expect_equal((sorted(found["ids"]), len(set(found["rows"]))), (sorted(chosen), len(chosen)), "ids in the pool")
        for number in self.faults:  # what was disturbed is what it would have been
            date = self.dates[number]
            line = seine("select", "--config", self.campaign.folder / "nights" / date / "request.toml", "--checkpoint",
                         self.campaign.base / "undisturbed", "--out", self.campaign.base / f"undisturbed-{date}.json")
            expect(f"digest={self.campaign.batch(date)['digest']} " in line, f"{date}: undisturbed, it is {line}")
        return len(chosen)


def main():
    asked = arguments()
    if not asked.local and why_not():
        sys.exit(f"simulate_month: {why_not()}; --local goes without")
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(work_folder())
        cluster = None
        if not asked.local:
            cluster = stack.enter_context(Cluster(folder / "slurm"))
            cluster.environment["SEINE"] = os.environ["SEINE_BIN"]
            over = threading.Event()
            stack.callback(over.set)

            def hurry():
                while not over.wait(1):
                    cluster.hurry()
            threading.Thread(target=hurry, daemon=True).start()
        month = Month(asked, folder, cluster)
        month.run()
        ids = month.check()
        rows = month.campaign.events()[-1]["pool_rows"]
    print(f"{asked.nights} nights, {asked.nights} batches published, {ids:,} ids, none twice; ledger, batches and the "
          f"pool of {rows:,} rows agree; {len(month.faults)} faults, and what they disturbed is what undisturbed runs "
          f"choose; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
