"""Fashion-MNIST from the distribution's package dataset-fashion-mnist, and the small network that is trained on it."""
import gzip
import os
import sys
import warnings
from pathlib import Path

# One thread per training; trainings run side by side. To be set before NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def _read_idx(name):
    path = FOLDER / name
    if not path.exists():
        sys.exit(f"seine: stopped: {path} is not there; install the package dataset-fashion-mnist")
    with gzip.open(path) as file:
        content = file.read()
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(content[3])]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def images(part):
    """Pixels in [0, 1] as float32 [N, 784], and classes [N]; part is "train" (60,000) or "t10k" (10,000)."""
    pixels = _read_idx(f"{part}-images-idx3-ubyte.gz")
    classes = _read_idx(f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
    return pixels.reshape(len(pixels), -1) / np.float32(255), classes


def train(pixels, classes, seed):
    """One hidden layer of 128, trained until it knows its images by heart (500 to 1,500 of them: seconds)."""
    network = MLPClassifier(
        hidden_layer_sizes=(128,), batch_size=128, learning_rate_init=2e-3, alpha=1e-4,
        max_iter=100, tol=0, n_iter_no_change=100, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "maximum iterations reached": that is the plan
        return network.fit(pixels, classes)


def hidden_layer(network, pixels):
    """What the last layer sees: float32 [N, 128]."""
    return np.maximum(pixels @ network.coefs_[0] + network.intercepts_[0], 0).astype(np.float32)


def probabilities(network, hidden):
    """Softmax of the last layer: float32 [N, 10]."""
    logits = (hidden @ network.coefs_[1] + network.intercepts_[1]).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
