"""The tables, the JSON and the picture of tools/bench.py."""
import json
import statistics

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from workloads import LOOP  # noqa: E402

INK, OURS, PEER, MARK = "#1f2328", "#0b5fa5", "#8fb8da", "#cf222e"
COLUMNS = (48, 38, 9, 9, 9, 9, 9, 8, 8)  # widths


def _seconds(values):
    return f"{statistics.median(values):.3f}" if values else "-"


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _values(result):
    if not result.values:
        return ["-"] * 3
    return [_number(value) for value in (min(result.values), statistics.median(result.values), max(result.values))]


def verdict(result, quick):
    """Whether the median reaches the target, which is that of the whole sizes."""
    if not result.target or not result.values or quick:
        return "-"
    return "yes" if result.target.reached(statistics.median(result.values)) else "NO"


def _cells(cells):
    aligned = zip("<<>>>>>>>", cells, COLUMNS)
    return "".join(f"{cell:{side}{width}}" for side, cell, width in aligned) + "   " + cells[-1]


def heading():
    return _cells(["workload", "against", "its s", "seine s", "min", "median", "max", "target", "reached", "agreement"])


def line(result, quick):
    agreement = {True: "yes", False: "NO", None: ""}[result.agrees]
    agreement = ", ".join(word for word in (agreement, result.note) if word) or "-"
    unit = "" if result.unit == "x" else f" [{result.unit}]"
    target = str(result.target) if result.target else "-"
    seconds = _seconds(result.theirs), _seconds(result.ours)
    judgement = verdict(result, quick), result.missing or agreement
    return _cells([result.workload, result.against + unit, *seconds, *_values(result), target, *judgement])


def kernel_table(kernels):
    """The machine's bounds, and one line per micro-benchmark: which bound applies and how close it comes."""
    context = kernels["context"]
    lines = []
    for threads, which in ((1, "_1"), (int(context["threads"]), "")):
        fma, gemm, read, copy = (float(context[name + which]) for name in ("fma_Gflop/s", "gemm_Gflop/s", "read_GB/s", "copy_GB/s"))
        lines.append(f"{threads} thread{'s' if threads > 1 else ''}: arithmetic {fma:.0f} Gflop/s, GEMM {gemm:.0f} Gflop/s, "
                     f"reading {read:.1f} GB/s, copying {copy:.1f} GB/s")  # fmt: skip
    lines += ["", f"{'kernel':<44}{'us':>12}{'GB/s':>9}{'Gflop/s':>9}{'of GEMM':>9}{'share':>8}   of"]
    for run in kernels["benchmarks"]:
        rates = [f"{run[name]:.1f}" if name in run else "-" for name in ("GB/s", "Gflop/s")]
        of_gemm = f"{100 * run['of_gemm']:.0f} %" if "of_gemm" in run else "-"
        microseconds = run["real_time"] * {"ns": 1e-3, "us": 1, "ms": 1e3}[run["time_unit"]]
        lines.append(f"{run['name'].removesuffix('/real_time'):<44}{microseconds:>12.1f}{rates[0]:>9}{rates[1]:>9}{of_gemm:>9}"
                     f"{100 * run['share']:>6.0f} %   {run['label']}")  # fmt: skip
    return "\n".join(lines)


def write_json(path, machine, options, results, kernels):
    content = {"machine": machine, "options": options, "results": [result.as_json() for result in results]}
    if kernels:
        content["kernels"] = kernels
    path.write_text(json.dumps(content, indent=2) + "\n")


def draw(path, results, subtitle):
    """Ratios as bars with whiskers from the smallest to the largest, and the targets as marks."""
    shown = [result for result in results if result.values and result.unit == "x"]
    if not shown:
        return False
    figure, axes = plt.subplots(figsize=(9.5, 1.5 + 0.42 * len(shown) + 0.25 * len({r.workload for r in shown})))
    at, workload, heights = 0.0, None, []
    for result in shown:
        if result.workload != workload:  # a little room above each workload, with its name
            workload, at = result.workload, at + 0.75
            axes.text(0, at - 0.62, workload, transform=axes.get_yaxis_transform(), ha="left", va="center", size=9.5,
                      weight="bold", color=INK, bbox=dict(facecolor="white", edgecolor="none", pad=1))  # fmt: skip
        middle = statistics.median(result.values)
        whiskers = [[middle - min(result.values)], [max(result.values) - middle]]
        axes.barh(at, middle - 1, left=1, height=0.62, color=OURS if result.against == LOOP else PEER, xerr=whiskers,
                  error_kw=dict(ecolor=INK, elinewidth=1.1, capsize=3))  # fmt: skip
        if result.target:
            axes.plot([result.target.bound] * 2, [at - 0.4, at + 0.4], color=MARK, linewidth=2.4, solid_capstyle="butt")
        end = max(1, *result.values)
        if result.target and end < result.target.bound < 1.7 * end:  # the number would be on the mark
            end = result.target.bound
        axes.text(1.12 * end, at, _number(middle), va="center", size=9, color=INK)
        heights.append((at, result.against))
        at += 1.0
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    smallest, largest = (pick(v for r in shown for v in r.values) for pick in (min, max))
    axes.set_xlim(min(0.8, smallest / 1.3), largest * 2)
    axes.set_ylim(at - 0.3, -0.3)
    axes.set_yticks([at for at, _ in heights], [name for _, name in heights], size=9)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("how many times faster seine selects (median; whiskers: smallest and largest; red: target)", size=9)
    axes.set_title(subtitle, size=10, loc="left", color=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", which="major", color="#d0d7de", linewidth=0.7)
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=150, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return True
