#!/usr/bin/python3
"""seine beside the plain compiled loop (tools/bench/baseline.cpp) on Fashion-MNIST: the same picks, and how much faster.

The `select` seconds of the batch file's /timing against the loop's selection alone, both with --threads threads, taken in
turn. Prints a table of the ratios (above 1: seine is faster) and writes everything measured as JSON. The packages are
those of tools/quickstart.sh.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import fashion_mnist
import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "build/release/bin"
CASES = {  # name: (strategy, pool)
    "k_center, pixels 60,000 x 784": ("k_center", "pixels.h5"),
    "k_center, hidden layer 60,000 x 128": ("k_center", "hidden.h5"),
    "badge, hidden layer 60,000 x (128, 10)": ("badge", "hidden.h5"),
}


def build():
    for command in (["cmake", "--preset", "release", "-DSEINE_BENCH=ON"],
                    ["cmake", "--build", "--preset", "release", "--target", "seine", "seine_bench_baseline"]):  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def make_pools(folder):
    """The images as they are, and what a network trained on 500 of them makes of them (as in quickstart)."""
    if (folder / "pixels.h5").exists() and (folder / "hidden.h5").exists():
        return
    pixels, classes = fashion_mnist.images("train")
    labelled = np.sort(np.random.default_rng(0).choice(len(pixels), 500, replace=False))
    network = fashion_mnist.train(pixels[labelled], classes[labelled], seed=0)
    hidden = fashion_mnist.hidden_layer(network, pixels)
    for name, columns in {
        "pixels.h5": {"embeddings": pixels},
        "hidden.h5": {"embeddings": hidden, "probabilities": fashion_mnist.probabilities(network, hidden)},
    }.items():
        with h5py.File(folder / "part", "w") as file:
            for column, values in columns.items():
                file[column] = values
        (folder / "part").rename(folder / name)


def place(pool, name):
    """FILE:OFFSET of a contiguous dataset, and its shape."""
    with h5py.File(pool) as file:
        return f"{pool}:{file[name].id.get_offset()}", file[name].shape


def run_loop(strategy, pool, picks, threads, seed):
    embeddings, (rows, dim) = place(pool, "embeddings")
    out = pool.parent / "loop.txt"
    command = [BIN / "seine_bench_baseline", strategy, rows, dim, picks, threads, embeddings, out]
    if strategy == "badge":
        probabilities, (_, classes) = place(pool, "probabilities")
        command += [classes, probabilities, seed]
    # Threads that wait go to sleep soon: on a busy machine they would keep their partner from the core.
    environment = dict(os.environ, GOMP_SPINCOUNT="1000")
    done = subprocess.run([str(word) for word in command], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout), np.loadtxt(out, dtype=np.int64, ndmin=1)


def run_seine(strategy, pool, picks, threads, seed):
    out = pool.parent / "seine.h5"
    command = [BIN / "seine", "select", "--pool", pool, "--strategy", strategy, "--batch", picks, "--threads", threads,
               "--seed", seed, "--device", "cpu", "--certificate", "off", "--quiet", "--out", out]  # fmt: skip
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    with h5py.File(out) as file:
        return float(file["timing"].attrs["select"]), file["rows"][:]


def gradient_potential(pool, rows):
    """Mean squared distance of (a sample of) all gradient embeddings to the nearest of the batch."""
    with h5py.File(pool) as file:
        hidden, residuals = file["embeddings"][:].astype(float), -file["probabilities"][:].astype(float)
    residuals[np.arange(len(residuals)), residuals.argmin(axis=1)] += 1
    norms = (residuals**2).sum(axis=1) * (hidden**2).sum(axis=1)
    sample = np.random.default_rng(0).choice(len(hidden), 8192, replace=False)
    product = (residuals[sample] @ residuals[rows].T) * (hidden[sample] @ hidden[rows].T)
    return np.maximum(norms[sample, None] + norms[rows] - 2 * product, 0).min(axis=1).mean()


def agreement(strategy, pool, ours, theirs):
    """A draw may differ; everything else may not."""
    if strategy != "badge":
        same = int((ours == theirs).argmin()) if not np.array_equal(ours, theirs) else len(ours)
        return same == len(ours), f"{same} of {len(ours)} picks are the same"
    a, b = gradient_potential(pool, ours), gradient_potential(pool, theirs)
    return abs(a / b - 1) < 0.1 and len(set(ours)) == len(ours), f"potential {a:.4g}, the loop's {b:.4g}"


def measure(name, strategy, pool, options):
    loop, seine, notes, agrees = [], [], [], True
    for repeat in range(options.repeats):
        seconds, theirs = run_loop(strategy, pool, options.picks, options.threads, repeat)
        loop.append(seconds)
        seconds, ours = run_seine(strategy, pool, options.picks, options.threads, repeat)
        seine.append(seconds)
        if strategy == "badge" or repeat == 0:
            good, note = agreement(strategy, pool, ours, theirs)
            agrees, notes = agrees and good, notes + [note]
    ratios = [a / b for a, b in zip(loop, seine)]
    return {"case": name, "strategy": strategy, "picks": options.picks, "threads": options.threads, "loop_seconds": loop,
            "seine_seconds": seine, "ratios": ratios, "agrees": bool(agrees), "notes": notes}  # fmt: skip


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench", help="of the pools and of bench.json")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    build()
    make_pools(options.folder)
    if load > 0.5:
        print(f"This machine is busy (load {load:.1f}): the ratios will be too.", file=sys.stderr)
    print(f"{options.picks:,} picks, {options.threads} threads, {options.repeats} repeats in turn; seconds are medians\n")
    print(f"{'':<40}{'loop s':>9}{'seine s':>9}   {'ratio: min':>10}{'median':>8}{'max':>8}   agreement")
    results = []
    for name, (strategy, pool) in CASES.items():
        if options.only not in name:
            continue
        result = measure(name, strategy, options.folder / pool, options)
        results.append(result)
        loop, seine = (statistics.median(result[side]) for side in ("loop_seconds", "seine_seconds"))
        ratios = result["ratios"]
        print(f"{name:<40}{loop:>9.3f}{seine:>9.3f}   {min(ratios):>10.2f}{statistics.median(ratios):>8.2f}{max(ratios):>8.2f}"
              f"   {'yes' if result['agrees'] else 'NO'}: {result['notes'][0]}", flush=True)  # fmt: skip
    machine = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "load_before": load}
    (options.folder / "bench.json").write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    print(f"\n{options.folder / 'bench.json'}")
    if not results or not all(result["agrees"] for result in results):
        sys.exit("seine: the picks do not agree" if results else "seine: no such case")


if __name__ == "__main__":
    main()
