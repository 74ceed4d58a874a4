#!/usr/bin/env python3
"""The table of tools/gpu_check.sh, which starts it: kernels against the measured bounds of the device, and whole
selections against the floor of one pass over the pool per pick. Needs nothing beyond Python's own library."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

WIDTHS = (62, 10, 10, 10)


@dataclass(frozen=True)
class Whole:
    """A selection from a pool that `seine synth` makes. One pass reads `row_bytes` of every row."""

    strategy: str
    rows: int
    picks: int
    synth: tuple
    row_bytes: int
    shape: str
    options: tuple = ()
    passes: int = None  # None: one for each pick

    @property
    def name(self):
        return f"{self.strategy}, {self.rows:,} x {self.shape}, {self.picks:,} picks"

    def floor(self, bandwidth):
        return (self.passes or self.picks) * self.rows * self.row_bytes / bandwidth


def selections(quick):
    part = 100 if quick else 1
    million = 1_000_000 // part
    clusters = ("--clusters", 1000)
    return [
        Whole("k_center", million, 10_000 // part, ("--dim", 512, "--dtype", "f16", *clusters), 2 * 512, "512 float16"),
        Whole("badge", million, 10_000 // part, ("--dim", 512, "--dtype", "f16", "--classes", 100, *clusters),
              2 * 512 + 4 * 100, "(512 float16, 100)"),
        Whole("entropy", 100 * million, 10_000 // part, ("--dim", 1, "--classes", 10), 4 * 10, "10", passes=1),
        Whole("facility_location", million, 1_000 // part, ("--dim", 256, *clusters), 4 * 256, "256, ground = all",
              options=("--set", "ground=all")),
    ]  # fmt: skip


def line(*cells):
    name, *others = cells
    return f"{name:<{WIDTHS[0]}}" + "".join(f"{cell:>{width}}" for cell, width in zip(others, WIDTHS[1:])) + f"   {others[-1]}"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Table:
    def __init__(self, options):
        self.options, self.end = options, time.monotonic() + options.seconds
        self.failed = False

    def run(self, limit, *command):
        """None where there was no time for it."""
        seconds = min(limit, self.end - time.monotonic())
        if seconds < 1:
            return None
        try:
            return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def fail(self, name, done, limit):
        self.failed = True
        if done is None:
            print(line(name, "-", "-", "-", f"no result in {limit} s, or no time was left: start again, it is built now"))
            return
        last = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        print(line(name, "-", "-", "-", f"ended with {done.returncode}: {last[0]}"))

    def kernels(self):
        """Prints their lines; returns the measured bandwidth in bytes a second, or None."""
        out, limit = self.options.data / "seine_kernels.json", 120
        done = self.run(limit, self.options.binaries / self.options.kernels, self.options.threads, "--benchmark_min_time=0.05",
                        "--benchmark_filter=-^(row_kernel|score_bounds|exact_scores)",
                        f"--benchmark_out={out}", "--benchmark_out_format=json")  # fmt: skip
        if done is None or done.returncode:
            self.fail("kernels", done, limit)
            return None
        content = json.loads(out.read_text())
        bounds = {name: float(content["context"][name]) for name in ("read_GB/s", "copy_GB/s", "gemm_Gflop/s")}
        print(content["context"]["device"])
        print(f"copy {number(bounds['copy_GB/s'])} GB/s read and written, GEMM {number(bounds['gemm_Gflop/s'])} Gflop/s")
        for name, label in (("gemm_tf32_Gflop/s", "TF32"), ("gemm_f16_Gflop/s", "float16")):
            if name in content["context"]:
                print(f"{label} GEMM {number(float(content['context'][name]))} Gflop/s")
        print()
        print(line("kernel", "ms", "GB/s", "Gflop/s", "of its bound"))
        for run in content["benchmarks"]:
            milliseconds = run["real_time"] * {"ns": 1e-6, "us": 1e-3, "ms": 1}[run["time_unit"]]
            rates = [number(run[name]) if name in run else "-" for name in ("GB/s", "Gflop/s")]
            print(line(run["name"].removesuffix("/real_time"), f"{milliseconds:.3f}", *rates,
                       f"{100 * run['share']:.0f} % of {run['label']}"))  # fmt: skip
        return 1e9 * bounds["read_GB/s"]

    def selection(self, whole, bandwidth):
        """Prints the line of one: made, selected, compared with its floor."""
        seine, pool, limit = self.options.binaries / "seine", self.options.data / f"seine_{whole.strategy}", 200
        ranks = min(self.options.threads, 16)
        done = self.run(limit, "mpirun", "-n", ranks, "--oversubscribe", "--bind-to", "none", seine, "synth", "--rows", whole.rows,
                        *whole.synth, "--ids", "none", "--seed", 1, "--shards", ranks, "--quiet", "--out", pool)  # fmt: skip
        if done is None or done.returncode:
            self.fail(f"synth for {whole.name}", done, limit)
            return
        out = self.options.data / "seine_batch.json"
        done = self.run(limit, seine, "select", "--pool", *sorted(pool.iterdir()), "--strategy", whole.strategy, "--batch", whole.picks,
                        *whole.options, "--device", self.options.device, "--threads", self.options.threads, "--certificate", "off",
                        "--progress", "never", "--force", "--out", out)  # fmt: skip
        shutil.rmtree(pool)
        if done is None or done.returncode:
            self.fail(whole.name, done, limit)
            return
        timing = json.loads(out.read_text())["timing"]
        floor = whole.floor(bandwidth)
        seconds = timing["select"]
        print(line(whole.name, f"{timing['read']:.2f}", f"{seconds:.2f}", f"{floor:.2f}",
                   f"{seconds / floor:.2f} times, {number(100 * timing['share'])} % of the pairs met"))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--binaries", type=Path, required=True)
    parser.add_argument("--kernels", required=True, help="the program of micro-benchmarks")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="for everything")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    table = Table(parser.parse_args())
    sys.stdout.reconfigure(line_buffering=True)
    bandwidth = table.kernels()
    if bandwidth:
        print()
        print(line("selection", "read s", "select s", "floor s", "of the floor: one pass for each pick, one for entropy"))
        for whole in selections(table.options.quick):
            table.selection(whole, bandwidth)
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
