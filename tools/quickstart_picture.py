"""One picture of a batch: the pool in two dimensions with the batch on it, and the first 100 chosen images."""
import matplotlib

matplotlib.use("Agg")

import fashion_mnist  # noqa: E402
import matplotlib.patheffects as effects  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

INK, RIGHT, WRONG = "#1f2328", "#2da44e", "#cf222e"
SIDE = 10  # of the contact sheet
COLOURS = plt.get_cmap("tab10")


def _plane(hidden):
    """The first two principal components, and the share of variance that they hold."""
    centred = hidden - hidden.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, [-1, -2]], values[-2:].sum() / values.sum()


def _names(axes, points, predicted):
    """The name of every predicted class at its middle, moved up or down where two would overlap."""
    middles = {c: np.median(points[predicted == c], axis=0) for c in np.unique(predicted)}
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide, high = 0.13 * (right - left), 0.032 * (top - bottom)
    for _ in range(100):
        for a in middles.values():
            for b in middles.values():
                gap = abs(a[1] - b[1])
                if a is not b and a[1] >= b[1] and gap < high and abs(a[0] - b[0]) < wide:
                    a[1] += (high - gap) / 2 + 1e-6
                    b[1] -= (high - gap) / 2 + 1e-6
    for c, (x, y) in middles.items():
        x, y = np.clip(x, left + wide / 2, right - wide / 2), np.clip(y, bottom + high, top - high)
        axes.text(x, y, fashion_mnist.CLASSES[c], color=COLOURS(c), weight="bold", size=11, ha="center", va="center",
                  path_effects=[effects.withStroke(linewidth=3.5, foreground="white")])  # fmt: skip


def _draw_plane(axes, hidden, predicted, labelled, chosen):
    points, share = _plane(hidden)
    order = np.random.default_rng(0).permutation(len(points))  # no class on top
    axes.scatter(*points[order].T, s=4, c=COLOURS(predicted[order]), alpha=0.22, linewidths=0, rasterized=True)
    axes.scatter(*points[chosen].T, s=15, c=COLOURS(predicted[chosen]), edgecolors=INK, linewidths=0.7)
    axes.scatter(*points[labelled].T, s=9, c="white", marker="s", edgecolors=INK, linewidths=0.6, alpha=0.85)
    low, high = np.percentile(points, [0.02, 99.98], axis=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
    _names(axes, points, predicted)
    axes.set_xlabel(f"principal components 1 and 2 of the hidden layer ({100 * share:.0f} % of its variance)")
    dot = dict(color="none", marker="o", markeredgecolor=INK, markerfacecolor="#9aa0a6")
    axes.legend(handles=[
        Line2D([], [], **{**dot, "markeredgecolor": "none"}, markersize=4, label=f"pool, {len(points):,} images, by predicted class"),
        Line2D([], [], **{**dot, "marker": "s", "markerfacecolor": "white"}, markersize=5, label=f"labelled before, {len(labelled):,}"),
        Line2D([], [], **dot, markersize=5.5, label=f"the batch, {len(chosen):,}"),
    ], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, frameon=False, handletextpad=0.2)  # fmt: skip


def _draw_sheet(figure, area, pixels, predicted, classes, chosen):
    cells = area.subgridspec(SIDE, SIDE, wspace=0.05, hspace=0.6)
    for i, row in enumerate(chosen[: SIDE * SIDE]):
        axes = figure.add_subplot(cells[divmod(i, SIDE)])
        axes.imshow(pixels[row].reshape(28, 28), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        is_right = predicted[row] == classes[row]
        name, truth = fashion_mnist.CLASSES[predicted[row]], fashion_mnist.CLASSES[classes[row]]
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(name if is_right else f"{name}\n{truth}", size=6.2, labelpad=1.5, linespacing=0.95,
                        color=RIGHT if is_right else WRONG)  # fmt: skip
        for spine in axes.spines.values():
            spine.set(color=RIGHT if is_right else WRONG, linewidth=0.9)


def draw(path, pixels, hidden, predicted, classes, labelled, chosen):
    """Writes the picture to `path`; the last four arguments are by, or are, rows of `pixels`."""
    plt.rcParams.update({"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#d0d7de"})
    figure = plt.figure(figsize=(16, 8.6), dpi=110, facecolor="white")
    left, right = figure.add_gridspec(1, 2, left=0.02, right=0.985, top=0.88, bottom=0.045, wspace=0.04)
    _draw_plane(figure.add_subplot(left), hidden, predicted, labelled, chosen)
    _draw_sheet(figure, right, pixels, predicted, classes, chosen)
    wrong = np.mean(predicted[chosen] != classes[chosen])
    wrong_pool = np.mean(predicted != classes)
    figure.text(0.02, 0.955, f"A batch of {len(chosen):,} out of {len(hidden):,}, chosen by BADGE", size=15, weight="bold")
    shown = min(len(chosen), SIDE * SIDE)
    figure.text(0.51, 0.955, f"The first {shown} picks", size=15, weight="bold")
    figure.text(0.51, 0.918, "Green: predicted correctly. Red: wrongly, the true class below.   "
                f"Wrong: {100 * wrong:.0f} % of the batch, {100 * wrong_pool:.0f} % of the pool.")  # fmt: skip
    figure.savefig(path)
    plt.close(figure)
