"""Whether two batches are equally good: exact methods pick the same rows, draws leave the same potential, facility
location reaches the same objective, scores are the same scores. Computed here, in float64 where it matters, by neither
side's code."""
import h5py
import numpy as np

SAMPLE = 8192  # rows that a potential is measured over


def _column(pool, name, rows=slice(None)):
    with h5py.File(pool) as file:
        if isinstance(rows, slice):
            return file[name][rows]
        order = np.argsort(rows)  # h5py wants them ascending
        values = file[name][np.asarray(rows)[order]]
        return values[np.argsort(order)]


def _distances2(x, y):
    x, y = x.astype(float), y.astype(float)
    return np.maximum((x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T, 0)


def _radius(pool, rows):
    x = _column(pool, "embeddings")
    return max(_distances2(x[at : at + 4096], x[rows]).min(axis=1).max() for at in range(0, len(x), 4096)) ** 0.5


def _potential(pool, rows):
    x = _column(pool, "embeddings")
    sample = np.random.default_rng(0).choice(len(x), SAMPLE, replace=False)
    return _distances2(x[sample], x[rows]).min(axis=1).mean()


def _gradient_potential(pool, rows):
    hidden, residuals = _column(pool, "embeddings").astype(float), -_column(pool, "probabilities").astype(float)
    residuals[np.arange(len(residuals)), residuals.argmin(axis=1)] += 1
    norms = (residuals**2).sum(axis=1) * (hidden**2).sum(axis=1)
    sample = np.random.default_rng(0).choice(len(hidden), SAMPLE, replace=False)
    product = (residuals[sample] @ residuals[rows].T) * (hidden[sample] @ hidden[rows].T)
    return np.maximum(norms[sample, None] + norms[rows] - 2 * product, 0).min(axis=1).mean()


def _coverage(pool, rows):
    x = _column(pool, "embeddings").astype(float)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    return sum(np.maximum(x[at : at + 4096] @ x[rows].T, 0).max(axis=1).sum() for at in range(0, len(x), 4096))


def _entropy(p):
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)


def _scores(pool, rows, strategy):
    p = _column(pool, "probabilities", rows).astype(float)
    return np.sort(_entropy(p) if strategy == "entropy" else _entropy(p.mean(axis=1)) - _entropy(p).mean(axis=1))


MEASURES = {  # strategy: (name of the measure, the measure, relative difference allowed)
    "k_center": ("radius", _radius, 1e-4),
    "k_means_pp": ("potential", _potential, 0.1),
    "badge": ("potential", _gradient_potential, 0.1),  # for a thousand picks
    "facility_location": ("objective", _coverage, 1e-4),
}


def agreement(strategy, pool, ours, theirs, differs=""):
    """(they agree, in a few words). `theirs` may be shorter: it is compared with as many of ours. Where the algorithms
    differ, only the words."""
    ours = np.asarray(ours[: len(theirs)])
    theirs = np.asarray(theirs)
    if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs) or len(ours) != len(theirs):
        return False, "a row twice, or too few"
    if np.array_equal(ours, theirs):
        return True, "the same picks"
    if strategy in ("entropy", "bald"):
        a, b = _scores(pool, ours, strategy), _scores(pool, theirs, strategy)
        return bool(np.allclose(a, b, rtol=1e-5, atol=1e-7)), f"the same scores, {len(set(ours) & set(theirs))} of {len(ours)} rows"
    name, measure, allowed = MEASURES[strategy]
    drawn = allowed > 0.01
    if drawn:  # the fewer the picks, the more a draw varies
        allowed *= max(1, 1000 / len(ours)) ** 0.5
    ratio = measure(pool, ours) / measure(pool, theirs)
    words = f"{name} {ratio:.3f} of its" if drawn else f"{name} within {abs(ratio - 1):.0e}"
    if not drawn and abs(ratio - 1) < 1e-9:
        words = f"the same {name}"
    if differs:
        return None, f"{words}: {differs}"
    return bool(abs(ratio - 1) < allowed), words
