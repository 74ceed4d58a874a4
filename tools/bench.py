#!/usr/bin/python3
"""seine beside the plain compiled loops and the peers of the field on this machine: as good, and how many times faster.

Makes the workloads (seeded; Fashion-MNIST from the distribution's package), installs the peers into a virtual
environment, runs both sides in turn with --threads threads each, and checks that results are equally good. Seconds are
of the selection alone: `select` of the batch file's /timing against the other side's own clock. Prints a table of
ratios (above 1: seine is faster), and one of kernels against the machine's measured bounds; writes bench.json and
bench.png. About 20 minutes on two quiet cores; --quick takes smaller workloads, for a first look.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARIES = ROOT / "build/release/bin"
sys.path.insert(0, str(ROOT / "tools/bench"))
TARGETS = ["seine", "seine_bench_baseline", "seine_bench_kernels"]


def install():
    """The distribution's packages, where some are missing."""
    names = '"${build_packages[@]}" "${python_packages[@]}" "${bench_packages[@]}"'
    if subprocess.run(["bash", "-c", f"source {ROOT}/tools/packages.sh && need_packages {names}"]).returncode:
        sys.exit(69)


def build():
    for command in (["cmake", "--preset", "release", "-DSEINE_BENCH=ON"],
                    ["cmake", "--build", "--preset", "release", "--target", *TARGETS]):  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit("\n".join(["seine: the build failed:", *done.stdout.splitlines()[-30:]]))


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")
    return {"processor": processor, "cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0]}


def main():
    first, *rest = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(description=first, epilog="\n\n".join(rest),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose group and name contain this: selection, "
                        "reading, scaling, streaming, kernels, badge, pixels, ...")  # fmt: skip
    parser.add_argument("--repeats", type=int, help="runs of each side in turn (5; --quick: 2)")
    parser.add_argument("--picks", type=int, help="instead of each workload's")
    parser.add_argument("--threads", type=int, default=2, help="of each side (2)")
    parser.add_argument("--quick", action="store_true", help="smaller workloads; the targets are for the whole ones")
    parser.add_argument("--without-peers", action="store_true", help="the plain loops only; nothing is installed by pip")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/bench", help="of pools, peers and results")
    options = parser.parse_args()
    options.repeats = options.repeats or (2 if options.quick else 5)
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    here = machine()
    install()
    build()

    # After the packages are there.
    import measure
    import report
    import workloads

    if here["load_before"] > 0.5:
        print(f"This machine is busy (load {here['load_before']:.1f}): the ratios will be too.", file=sys.stderr)
    picks = f"{options.picks:,} picks, " if options.picks else ""
    setting = f"{picks}{options.threads} threads, {options.repeats} repeats in turn{', quick' if options.quick else ''}"
    cases = [case for case in workloads.workloads(options.quick, options.picks)
             if options.only in f"{case.group} {case.name}"]  # fmt: skip
    bench, results, kernels = measure.Bench(options, BINARIES), [], None
    if cases:
        print(f"{here['processor']}, {here['cores']} cores; {setting}; seconds are medians\n")
        print(report.heading(), flush=True)
    for case in cases:
        for result in bench.measure(case):
            results.append(result)
            print(report.line(result, options.quick), flush=True)
    if options.only in "kernels":
        kernels = bench.kernels()
        print(f"\n{report.kernel_table(kernels)}")
    if not results and not kernels:
        sys.exit("seine: no such case")

    here["load_after"] = os.getloadavg()[0]
    asked = {name: value for name, value in vars(options).items() if name != "folder"}
    report.write_json(options.folder / "bench.json", here, asked, results, kernels)
    print(f"\n{options.folder / 'bench.json'}")
    if report.draw(options.folder / "bench.png", results, f"{here['processor']}, {setting}"):
        print(options.folder / "bench.png")
    if any(result.agrees is False for result in results):
        sys.exit("seine: results do not agree")


if __name__ == "__main__":
    main()
