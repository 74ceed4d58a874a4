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
        return cls(paths, json.loads((night / "facts.json").read_text(encoding="utf-8"))["sizes"])

    def change(self, now):
        """What has moved the rows of a pool without ids since then: a sentence, or None. Files may come behind the
        others."""
        files = itertools.zip_longest(self.paths, self.sizes, now.paths[:len(self.paths)], now.sizes[:len(self.paths)])
        for path, size, path_now, size_now in files:
            if path_now != path:
                return f"{path_now or 'nothing'} is now where {path} was"
            if size_now != size:
                return f"{path} had {size:,} bytes, and has {size_now:,} now"
        return None
