"""The peers, each as its users call it: peers.py NAME POOL PICKS SEED prints the seconds of the selection and the rows.

Runs in the peers' own virtual environment (bench.py makes it), one peer per process. Seconds are of the selection alone,
after a small first call that loads and compiles what is loaded and compiled lazily.
"""
import contextlib
import json
import sys
import time

import h5py
import numpy as np


def timed(select):
    start = time.perf_counter()
    rows = select()
    return time.perf_counter() - start, [int(row) for row in rows]


def column(pool, name):
    with h5py.File(pool) as file:
        return file[name][:]


def core_set(pool, picks, seed):
    """scikit-activeml's greedy k-center. Row 0 is labelled, so that it starts where seine starts."""
    from skactiveml.pool import CoreSet

    x = column(pool, "embeddings")

    def select(rows, count):
        labels = np.full(rows, np.nan)
        labels[0] = 0
        return [0, *CoreSet(random_state=seed).query(x[:rows], labels, batch_size=count - 1)]

    select(100, 3)
    return timed(lambda: select(len(x), picks))


def badge(pool, picks, seed):
    """scikit-activeml's BADGE: gradient embeddings are formed, one (N, C * D) array."""
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    x, p = column(pool, "embeddings"), column(pool, "probabilities")

    class Known(SkactivemlClassifier):
        """The network of the pool, whose answers are known."""

        def fit(self, X, y, sample_weight=None):
            return self

        def predict_proba(self, X):
            return p[: len(X)]

    def select(rows, count):
        known = Known(classes=list(range(p.shape[1])))
        return Badge(random_state=seed).query(x[:rows], np.full(rows, np.nan), known, fit_clf=False, batch_size=count)

    select(100, 3)
    return timed(lambda: select(len(x), picks))


def badge_authors(pool, picks, seed):
    """What the BADGE authors' program does for a pick, stated anew: NumPy on factored gradients in one pass over all
    rows, totals by Python's own sum (one to draw with, one that it prints), and a SciPy distribution built to draw once."""
    from scipy import stats

    hidden, p = column(pool, "embeddings"), column(pool, "probabilities")
    random = np.random.RandomState(seed)

    def select(rows, count):
        h, residuals = hidden[:rows], -p[:rows]
        residuals[np.arange(rows), residuals.argmin(axis=1)] += 1
        norms = (residuals**2).sum(axis=1) * (h**2).sum(axis=1)
        distances, chosen = np.full(rows, np.inf), [int(norms.argmax())]
        while len(chosen) < count:
            last = chosen[-1]
            squared = norms + norms[last] - 2 * (residuals @ residuals[last]) * (h @ h[last])
            distances = np.minimum(distances, np.sqrt(np.clip(squared, 0, None)).astype(float))
            distances[chosen] = 0
            odds = distances**2 / sum(distances**2)
            law = stats.rv_discrete(values=(np.arange(rows), odds))
            row = int(law.rvs(random_state=random))
            while row in chosen:
                row = int(law.rvs(random_state=random))
            chosen.append(row)
            print(len(chosen), sum(distances), file=sys.stderr)
        return chosen

    select(100, 3)
    return timed(lambda: select(len(hidden), picks))


def kmeans_plusplus(pool, picks, seed, trials=1):
    from sklearn.cluster import kmeans_plusplus

    x = column(pool, "embeddings")

    def select(rows, count):
        return kmeans_plusplus(x[:rows], count, random_state=seed, n_local_trials=trials)[1]

    select(100, 3)
    return timed(lambda: select(len(x), picks))


def kmeans_plusplus_trials(pool, picks, seed):
    """As it comes for 1,000 picks: the best of 2 + log(1,000) draws for every pick."""
    return kmeans_plusplus(pool, picks, seed, 8)


def similarities(pool):
    x = column(pool, "embeddings")
    return np.maximum(x @ x.T, 0)


def apricot(pool, picks, seed):
    """Its matrix is given and not counted."""
    from apricot import FacilityLocationSelection

    s = similarities(pool).astype(np.float64)

    def select(rows, count):
        selection = FacilityLocationSelection(count, metric="precomputed", optimizer="lazy", random_state=seed)
        return selection.fit(s if rows == len(s) else s[:rows, :rows].copy()).ranking

    select(100, 3)
    return timed(lambda: select(len(s), picks))


def submodlib(pool, picks, seed):
    """Its matrix is given and not counted; the copy of it into C++ is."""
    from submodlib import FacilityLocationFunction

    s = similarities(pool)

    def select(rows, count):
        function = FacilityLocationFunction(n=rows, mode="dense", sijs=s[:rows, :rows], separate_rep=False)
        picked = function.maximize(budget=count, optimizer="LazyGreedy", stopIfZeroGain=False,
                                   stopIfNegativeGain=False, show_progress=False)  # fmt: skip
        return [row for row, _ in picked]

    select(100, 3)
    return timed(lambda: select(len(s), picks))


def bald(pool, picks, seed):
    """batchbald_redux, the batch of the best single scores."""
    import torch
    from batchbald_redux.batchbald import get_bald_batch

    log_p = torch.from_numpy(np.log(np.maximum(column(pool, "probabilities"), 1e-38)))
    get_bald_batch(log_p[:100], 3)
    return timed(lambda: get_bald_batch(log_p, picks).indices)


def main():
    name, pool, picks, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    try:
        with contextlib.redirect_stdout(sys.stderr):  # some print while they select
            seconds, rows = globals()[name](pool, picks, seed)
    except ImportError as error:
        sys.exit(f"not installed: {error}")
    print(json.dumps({"seconds": seconds, "rows": rows}))


if __name__ == "__main__":
    main()
