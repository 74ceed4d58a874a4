"""The files of a pool as a night found them."""
import itertools
import json
import os


class FrozenPool:
    """Paths in order, and how many bytes each had."""

    def __init__(self, paths, sizes):
        self.paths, self.sizes = paths, sizes

    @classmethod
    def now(cls, paths):
        return cls(paths, [os.path.getsize(path) for path in paths])

    @classmethod
    def of(cls, night):
        """As the folder of a night keeps it."""
        paths = (night / "pool.txt").read_text(encoding="utf-8").splitlines()
        return cls(paths, json.loads((night / "facts.json").read_text(encoding="utf-8")).get("sizes", []))

    def change(self, paths):
        """What moves the rows of a pool without ids, where these are its files now: a sentence, or None. Files may come
        behind the others; of what is gone altogether the reader speaks."""
        for now, path, size in itertools.zip_longest(paths[:len(self.paths)], self.paths, self.sizes):
            if now != path:
                return f"{now or 'nothing'} is now where {path} was"
            if size is not None and os.path.exists(path) and os.path.getsize(path) != size:
                return f"{path} had {size:,} bytes, and has {os.path.getsize(path):,} now"
        return None
