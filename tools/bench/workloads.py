"""What tools/bench.py measures: the pools, seeded and made once, and for every workload whom seine meets on it and the
ratio it has to reach."""
import functools
import shutil
import subprocess
from dataclasses import dataclass, field

import fashion_mnist
import h5py
import numpy as np

LOOP = "plain loop"


@dataclass(frozen=True)
class Target:
    """Of the median: at least this, or at most."""

    bound: float
    at_most: bool = False

    def reached(self, value):
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self):
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


@dataclass(frozen=True)
class Peer:
    """A function of peers.py. A peer that takes the same time for every pick may stop after fewer `picks`: the table says
    how many, and by what its seconds were multiplied."""

    function: str
    name: str
    target: Target = None
    picks: int = None
    differs: str = ""  # how its algorithm is another one; then its quality is reported, not required


@dataclass(frozen=True)
class Selection:
    name: str
    strategy: str
    pool: str
    picks: int
    loop: Target  # against the plain loop; None: it does not take part
    peers: tuple = ()
    share: Target = None  # percent of rows x picks that may meet
    repeats: int = None  # at most so many; None: as many as asked for
    group: str = field(default="selection", init=False)


@dataclass(frozen=True)
class Reading:
    """Two ranks read a contiguous float32 pool that is in the page cache; two processes read the same bytes."""

    name: str
    pool: str
    target: Target
    group: str = field(default="reading", init=False)


@dataclass(frozen=True)
class WeakScaling:
    """One rank on half a pool, two ranks on the whole one, a thread each."""

    name: str
    strategy: str
    half: str
    pool: str
    picks: int
    target: Target
    group: str = field(default="scaling", init=False)


@dataclass(frozen=True)
class Streaming:
    """A pool that is four times as large as the memory given, against the same run with room for all of it."""

    name: str
    strategy: str
    pool: str
    picks: int
    target: Target
    group: str = field(default="streaming", init=False)


def workloads(quick, picks=None):
    """The targets are those of the whole sizes; `quick` is for a first look."""
    at_least, at_most = Target, functools.partial(Target, at_most=True)
    many = picks or (100 if quick else 1000)
    represent = picks or (50 if quick else 500)
    clustered = 100_000 if quick else 1_000_000
    stored = 5_000 if quick else 20_000
    scored = 1_000_000 if quick else 10_000_000
    passes = 100_000 if quick else 1_000_000
    few = min(many, 100)
    cluster_pool, half_pool = f"clustered-{clustered}-256", f"clustered-{clustered // 2}-256"
    return [
        Selection("k_center, pixels 60,000 x 784", "k_center", "pixels", many, at_least(20), share=at_most(13),
                  peers=(Peer("core_set", "scikit-activeml CoreSet", picks=few if quick else None),)),
        Selection("k_center, hidden layer 60,000 x 128", "k_center", "hidden", many, at_least(10), share=at_most(6)),
        Selection(f"k_center, {clustered:,} x 256 in 1,000 clusters", "k_center", cluster_pool, many, at_least(12), repeats=3),
        Selection("k_means_pp, hidden layer 60,000 x 128", "k_means_pp", "hidden", many, at_least(10), share=at_most(17),
                  peers=(Peer("kmeans_plusplus", "scikit-learn, 1 trial"),
                         Peer("kmeans_plusplus_trials", "scikit-learn, 8 trials", picks=few, differs="the best of several draws"))),
        Selection("badge, hidden layer 60,000 x (128, 10)", "badge", "hidden", many, at_least(12), share=at_most(17),
                  peers=(Peer("badge_authors", "authors' algorithm, NumPy", at_least(250)),
                         Peer("badge", "scikit-activeml Badge", picks=min(many, 20 if quick else 50),
                              differs="the origin counts as picked"))),
        Selection(f"facility_location, hidden {stored:,} x 128", "facility_location", f"unit-{stored}", represent, at_least(2.5),
                  peers=(Peer("apricot", "apricot, matrix given", at_least(20)),
                         Peer("submodlib", "submodlib, matrix given"))),
        Selection(f"entropy, {scored:,} x 10", "entropy", f"probabilities-{scored}-10", many, at_least(4)),
        Selection(f"bald, {passes:,} x 20 x 10", "bald", f"passes-{passes}-20-10", many, at_least(3)),
        Selection(f"bald, {passes // 10:,} x 20 x 10", "bald", f"passes-{passes // 10}-20-10", many, None,
                  peers=(Peer("bald", "batchbald_redux"),)),
        Reading(f"read {clustered:,} x 256 on 2 ranks", cluster_pool, at_least(70)),
        WeakScaling(f"k_center, {clustered // 2:,} x 256 for each rank", "k_center", half_pool, cluster_pool, many, at_least(90)),
        Streaming(f"k_center, {clustered:,} x 256, memory for a quarter", "k_center", cluster_pool, many, at_most(3)),
    ]  # fmt: skip


# --- Pools ---


@functools.cache
def _network():
    """Trained on 500 images, as in quickstart."""
    pixels, classes = fashion_mnist.images("train")
    labelled = np.sort(np.random.default_rng(0).choice(len(pixels), 500, replace=False))
    network = fashion_mnist.train(pixels[labelled], classes[labelled], seed=0)
    return network, fashion_mnist.hidden_layer(network, pixels)


def _columns(kind, rows):
    if kind == "pixels":
        return {"embeddings": fashion_mnist.images("train")[0]}
    network, hidden = _network()
    if kind == "hidden":
        return {"embeddings": hidden, "probabilities": fashion_mnist.probabilities(network, hidden)}
    lengths = np.linalg.norm(hidden[:rows], axis=1, keepdims=True)
    return {"embeddings": hidden[:rows] / np.where(lengths > 0, lengths, 1)}


def pool_file(folder, name, seine):
    """The file of the pool of this name, KIND[-ROWS[-SHAPE...]]; made where it is not there yet."""
    path = folder / f"{name}.h5"
    if path.exists():
        return path
    kind, *shape = name.split("-")
    shape = [int(size) for size in shape]
    part = folder / "part"
    if kind in ("clustered", "probabilities", "passes"):
        options = {
            "clustered": lambda dim: ["--dim", dim, "--clusters", 1000],
            "probabilities": lambda classes: ["--dim", 1, "--classes", classes],
            "passes": lambda passes, classes: ["--dim", 1, "--passes", passes, "--classes", classes],
        }[kind](*shape[1:])
        command = [seine, "synth", "--rows", shape[0], *options, "--ids", "none", "--seed", 1, "--quiet", "--out", part]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        (part / "part-00000.h5").rename(path)
        shutil.rmtree(part)
    else:
        with h5py.File(part, "w") as file:
            for column, values in _columns(kind, *(shape or [None])).items():
                file[column] = values
        part.rename(path)
    return path
