#!/usr/bin/env python3
"""Damages HDF5 pools, in bytes and in structure, and runs seine on each of them.

A run must end with exit code 0, 64, 65, 66 or 74, with one line that says why where the code is not 0, within the time
limit and without large allocations. Input K of seed S is the same whenever and however many are run:

    tools/fuzz_pools.py --seine build/release/bin/seine --count 1000
    tools/fuzz_pools.py --seine build/release/bin/seine --seed 7 --first 4711 --count 1 --keep /tmp/found

--keep keeps the inputs that failed, each with the command and what it said.
"""
import argparse
import collections
import json
import multiprocessing
import os
import random
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import warnings

try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(77)

ALLOWED = (0, 64, 65, 66, 74)
ADDRESS_SPACE = 2 << 30  # of seine, MPI and HDF5 included, and of this script
LARGEST_MEMORY_KIB = 200 << 10  # resident: an ordinary run takes 30 MiB
LARGEST_FILE = 8 << 20
TIME_LIMIT = 60  # seconds; a busy machine is no fault
ROWS = 24

warnings.simplefilter("ignore")  # of odd values that do not fit

# --- sound pools ---


def probabilities(random_state, *shape):
    p = random_state.random(shape) + 0.05
    return p / p.sum(axis=-1, keepdims=True)


def write_plain(file, state):
    file["embeddings"] = state.random((ROWS, 6)).astype("f4")
    file["probabilities"] = probabilities(state, ROWS, 3).astype("f4")
    file["ids"] = np.arange(ROWS, dtype="i8") * 7 - 3
    file["labels"] = np.where(np.arange(ROWS) % 5 == 0, 1, -1)
    file["classes"] = np.arange(ROWS, dtype="u1") % 3
    file["costs"] = state.random(ROWS) + 0.5
    file["groups"] = np.arange(ROWS, dtype="i2") % 4


def words():
    return [f"größe/{row}" if row % 3 else f"img-{row:04}" for row in range(ROWS)]


def write_words(file, state):
    file["embeddings"] = state.random((ROWS, 4)).astype("f2")
    file["probabilities"] = probabilities(state, ROWS, 2)
    file.create_dataset("ids", data=words(), dtype=h5py.string_dtype())


def write_chunked_words(file, state):
    options = dict(chunks=(7, 4), compression="gzip", shuffle=True)
    file.create_dataset("embeddings", data=state.random((ROWS, 4)).astype("f4"), **options)
    file.create_dataset("ids", data=words(), dtype=h5py.string_dtype(), chunks=(5,), compression="gzip")


def write_fixed_words(file, state):
    file.create_dataset("embeddings", data=state.random((ROWS, 5)), chunks=(8, 2), fletcher32=True, compression="lzf")
    file["logits"] = state.standard_normal((ROWS, 4)).astype(">f4")
    file["ids"] = np.array([word.encode() for word in words()], dtype="S16")


def write_passes(file, state):
    file.create_dataset("probabilities", data=probabilities(state, ROWS, 3, 4).astype("f2"), chunks=(4, 3, 4), maxshape=(None, 3, 4), compression="gzip")
    file.create_dataset("embeddings", data=state.random((ROWS, 4)).astype("f4"), chunks=(4, 4), scaleoffset=3)


def write_virtual(file, state):
    layout = h5py.VirtualLayout((ROWS, 6), "f4")
    layout[: ROWS // 2] = h5py.VirtualSource(".", "parts/a", (ROWS // 2, 6))
    layout[ROWS // 2 :] = h5py.VirtualSource(".", "parts/b", (ROWS - ROWS // 2, 6))
    file["parts/a"] = state.random((ROWS // 2, 6)).astype("f4")
    file["parts/b"] = state.random((ROWS - ROWS // 2, 6)).astype("f4")
    file.create_virtual_dataset("embeddings", layout)
    file["real"] = np.arange(ROWS)
    file["ids"] = h5py.SoftLink("/real")


SOUND = [
    ("plain", write_plain, "earliest"),
    ("plain_latest", write_plain, "latest"),
    ("words", write_words, "earliest"),
    ("words_latest", write_words, "latest"),
    ("chunked_words", write_chunked_words, "earliest"),
    ("chunked_words_latest", write_chunked_words, "latest"),
    ("fixed_words", write_fixed_words, "earliest"),
    ("passes", write_passes, "earliest"),
    ("passes_latest", write_passes, "latest"),
    ("virtual", write_virtual, "earliest"),
]


def write_sound(path, which):
    name, write, version = SOUND[which]
    with h5py.File(path, "w", libver=(version, "latest")) as file:
        write(file, np.random.default_rng(which))


# --- damage to bytes ---

SIGNATURES = [b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"FHIB", b"FHDB", b"BTHD", b"BTLF",
              b"FAHD", b"FADB", b"EAHD", b"\x89HDF"]


def some_place(draw, content):
    """Anywhere, but mostly near a structure of the format."""
    if draw.random() < 0.3:
        return draw.randrange(len(content))
    places = [at for signature in SIGNATURES for at in find_all(content, signature)]
    return min(draw.choice(places) + draw.randrange(96), len(content) - 1) if places else draw.randrange(len(content))


def find_all(content, word):
    at = content.find(word)
    while at >= 0:
        yield at
        at = content.find(word, at + 1)


def flip_bits(draw, content):
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        content[some_place(draw, content)] ^= 1 << draw.randrange(8)


def random_bytes(draw, content):
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        content[some_place(draw, content)] = draw.randrange(256)


def odd_number(draw, content):
    width = draw.choice((1, 2, 4, 8))
    value = draw.choice((0, 1, 2**7, 2**15, 2**31, 2**31 - 1, 2**32, 2**40, 2**62, 2**63, 2**64 - 1, len(content), draw.randrange(2**16)))
    at = some_place(draw, content)
    content[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")[: len(content) - at]


def truncate(draw, content):
    del content[draw.randrange(len(content)) :]


def lengthen(draw, content):
    content += draw.randbytes(draw.choice((1, 8, 512, 4096)))


def blank(draw, content):
    at = some_place(draw, content)
    size = min(draw.choice((4, 8, 64, 512, 4096)), len(content) - at)
    content[at : at + size] = bytes([draw.choice((0, 255))]) * size


def copy_over(draw, content):
    size = draw.choice((4, 8, 16, 64, 256))
    source, target = some_place(draw, content), some_place(draw, content)
    piece = content[source : source + size]
    content[target : target + len(piece)] = piece


def drop_or_repeat(draw, content):
    at, size = some_place(draw, content), draw.choice((1, 4, 8, 512))
    if draw.random() < 0.5:
        del content[at : at + size]
    else:
        content[at:at] = content[at : at + size]


def damage_heap(draw, content):
    """The global heap, where strings of variable length lie: its own fields, or what refers to it."""
    heaps = list(find_all(content, b"GCOL"))
    if not heaps:
        return flip_bits(draw, content)
    heap = draw.choice(heaps)
    references = list(find_all(content, struct.pack("<Q", heap)))
    if references and draw.random() < 0.5:  # a reference: length 4, address 8, index 4
        at = draw.choice(references) - 4
        field, width = draw.choice(((0, 4), (4, 8), (12, 4)))
    else:
        at = heap
        field, width = draw.choice(((4, 1), (8, 8), (16, 2), (18, 2), (24, 8), (32, 8), (40, 2), (48, 8), (64, 2), (72, 8)))
    value = draw.choice((0, 1, 7, 255, 4096, 2**16 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1, len(content), heap + 8))
    if at + field + width <= len(content):
        content[at + field : at + field + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")


def unknown_filter(draw, content):
    """The identifier of a filter in a pipeline message: deflate 1, shuffle 2, Fletcher 3, LZF 32000."""
    known = [number.to_bytes(2, "little") for number in (1, 2, 3, 6, 32000)]
    places = [at for name in (b"deflate", b"shuffle", b"fletcher32", b"lzf", b"scaleoffset") for at in find_all(content, name)]
    if not places:
        return odd_number(draw, content)
    at = max(draw.choice(places) - 8, 0)
    content[at : at + 2] = draw.choice((b"\x04\x00", b"\x05\x00", b"\x06\x00", b"\xff\x7f", b"\x00\x00", *known))


BYTE_DAMAGE = [flip_bits, flip_bits, random_bytes, odd_number, odd_number, odd_number, truncate, lengthen, blank, copy_over,
               drop_or_repeat, damage_heap, damage_heap, damage_heap, unknown_filter]

# --- damage to structure, by the library itself ---


def some_dataset(draw, file):
    return draw.choice([name for name in ("embeddings", "probabilities", "logits", "ids", "labels", "costs", "classes", "groups") if name in file] or ["ids"])


def replace(file, name, **what):
    if name in file:
        del file[name]
    return file.create_dataset(name, **what)


def other_shape(draw, file):
    shape = draw.choice([(), (0,), (0, 4), (ROWS,), (ROWS, 0), (ROWS, 1), (ROWS, 4, 2), (ROWS, 1, 2, 3), (1, 4), (ROWS + 1, 4), (ROWS - 1, 4), (1,) * 32])
    replace(file, some_dataset(draw, file), shape=shape, dtype=draw.choice(("f4", "i8", "f8")))


def other_type(draw, file):
    types = ["i1", "u8", ">f4", ">i8", "f2", ">f2", np.longdouble, "c16", "?", "V5", "S0", "S1", "S300", [("a", "f4"), ("b", "i8")], ("f4", (3,)),
             h5py.string_dtype(), h5py.string_dtype("ascii"), h5py.string_dtype(length=3), h5py.vlen_dtype("i4"), h5py.ref_dtype, h5py.regionref_dtype,
             h5py.enum_dtype({"cat": 1, "dog": 2}), h5py.vlen_dtype(h5py.vlen_dtype("u1"))]
    kind = draw.choice(types)
    name = some_dataset(draw, file)
    shape = (ROWS,) if draw.random() < 0.5 or name not in file else file[name].shape
    try:
        replace(file, name, shape=shape, dtype=kind)
    except (TypeError, ValueError):  # h5py has no such type
        replace(file, name, shape=shape, dtype="c16")


def odd_float_type(draw, file):
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(*draw.choice(((15, 7, 8, 0, 7), (15, 10, 5, 0, 10), (31, 23, 8, 0, 23), (20, 10, 8, 2, 6))))
    kind.set_size(draw.choice((2, 4)) if kind.get_fields()[0] < 16 else 4)
    if draw.random() < 0.5:
        kind.set_ebias(draw.choice((0, 15, 127, 2**20)))
    name = some_dataset(draw, file)
    shape = file[name].shape if name in file else (ROWS,)
    if name in file:
        del file[name]
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape))


def huge(draw, file):
    rows = draw.choice((2**20, 2**31, 2**40, 2**56, 2**62, 2**63 - 1))
    wide = draw.choice((1, 4, 2**20, 2**31))
    shape = draw.choice(((rows,), (rows, 4), (ROWS, rows), (rows, wide), (ROWS, wide, 2), (ROWS, 2, wide), (wide, rows)))
    chunk = None
    if draw.random() < 0.6:
        chunk = tuple(min(extent, draw.choice((1, 1024, 2**20, 2**24))) for extent in shape)
    name = some_dataset(draw, file)
    kind = draw.choice(("f4", "f8", "f2", "i8", "S8", h5py.string_dtype()))
    try:
        replace(file, name, shape=shape, dtype=kind, chunks=chunk, compression=draw.choice((None, "gzip")) if chunk else None, fillvalue=draw.choice((None, 0, 1)) if kind != "S8" and isinstance(kind, str) else None)
    except (ValueError, OSError, OverflowError):
        replace(file, name, shape=(2**40,), dtype="i8", chunks=(1024,))
    if draw.random() < 0.3:  # all agree
        for other in [n for n in file if isinstance(file[n], h5py.Dataset)]:
            form = (2**40,) + file[other].shape[1:] if other in file else (2**40,)
            replace(file, other, shape=form[:2], dtype=file[other].dtype if file[other].dtype.kind in "fi" else "i8", chunks=(1024,) + form[1:2])


def odd_values(draw, file):
    name = some_dataset(draw, file)
    data = file[name] if name in file else None
    if not isinstance(data, h5py.Dataset) or not data.shape or data.is_virtual or data.size > 10**6:
        return
    flat = draw.randrange(data.size)
    place = np.unravel_index(flat, data.shape)
    if data.dtype.kind == "f":
        data[tuple(int(i) for i in place)] = draw.choice((float("nan"), float("inf"), -float("inf"), -1.0, -1e-7, 2.0, 1e30, 65504.0))
    elif data.dtype.kind in "iu":
        limits = np.iinfo(data.dtype)
        data[tuple(int(i) for i in place)] = draw.choice((limits.min, limits.max, 0, 1))
    else:
        data[tuple(int(i) for i in place)] = draw.choice((b"", b"\xff\xfe\x80", b"x" * 70000, b"same", b"\xed\xa0\x80"))


def odd_link(draw, file):
    name = some_dataset(draw, file)
    if name in file:
        del file[name]
    links = [h5py.SoftLink("/" + name), h5py.SoftLink("/nowhere"), h5py.SoftLink("/"), h5py.SoftLink("."), h5py.SoftLink("/a/" * 300),
             h5py.ExternalLink("missing.h5", "/embeddings"), h5py.ExternalLink(file.filename, "/" + name), h5py.ExternalLink("/dev/null", "/x"),
             h5py.ExternalLink("/", "/x"), h5py.ExternalLink("", ""), h5py.ExternalLink("/dev/zero", "/x")]
    file[name] = draw.choice(links)


def cyclic_groups(draw, file):
    name = some_dataset(draw, file)
    group = file.require_group("cycle")
    group["again"] = h5py.SoftLink("/cycle/again")
    if "hard" not in group:
        group["hard"] = group
    if name in file:
        del file[name]
    file[name] = h5py.SoftLink("/cycle/" + "hard/" * draw.choice((1, 20)) + "again")


def not_a_dataset(draw, file):
    name = some_dataset(draw, file)
    if name in file:
        del file[name]
    file[name] = draw.choice((np.dtype("f4"), None)) or file.require_group("elsewhere")


def odd_virtual(draw, file):
    name = some_dataset(draw, file)
    shape = draw.choice(((ROWS, 4), (ROWS,), (ROWS, 3)))
    kind = draw.choice(("f4", "i8", "f8"))
    if name in file:
        del file[name]
    layout = h5py.VirtualLayout(shape, kind, maxshape=draw.choice((None, (None,) + shape[1:])))
    source = draw.choice((".", "missing.h5", "/dev/null", file.filename, "part-%b.h5", "%b%b", "", "/"))
    inside = draw.choice((name, "nowhere", "source", "/", "%b"))
    there = draw.choice((shape, (ROWS // 2,) + shape[1:], shape))
    if inside == "source":
        replace(file, "source", shape=draw.choice((shape, (ROWS // 2,) + shape[1:], (3, 3, 3), (0,))), dtype=draw.choice(("f4", "i8", "S4")))
    rows = there[0]
    layout[:rows] = h5py.VirtualSource(source, inside, there, dtype=kind)
    file.create_virtual_dataset(name, layout, fillvalue=draw.choice((None, 1)))


def odd_storage(draw, file):
    """Never written, odd fill values, filters with odd parameters, compact, external storage."""
    name = some_dataset(draw, file)
    if name in file:
        del file[name]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    shape = draw.choice(((ROWS,), (ROWS, 4), (ROWS, 3)))
    kind = draw.choice((h5py.h5t.IEEE_F32LE, h5py.h5t.STD_I64LE, h5py.h5t.IEEE_F64BE, h5py.h5t.STD_U8LE))
    how = draw.randrange(7)
    if how == 0:
        properties.set_layout(h5py.h5d.COMPACT)
    elif how == 1:
        properties.set_external(*draw.choice(((b"missing.raw", 0, 2**20), (b"/dev/zero", 0, 2**20), (b"/dev/null", 0, 2**20), (b"/", 0, 2**20), (file.filename.encode(), 2**40, 2**20))))
    elif how == 2:
        properties.set_chunk(tuple(min(extent, 5) for extent in shape))
        properties.set_filter(draw.choice((32001, 307, 32004, 999, 511)), h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    elif how == 3:
        properties.set_chunk(tuple(min(extent, 5) for extent in shape))
        for _ in range(draw.choice((1, 9, 30))):
            properties.set_deflate(1)
    elif how == 4:
        properties.set_chunk(shape)
        properties.set_szip(h5py.h5z.SZIP_NN_OPTION_MASK, 8) if h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP) else properties.set_shuffle()
    elif how == 5:
        properties.set_chunk(tuple(extent * draw.choice((1, 3)) if extent == shape[0] else 1 for extent in shape))
        properties.set_scaleoffset(h5py.h5z.SO_INT, draw.choice((0, 3, 31))) if kind != h5py.h5t.IEEE_F64BE and kind != h5py.h5t.IEEE_F32LE else properties.set_fletcher32()
    properties.set_fill_value(np.array(draw.choice((0, 1, float("nan"), 1e300)), dtype="f8") if how % 2 else np.array(7))
    extents = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED,) + shape[1:] if how in (2, 3) else shape)
    data = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, extents, properties))
    if how in (0, 3, 4, 5) and draw.random() < 0.7:
        data[...] = 1


def odd_attributes(draw, file):
    target = file[some_dataset(draw, file)] if draw.random() < 0.7 and some_dataset(draw, file) in file else file
    for i in range(draw.choice((1, 3, 40))):
        target.attrs[f"a{i}" * draw.choice((1, 50))] = draw.choice(([1.5, 2.0], "text", np.void(b"\x00\x01"), np.bool_(True), h5py.Empty("f4"), ["x", "y"]))


def no_string(draw, file):
    """Strings of variable length that were never written, or only some."""
    data = replace(file, "ids", shape=(ROWS,), dtype=h5py.string_dtype(), chunks=draw.choice((None, (5,))))
    for row in range(draw.choice((0, 1, ROWS - 1))):
        data[row] = f"{row}"


def resized(draw, file):
    names = [name for name in file if isinstance(file[name], h5py.Dataset) and file[name].maxshape and file[name].maxshape[0] is None]
    if not names:
        return other_shape(draw, file)
    file[draw.choice(names)].resize(draw.choice((0, 1, ROWS - 1, ROWS + 1, 2**20, 2**40)), axis=0)


STRUCTURE_DAMAGE = [other_shape, other_type, odd_float_type, huge, huge, odd_values, odd_values, odd_link, cyclic_groups, not_a_dataset, odd_virtual, odd_virtual,
                    odd_storage, odd_storage, odd_attributes, no_string, resized]

# --- one input ---


class Workplace:
    def __init__(self, folder, seed, seine):
        self.folder, self.seed = folder, seed
        listed = subprocess.run([seine, "strategies", "--json"], capture_output=True, check=True)
        self.strategies = sorted(each["name"] for each in json.loads(listed.stdout))
        self.sound = []
        for which in range(len(SOUND)):
            path = os.path.join(folder, f"sound-{SOUND[which][0]}.h5")
            write_sound(path, which)
            self.sound.append(path)

    def damaged(self, number):
        """The input of this number: its path, and the steps that led to it."""
        draw = random.Random(f"{self.seed} {number}")
        which = draw.randrange(len(SOUND))
        path = os.path.join(self.folder, "pool.h5")
        shutil.copyfile(self.sound[which], path)
        steps = [SOUND[which][0]]
        if draw.random() < 0.45:
            with h5py.File(path, "r+", libver=(SOUND[which][2], "latest")) as file:
                for damage in draw.sample(STRUCTURE_DAMAGE, draw.choice((1, 1, 2))):
                    steps.append(damage.__name__)
                    try:
                        damage(draw, file)
                    except (ValueError, TypeError, OSError, RuntimeError, KeyError, AttributeError) as error:  # two that do not go together
                        steps[-1] += f" ({type(error).__name__})"
            if os.path.getsize(path) > LARGEST_FILE:  # an extent that has its place, but no bytes in it yet
                os.truncate(path, LARGEST_FILE)
        if len(steps) == 1 or draw.random() < 0.25:
            with open(path, "rb") as file:
                content = bytearray(file.read())
            for damage in draw.choices(BYTE_DAMAGE, k=draw.choice((1, 1, 1, 2, 4))):
                if content:
                    steps.append(damage.__name__)
                    damage(draw, content)
            with open(path, "wb") as file:
                file.write(content)
        return path, steps, self.command(draw, path, which)

    def command(self, draw, path, which):
        out = os.path.join(self.folder, "out.csv")
        way = draw.random()
        strategy = draw.choice(self.strategies)
        selecting = ["select", "--strategy", strategy, "--batch", "5", "--out", out, "--force", "--device", "cpu", "--quiet"]
        if way < 0.6:
            return ["inspect", "--pool", path, "--device", "cpu", "--quiet"]
        if way < 0.8:
            return [*selecting, "--pool", path]
        if way < 0.85:
            return [*selecting, "--pool", path, self.sound[which]]
        if way < 0.93:
            return [*selecting, "--pool", self.sound[which], draw.choice(("--labelled", "--pending", "--exclude")), path]
        if way < 0.96:
            return [*selecting, "--pool", self.sound[which], "--labelled-pool", path]
        return ["evaluate", "--pool", path, "--picked", self.sound[which], "--device", "cpu", "--quiet"]


def run(command, folder):
    """Exit code (-1: the time limit), largest resident KiB (0: less than this script has had), standard error."""
    said = os.path.join(folder, "said")
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
               (os.POSIX_SPAWN_OPEN, 2, said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    watched = os.pidfd_open(child)
    ended = select.select([watched], [], [], TIME_LIMIT)[0]
    if not ended:
        os.kill(child, 9)
    os.close(watched)
    _, status, usage = os.wait4(child, 0)
    with open(said, errors="replace") as file:
        text = file.read()
    mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # a child starts as a copy and counts it
    memory = usage.ru_maxrss if usage.ru_maxrss > mine else 0
    return (os.waitstatus_to_exitcode(status) if ended else -1), memory, text


def complaint(code, memory, said, out):
    lines = [line for line in said.splitlines() if line.startswith("seine: error:")]
    if code == -1:
        return "hangs"
    if code < 0:
        return f"ended by signal {-code}"
    if code not in ALLOWED:
        return f"exit code {code}"
    if code != 0 and not lines:
        return f"exit code {code} without a word"
    if memory > LARGEST_MEMORY_KIB:
        return f"takes {memory >> 10} MiB"
    if code != 0 and os.path.exists(out):
        return f"exit code {code} and an output"
    return ""


def keep(folder, number, path, steps, command, why, said):
    os.makedirs(folder, exist_ok=True)
    name = os.path.join(folder, f"{number}")
    shutil.copyfile(path, name + ".h5")
    with open(name + ".txt", "w") as file:
        file.write(f"{why}\n{' '.join(steps)}\n{' '.join(command)}\n{said}")


def attempt(number):
    """What became of one input. In a process that is replaced now and then: mutators leave memory behind."""
    path, steps, words = place.damaged(number)
    command = [options.seine, *words, "--threads", "1"]
    code, memory, said = run(command, place.folder)
    out = os.path.join(place.folder, "out.csv")
    why = complaint(code, memory, said, out)
    if why and options.keep:
        keep(options.keep, number, path, steps, command, why, said)
    if os.path.exists(out):
        os.remove(out)
    return code, memory, f"input {number}: {why}: {' '.join(steps)}: {words[0]}: {said.strip()[-200:]}" if why else ""


def main():
    global options, place
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seine", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after")
    parser.add_argument("--keep", help="folder for inputs that failed")
    options = parser.parse_args()

    os.environ.update(OMPI_MCA_ess_singleton_isolated="1", OMPI_MCA_pml="ob1", OMPI_MCA_btl="self",
                      OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    codes, failures, largest = collections.Counter(), 0, 0
    begin = time.monotonic()
    numbers = range(options.first, options.first + options.count)
    print(f"seed {options.seed}, inputs {numbers[0]} to {numbers[-1]}", flush=True)
    with tempfile.TemporaryDirectory(prefix="seine-fuzz-") as folder:
        os.environ["OMPI_MCA_orte_tmpdir_base"] = folder  # or another program of MPI, ending, takes the common one away
        place = Workplace(folder, options.seed, options.seine)
        with multiprocessing.Pool(1, maxtasksperchild=50) as worker:
            for code, memory, failure in worker.imap(attempt, numbers):
                codes[code] += 1
                largest = max(largest, memory)
                failures += bool(failure)
                if failure:
                    print(failure, flush=True)
                if sum(codes.values()) % 1000 == 0:
                    print(f"{sum(codes.values())} runs", flush=True)
                if time.monotonic() - begin > options.seconds:
                    break
    runs = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))
    seconds = time.monotonic() - begin
    print(f"{sum(codes.values())} runs in {seconds:.0f} s: {runs}; largest {largest >> 10} MiB; {failures} failed")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
