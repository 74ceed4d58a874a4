"""Runs seine, the plain loops and the peers, in turn, and turns their seconds into results."""
import functools
import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import asdict, dataclass, field
from pathlib import Path

import agreement
import h5py
import numpy as np
from workloads import LOOP, Reading, Selection, Streaming, Target, WeakScaling, pool_file

HERE = Path(__file__).resolve().parent
PATIENCE = 20.0  # seconds; a peer that takes longer runs once
NOT_SUPPORTED = 71  # what seine says where a pool does not fit its memory


@dataclass
class Result:
    """One line of the table. `values` are what the target is about: how many times faster, or percent."""

    workload: str
    against: str
    target: Target = None
    theirs: list = field(default_factory=list)  # seconds
    ours: list = field(default_factory=list)
    values: list = field(default_factory=list)
    unit: str = "x"
    agrees: bool = None
    note: str = ""
    missing: str = ""  # why there is nothing to report
    load: float = 0  # of the machine, when it was done

    def as_json(self):
        return {**asdict(self), "target": str(self.target) if self.target else None}


@dataclass
class Run:
    seconds: float  # of the selection
    rows: np.ndarray
    read: float = 0
    share: float = None  # percent of rows x picks that met
    digest: str = ""


class Missing(Exception):
    """Why something could not be run."""


class Bench:
    def __init__(self, options, binaries):
        self.options, self.binaries = options, binaries
        # Threads that wait go to sleep soon: on a busy machine they would keep their partner from the core.
        self.environment = dict(os.environ, GOMP_SPINCOUNT="1000")
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            self.environment[f"{name}_NUM_THREADS"] = str(options.threads)
        if os.geteuid() == 0:  # Open MPI asks root to say so twice
            self.environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

    def run(self, *command):
        return subprocess.run([str(word) for word in command], env=self.environment, capture_output=True, text=True)

    def pool(self, name):
        return pool_file(self.options.folder, name, self.binaries / "seine")

    def seine(self, strategy, pool, picks, seed, *more, ranks=None, threads=None):
        out = self.options.folder / "seine.h5"
        launcher = ["mpirun", "-n", ranks, "--bind-to", "none"] if ranks else []
        done = self.run(*launcher, self.binaries / "seine", "select", "--pool", pool, "--strategy", strategy, "--batch", picks,
                        "--threads", threads or self.options.threads, "--seed", seed, "--device", "cpu", "--certificate", "off",
                        "--progress", "never", "--out", out, "--force", *more)  # fmt: skip
        if done.returncode == NOT_SUPPORTED:
            raise Missing(f"not supported: seine ends with {NOT_SUPPORTED}")
        if done.returncode:
            sys.exit(f"seine: {strategy} on {pool} ended with {done.returncode}:\n{done.stderr}")
        with h5py.File(out) as file:
            timing = dict(file["timing"].attrs)
            rows = file["rows"][:]
        digest = re.search(r"digest=(\w+)", done.stdout)[1]
        return Run(float(timing["select"]), rows, float(timing["read"]), 100 * float(timing["share"]), digest)

    def loop(self, strategy, **words):
        done = self.run(self.binaries / "seine_bench_baseline", strategy, *(f"{key}={value}" for key, value in words.items()))
        if done.returncode:
            sys.exit(f"seine: the plain loop of {strategy} ended with {done.returncode}:\n{done.stderr}")
        return float(done.stdout)

    def select_by_loop(self, strategy, pool, picks, seed):
        words = dict(picks=picks, threads=self.options.threads, seed=seed, out=self.options.folder / "loop.txt")
        with h5py.File(pool) as file:
            words["rows"] = len(file["embeddings"])
            words["dim"] = file["embeddings"].shape[1]
            for name in ("embeddings", "probabilities"):
                if name in file:
                    words[name] = f"{pool}:{file[name].id.get_offset()}"
            if "probabilities" in file:
                words["passes"], words["classes"] = (1, *file["probabilities"].shape[1:])[-2:]
        seconds = self.loop(strategy, **words)
        return Run(seconds, np.loadtxt(words["out"], dtype=np.int64, ndmin=1))

    def select_by_peer(self, peer, pool, picks, seed):
        python = peers_python(self.options.folder, with_torch=peer.function == "bald")
        done = self.run(python, HERE / "peers.py", peer.function, pool, picks, seed)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise Missing(lines[-1][:120] if lines else f"it ended with {done.returncode}")
        answer = json.loads(done.stdout)
        return Run(answer["seconds"], np.array(answer["rows"], dtype=np.int64))

    def measure(self, workload):
        """Results of one workload. A group more is a class in workloads.py and a method here."""
        by_type = {Selection: self.selection, Reading: self.reading, WeakScaling: self.weak_scaling, Streaming: self.streaming}
        try:
            results = by_type[type(workload)](workload)
        except Missing as reason:  # seine could not run it
            results = [Result(workload.name, "-", getattr(workload, "target", None), missing=str(reason))]
        for result in results:
            result.load = os.getloadavg()[0]
        return results

    def selection(self, workload):
        pool = self.pool(workload.pool)
        repeats = min(self.options.repeats, workload.repeats or self.options.repeats)
        results = {}
        if workload.loop:
            results[LOOP] = Result(workload.name, LOOP, workload.loop)
        peers = {} if self.options.without_peers else {peer.function: peer for peer in workload.peers}
        for key, peer in peers.items():
            results[key] = Result(workload.name, peer.name, peer.target)
        share = Result(workload.name, "rows x picks that met", workload.share, unit="%")

        for repeat in range(repeats):
            ours = self.seine(workload.strategy, pool, workload.picks, repeat)
            if ours.share is not None:
                share.values.append(ours.share)
            for key, result in results.items():
                result.ours.append(ours.seconds)
                if result.missing or (key != LOOP and result.theirs and result.theirs[0] > PATIENCE):
                    continue
                try:
                    if key == LOOP:
                        theirs, times = self.select_by_loop(workload.strategy, pool, workload.picks, repeat), 1
                    else:
                        picks = peers[key].picks or workload.picks
                        theirs, times = self.select_by_peer(peers[key], pool, picks, repeat), workload.picks / picks
                        if times > 1:
                            result.against = f"{peers[key].name}, {picks} picks x {times:g}"
                except Missing as reason:
                    result.missing = str(reason)
                    continue
                result.theirs.append(theirs.seconds * times)
                differs = peers[key].differs if key in peers else ""
                agrees, note = agreement.agreement(workload.strategy, pool, ours.rows, theirs.rows, differs)
                if result.agrees is not False:  # the worst is what is reported
                    result.agrees, result.note = agrees, note
        for result in results.values():
            if len(result.theirs) == len(result.ours):
                result.values = [theirs / ours for theirs, ours in zip(result.theirs, result.ours)]
            elif result.theirs:  # one run of a slow peer against every run of seine
                result.values = [result.theirs[0] / ours for ours in result.ours]
        return [*results.values(), *([share] if workload.share and share.values else [])]

    def reading(self, workload):
        pool = self.pool(workload.pool)
        with h5py.File(pool) as file:
            embeddings = file["embeddings"]
            place, size = f"{pool}:{embeddings.id.get_offset()}", embeddings.size * 4
        result = Result(workload.name, "plain read, 2 processes", workload.target, unit="%")
        for repeat in range(-1, self.options.repeats):  # the first brings the file into the page cache
            theirs = self.loop("read", embeddings=place, bytes=size, processes=2)
            if repeat < 0:
                continue
            result.theirs.append(theirs)
            result.ours.append(self.seine("k_center", pool, 1, 0, ranks=2, threads=1).read)
            result.values.append(100 * result.theirs[-1] / result.ours[-1])
        result.note = f"{size / np.median(result.ours) / 1e9:.2f} of {size / np.median(result.theirs) / 1e9:.2f} GB/s"
        return [result]

    def weak_scaling(self, workload):
        half, pool = self.pool(workload.half), self.pool(workload.pool)
        result = Result(workload.name, "1 rank, half the rows", workload.target, unit="%")
        for _ in range(min(self.options.repeats, 3)):
            result.theirs.append(self.seine(workload.strategy, half, workload.picks, 0, ranks=1, threads=1).seconds)
            result.ours.append(self.seine(workload.strategy, pool, workload.picks, 0, ranks=2, threads=1).seconds)
            result.values.append(100 * result.theirs[-1] / result.ours[-1])
        return [result]

    def streaming(self, workload):
        """Seconds are of reading and selecting, since a streamed pool is read while rows are selected."""
        pool = self.pool(workload.pool)
        gib = pool.stat().st_size / 4 / 2**30
        result = Result(workload.name, "all in memory", workload.target, unit="times")
        for _ in range(min(self.options.repeats, 3)):
            streamed = self.seine(workload.strategy, pool, workload.picks, 0, "--memory", f"{gib:.4f}")
            whole = self.seine(workload.strategy, pool, workload.picks, 0)
            result.theirs.append(whole.read + whole.seconds)
            result.ours.append(streamed.read + streamed.seconds)
            result.values.append(result.ours[-1] / result.theirs[-1])
            result.agrees = result.agrees is not False and whole.digest == streamed.digest
            result.note = "the same digest" if result.agrees else "another digest"
        return [result]

    def kernels(self):
        """What seine_bench_kernels writes, of every kernel the fastest of a few runs."""
        out = self.options.folder / "kernels.json"
        seconds, runs = (0.05, 1) if self.options.quick else (0.2, 3)
        done = self.run(self.binaries / "seine_bench_kernels", self.options.threads, f"--benchmark_min_time={seconds}",
                        f"--benchmark_repetitions={runs}", f"--benchmark_out={out}", "--benchmark_out_format=json")  # fmt: skip
        if done.returncode:
            sys.exit(f"seine: seine_bench_kernels ended with {done.returncode}:\n{done.stderr}")
        content = json.loads(out.read_text())
        fastest = {}
        for run in content["benchmarks"]:
            if run["run_type"] == "iteration":
                fastest[run["name"]] = min(run, fastest.get(run["name"], run), key=lambda one: one["real_time"])
        return {"context": content["context"], "benchmarks": list(fastest.values())}


@functools.cache
def peers_python(folder, with_torch):
    """Python of a virtual environment with the peers, made on the first call. PyTorch comes from the distribution."""
    name = "requirements-torch.txt" if with_torch else "requirements.txt"
    requirements = HERE / name
    place = folder / name.replace(".txt", "").replace("requirements", "peers")
    python, installed = place / "bin/python", place / "installed"
    if with_torch and subprocess.run(["/usr/bin/python3", "-c", "import torch"], capture_output=True).returncode:
        raise Missing("it needs PyTorch: apt-get install python3-torch")
    if not installed.exists() or installed.read_text() != requirements.read_text():
        print(f"seine: installing the peers of {name}", file=sys.stderr)
        venv.create(place, clear=True, with_pip=True, system_site_packages=with_torch)
        command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements]
        done = subprocess.run([*command, *(["--no-deps"] if with_torch else [])], capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"pip cannot install {name}: {done.stderr.strip().splitlines()[-1][:100]}")
        installed.write_text(requirements.read_text())
    return python
