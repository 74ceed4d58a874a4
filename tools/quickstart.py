"""From 500 labelled images to 1,500: a batch chosen by BADGE on two MPI ranks, beside random batches of the same size.

Started by quickstart.sh. Every number that it prints is measured in this run.
"""
import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import fashion_mnist
import h5py
import numpy as np
import quickstart_picture
from joblib import Parallel, delayed

SEINE = Path(__file__).resolve().parent.parent / "build/release/bin/seine"
LABELLED = 500
SHARDS = 4
RANKS = 2
TRAININGS = 3  # per arm, from the same seeds in every arm
RANDOM_BATCHES = 3


class Clock:
    """Seconds of each step, told as they pass."""

    def __init__(self):
        self.seconds = {}

    def step(self, name, text, work):
        print(f"seine: {text}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        result = work()
        self.seconds[name] = time.perf_counter() - start
        return result


def write_pool(folder, hidden, probabilities, classes):
    """The pool as SHARDS HDF5 files. Its ids are the numbers of the images; it carries no labels."""
    for shard, rows in enumerate(np.array_split(np.arange(len(hidden)), SHARDS)):
        with h5py.File(folder / f"pool-{shard}.h5", "w") as file:
            file["embeddings"] = hidden[rows]
            file["probabilities"] = probabilities[rows]
            file["ids"] = rows
            file["classes"] = classes[rows]  # read by `seine evaluate` only


def write_ids(path, ids):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id"])
        writer.writerows([i] for i in ids)


def seine_select(folder, out, *options):
    """One `seine select` on RANKS ranks; returns its command line."""
    select = [str(SEINE), "select", "--pool", str(folder / "pool-*.h5"), "--labelled", str(folder / "labelled.csv")]
    select += [*options, "--out", str(folder / out), "--force", "--quiet"]
    environment = dict(os.environ)
    if os.geteuid() == 0:  # Open MPI asks root to say so twice
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    launch = ["mpirun", "-n", str(RANKS), "--oversubscribe", "--bind-to", "none"]
    done = subprocess.run(launch + select, env=environment, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"seine: stopped: exit code {done.returncode} of {' '.join(launch + select)}")
    return ["mpirun", "-n", str(RANKS), "seine"] + select[1:]


def read_ids(path):
    with h5py.File(path) as file:
        return file["ids"][:]


def accuracy(pixels, classes, seed, test):
    """Percent right on the test images after one training from scratch."""
    return 100 * fashion_mnist.train(pixels, classes, seed).score(*test)


def accuracies(arms, pool, test, seed):
    """accuracy for every arm and training, [arms, TRAININGS]; as many side by side as there are cores."""
    pixels, classes = pool
    jobs = [delayed(accuracy)(pixels[rows], classes[rows], training_seed(seed, training), test)
            for rows in arms for training in range(TRAININGS)]  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    return np.reshape(Parallel(n_jobs=min(cores, len(jobs)))(jobs), (len(arms), TRAININGS))


def training_seed(seed, training):
    return 1000 * seed + training


def print_table(before, badge, random, batch, test_size):
    count = f"{LABELLED + batch:,}"
    batches = "  ".join(f"{a:.2f}" for a in random)
    print(f"\nAccuracy on {test_size:,} test images, each a mean of {TRAININGS} trainings from scratch\n")
    print(f"  {'labelled images':<40}{'accuracy':>10}")
    print(f"  {f'{LABELLED} (before)':<40}{before:>8.2f} %")
    print(f"  {f'{count}: with the batch (BADGE)':<40}{badge:>8.2f} %")
    print(f"  {f'{count}: with a random batch':<40}{random.mean():>8.2f} %   {len(random)} batches: {batches}, sd {random.std(ddof=1):.2f}")
    print(f"  {'the batch against random':<40}{badge - random.mean():>+8.2f} points")


def print_certificate(path):
    with h5py.File(path) as file:
        certificate, timing = dict(file["certificate"].attrs), dict(file["timing"].attrs)
        digest = file.attrs["digest"]
    c, t = certificate, timing
    print(f"\nCertificate of the batch: {c['objective']}")
    print(f"  kind {c['kind']}   value {c['value']:.6g}   bound {c['bound']:.6g} ({c['bound_kind']})   ratio {c['ratio']:.4f}")
    print(f"  measured over {c['rows']:,} rows; digest {digest}")
    phases = "   ".join(f"{name} {t[name]:.2f}" for name in ("read", "select", "certificate", "write"))
    print(f"\nSeconds of seine (from the batch file): {phases}")
    print(f"  {t['ranks']} ranks, {t['threads']} threads each, device {t['device']}")


def main():
    parser = argparse.ArgumentParser(prog="tools/quickstart.sh", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the labelled images, the trainings and the batches (0)")
    parser.add_argument("--batch", type=int, default=1000, help="how many images to choose (1000)")
    parser.add_argument("--out", type=Path, default=SEINE.parents[3] / "quickstart-out", help="folder of all files")
    options = parser.parse_args()
    folder, seed = options.out, options.seed
    folder.mkdir(parents=True, exist_ok=True)
    clock = Clock()
    for name in ("install", "build"):
        if f"SEINE_SECONDS_{name.upper()}" in os.environ:
            clock.seconds[name] = float(os.environ[f"SEINE_SECONDS_{name.upper()}"])

    pool, test = fashion_mnist.images("train"), fashion_mnist.images("t10k")
    pixels, classes = pool
    labelled = np.sort(np.random.default_rng(seed).choice(len(pixels), LABELLED, replace=False))

    def make_pool():
        network = fashion_mnist.train(pixels[labelled], classes[labelled], seed=training_seed(seed, 0))
        hidden = fashion_mnist.hidden_layer(network, pixels)
        probabilities = fashion_mnist.probabilities(network, hidden)
        write_pool(folder, hidden, probabilities, classes)
        write_ids(folder / "labelled.csv", labelled)
        return hidden, probabilities

    hidden, probabilities = clock.step(
        "pool", f"training on {LABELLED} labelled images; writing the pool of {len(pixels):,} in {SHARDS} files", make_pool)  # fmt: skip

    def choose():
        size = ["--batch", str(options.batch)]
        command = seine_select(folder, "batch.h5", "--strategy", "badge", *size, "--seed", str(seed))
        for i in range(1, RANDOM_BATCHES + 1):
            seine_select(folder, f"random-{i}.h5", "--strategy", "random", *size, "--seed", str(seed + i))
        return command

    command = clock.step("select", f"choosing {options.batch:,} images with {RANKS} ranks", choose)
    chosen = read_ids(folder / "batch.h5")
    random = [read_ids(folder / f"random-{i}.h5") for i in range(1, RANDOM_BATCHES + 1)]

    arms = [labelled] + [np.concatenate([labelled, ids]) for ids in [chosen, *random]]
    accuracy = clock.step("training", f"training again, {len(arms)} sets of images x {TRAININGS} trainings",
                          lambda: accuracies(arms, pool, test, seed))  # fmt: skip
    before, badge, *random_mean = accuracy.mean(axis=1)

    clock.step("picture", "drawing", lambda: quickstart_picture.draw(
        folder / "batch.png", pixels, hidden, probabilities.argmax(axis=1), classes, labelled, chosen))  # fmt: skip

    print(" ".join(command))
    print_table(before, badge, np.array(random_mean), len(chosen), len(test[0]))
    print_certificate(folder / "batch.h5")
    print("Seconds of this script: " + "   ".join(f"{name} {s:.1f}" for name, s in clock.seconds.items()))
    print(f"\nIn {folder}: pool-0.h5 to pool-{SHARDS - 1}.h5, labelled.csv, batch.h5, random-*.h5, and the picture batch.png")


if __name__ == "__main__":
    main()
