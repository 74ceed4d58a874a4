"""Files and folders that are there whole or not at all; the log, and the error that ends a start."""
import datetime
import hashlib
import os
import shutil
import sys

USAGE, BAD_DATA, NO_INPUT, UNAVAILABLE, INTERNAL, NO_MEMORY = 64, 65, 66, 69, 70, 71
CANNOT_CREATE, IO_ERROR, LATER, CONFIG = 73, 74, 75, 78


class Stop(Exception):
    """The end of this start, with the exit code that a monitor sees."""

    def __init__(self, code, why):
        super().__init__(why)
        self.code = code


def utc_now():
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def counted(number, what):
    """'1 night', '2 nights'."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def say(text):
    print(f"nightly: {utc_now()} {text}", file=sys.stderr, flush=True)


def sync(path):
    """What was written to this file, or renamed within this folder, survives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    sync(path)


def copy_file(source, path):
    shutil.copyfile(source, path)
    sync(path)


def appear(folder, fill):
    """`folder` appears by a rename, with what fill(temporary folder) wrote."""
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    fill(temporary)
    sync(temporary)
    os.rename(temporary, folder)
    sync(folder.parent)


def move_aside(path, word):
    """Renames it to .NAME.WORD-1, -2, ... beside it; nothing is ever deleted that may be evidence."""
    number = 1
    while (to := path.with_name(f".{path.name}.{word}-{number}")).exists():
        number += 1
    os.rename(path, to)
    return to


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
