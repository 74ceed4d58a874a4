#!/usr/bin/python3
"""What `seine plan` says beside what `seine select` takes: every strategy, two sizes each, in memory and streamed.

Memory is the largest resident size of a rank, as /timing has it; the run is given what is planned for it, as #SBATCH
lines would. Seconds are those of the whole process by the clock, which is only fair on
a machine that does nothing else; the processor time beside it is fair on a busy one, too. Prints a table of the ratios
(planned / measured) and writes everything as JSON. tools/bench.py calls run().
"""
import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
POOLS = {  # name: options of synth
    "small": {"rows": 60_000, "dim": 64, "classes": 10},
    "large": {"rows": 400_000, "dim": 128, "classes": 20},
    "passes": {"rows": 60_000, "dim": 4, "classes": 10, "passes": 5},
    "many passes": {"rows": 400_000, "dim": 4, "classes": 20, "passes": 8},
    "few": {"rows": 8_000, "dim": 64, "classes": 10},
    "some": {"rows": 24_000, "dim": 128, "classes": 10},
}
CHUNKS = {"large in chunks": ("large", 8 << 20)}  # of another pool, compressed in chunks of so many bytes
SIZES = {"bald": [("passes", 500), ("many passes", 1000)], "facility_location": [("few", 100), ("some", 200)]}
STREAMED = ["--memory", "0.15"]  # GiB


def cases_of(binary):
    """Strategy, pool, batch and further words of each."""
    listed = subprocess.run([binary, "strategies", "--json"], check=True, capture_output=True)
    cases = [(strategy["name"], pool, batch, []) for strategy in json.loads(listed.stdout)
             for pool, batch in SIZES.get(strategy["name"], [("small", 500), ("large", 1000)])]  # fmt: skip
    cases += [(strategy, "large", 1000, STREAMED) for strategy in ("k_center", "k_means_pp", "badge")]
    return cases + [(strategy, "large in chunks", 1000, STREAMED) for strategy in ("k_center", "badge")]


def compress(source, path, chunk_bytes):
    with h5py.File(source) as given, h5py.File(path, "w") as file:
        for name, data in given.items():
            row_bytes = data.dtype.itemsize * int(np.prod(data.shape[1:]))
            chunk = (min(len(data), max(1, chunk_bytes // row_bytes)), *data.shape[1:])
            file.create_dataset(name, data=data[...], chunks=chunk, compression="gzip", compression_opts=1, shuffle=True)


def make_pool(folder, binary, name):
    if name in CHUNKS:
        of, chunk_bytes = CHUNKS[name]
        path = folder / f"plan {name}.h5".replace(" ", "-")
        if not path.exists():
            compress(make_pool(folder, binary, of), path, chunk_bytes)
        return path
    pool = folder / f"plan {name}".replace(" ", "-")
    if not (pool / "part-00000.h5").exists():
        options = [word for key, value in POOLS[name].items() for word in (f"--{key}", str(value))]
        subprocess.run([binary, "synth", "--quiet", "--out", pool, *options], check=True, stdout=subprocess.DEVNULL)
    return pool / "part-00000.h5"


def measure(command):
    """Seconds by the clock, and seconds of the processor."""
    start = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"seine ended with {process.returncode}: {error}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime


def run_case(folder, binary, threads, constants, strategy, pool, batch, more, repeats):
    path = make_pool(folder, binary, pool)
    words = ["--pool", path, "--strategy", strategy, "--batch", str(batch), "--threads", str(threads), "--device", "cpu",
             *more]  # fmt: skip
    planned = subprocess.run([binary, "plan", "--json", "--quiet", "--calibration", constants, "--ranks", "1", *words],
                             check=True, capture_output=True)  # fmt: skip
    planned = json.loads(planned.stdout)
    out = folder / "plan-batch.json"
    given = [] if more else ["--memory", str(math.ceil(planned["memory_bytes"] / 2**20) / 2**10)]
    runs = [measure([binary, "select", "--quiet", "--force", "--out", out, *words, *given]) for _ in range(repeats)]
    timing = json.loads(out.read_text())["timing"]
    seconds, processor = (min(values) for values in zip(*runs))
    return {
        "strategy": strategy, "pool": POOLS[CHUNKS.get(pool, (pool,))[0]], "chunks": pool in CHUNKS, "batch": batch,
        "streamed": bool(more), "threads": threads,
        "memory_bytes": {"planned": planned["memory_bytes"], "measured": timing["memory"]},
        "seconds": {"planned": planned["seconds"], "measured": seconds},
        "processor_seconds": {"planned": planned["processor_seconds"], "measured": processor},
        "phases": {"planned": planned["phases"], "measured": timing},
    }  # fmt: skip


def run(folder, binary, threads, only="", repeats=2):
    """A result per case. The constants of the machine are measured first, into a file of their own."""
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    constants = folder / "machine.json"
    subprocess.run([binary, "plan", "--quiet", "--calibrate", "--calibration", constants, "--rows", "1000", "--strategy",
                    "random", "--batch", "1"], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    return [run_case(folder, binary, threads, constants, *case, repeats) for case in cases_of(binary) if only in case[0]]


def ratio(result, what):
    planned = result[what]["planned"]
    return (planned["likely"] if isinstance(planned, dict) else planned) / result[what]["measured"]


def table(results):
    lines = [f"{'':<36}{'memory MiB':>18}{'ratio':>7}{'seconds':>16}{'ratio':>7}{'processor s':>16}{'ratio':>7}"]
    for result in results:
        pool = result["pool"]
        more = "".join(f" {word}" for word in ("streamed", "chunks") if result[word])
        name = f"{result['strategy']} {pool['rows']:,}{more}"
        memory, seconds, processor = (result[what] for what in ("memory_bytes", "seconds", "processor_seconds"))
        lines.append(
            f"{name:<36}{memory['planned'] / 2**20:>9.0f}{memory['measured'] / 2**20:>9.0f}{ratio(result, 'memory_bytes'):>7.2f}"
            f"{seconds['planned']['likely']:>8.2f}{seconds['measured']:>8.2f}{ratio(result, 'seconds'):>7.2f}"
            f"{processor['planned']['likely']:>8.2f}{processor['measured']:>8.2f}{ratio(result, 'processor_seconds'):>7.2f}"
        )
    off = {what: max(max(ratio(result, what), 1 / ratio(result, what)) for result in results)
           for what in ("memory_bytes", "seconds", "processor_seconds")}  # fmt: skip
    inside = sum(r["seconds"]["planned"]["low"] <= r["seconds"]["measured"] <= r["seconds"]["planned"]["high"] for r in results)
    lines.append(f"\nmemory within {100 * (off['memory_bytes'] - 1):.0f} %, seconds within a factor of {off['seconds']:.2f}, "
                 f"processor time {off['processor_seconds']:.2f}; {inside} of {len(results)} between low and high")  # fmt: skip
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench", help="of the pools and of plan.json")
    parser.add_argument("--binary", type=Path, default=ROOT / "build/release/bin/seine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", default="", help="strategies whose name contains this")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"This machine is busy (load {load:.1f}): look at the processor time.", file=sys.stderr)
    results = run(options.folder, options.binary, options.threads, options.only, options.repeats)
    print("planned, measured, and planned / measured\n")
    print(table(results))
    (options.folder / "plan.json").write_text(json.dumps({"load_before": load, "results": results}, indent=2) + "\n")
    print(f"\n{options.folder / 'plan.json'}")


if __name__ == "__main__":
    main()
