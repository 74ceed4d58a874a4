"""What the runs of jobs/scaling.sbatch tell: a table and a picture; an error where two runs of one pool differ.

usage: scaling.py OUT
    reads OUT/runs/SERIES-RANKS-SHARDS-NUMBER.json and .wall, writes OUT/scaling.md and OUT/scaling.png
"""
import json
import statistics
import sys
from pathlib import Path


def read_runs(folder):
    for path in sorted(folder.glob("*.json")):
        series, ranks, shards, _ = path.stem.split("-")
        batch = json.loads(path.read_text())
        begin, end = map(float, path.with_suffix(".wall").read_text().split())
        yield {"series": series, "ranks": int(ranks), "shards": int(shards), "rows": batch["pool_rows"],
               "digest": batch["digest"], "job": end - begin, "read": batch["timing"]["read"],
               "select": batch["timing"]["select"]}


def disagreements(runs):
    digests = {}
    for run in runs:
        digests.setdefault(run["shards"], {}).setdefault(run["digest"], set()).add(run["ranks"])
    return [f"pool of {shards} shards: {digest} by {sorted(ranks)} ranks"
            for shards, found in digests.items() if len(found) > 1 for digest, ranks in found.items()]


def medians(runs, series):
    """ranks -> medians of that series, in order."""
    chosen = {}
    for run in runs:
        if run["series"] == series:
            chosen.setdefault(run["ranks"], []).append(run)
    return {ranks: {"rows": found[0]["rows"], "digest": found[0]["digest"],
                    **{key: statistics.median(run[key] for run in found) for key in ("job", "read", "select")}}
            for ranks, found in sorted(chosen.items())}


def efficiency(series, ranks, at):
    """1 is ideal: strong, the seconds fall with the ranks; weak, they stay."""
    first, here = (at[each]["read"] + at[each]["select"] for each in (1, ranks))
    return first / here / (ranks if series == "strong" else 1)


def table(runs):
    lines = ["| series | ranks | rows | read s | select s | whole job s | efficiency | digest |",
             "|---|--:|--:|--:|--:|--:|--:|---|"]
    for series in ("strong", "weak"):
        at = medians(runs, series)
        lines += [f"| {series} | {ranks} | {here['rows']:,} | {here['read']:.3f} | {here['select']:.3f} | "
                  f"{here['job']:.2f} | {efficiency(series, ranks, at):.2f} | `{here['digest'][:12]}` |"
                  for ranks, here in at.items()]
    lines.append("\nMedians. Efficiency is that of reading and selecting, without the start of the ranks.")
    return "\n".join(lines) + "\n"


def picture(runs, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, series in zip(axes, ("strong", "weak")):
        at = medians(runs, series)
        ranks = list(at)
        seconds = [at[each]["read"] + at[each]["select"] for each in ranks]
        axis.plot(ranks, seconds, "o-", label="read + select")
        axis.plot(ranks, [at[each]["job"] for each in ranks], "o:", color="grey", label="whole job")
        ideal = [seconds[0] / each if series == "strong" else seconds[0] for each in ranks]
        axis.plot(ranks, ideal, "--", label="ideal")
        axis.set(title=f"{series} scaling", xlabel="ranks", ylabel="seconds", xscale="log", yscale="log", xticks=ranks,
                 xticklabels=ranks)
        axis.minorticks_off()
        axis.legend()
    figure.savefig(path, dpi=150)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    runs = list(read_runs(out / "runs"))
    text = table(runs)
    (out / "scaling.md").write_text(text)
    print(text)
    if bad := disagreements(runs):
        sys.exit("DIGESTS DIFFER\n" + "\n".join(bad))
    try:
        picture(runs, out / "scaling.png")
    except ImportError:
        print("no picture: this Python has no matplotlib")
    largest = max(runs, key=lambda run: run["shards"])
    print(f"{len(runs)} runs, and all of a pool agree\ndigest {largest['digest']}")


if __name__ == "__main__":
    main()
