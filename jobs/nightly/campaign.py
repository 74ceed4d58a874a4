"""What the campaign file says."""
import datetime
import glob
import re
import tomllib
from pathlib import Path

from files import BAD_DATA, CONFIG, NO_INPUT, Stop
from ids import natural_key, read_ids

RUN_DEFAULTS = {"by": "local", "ranks": 1, "threads": 1, "attempts": 3, "poll": 15.0, "seine": "seine", "launch": [],
                "sbatch": [], "check": []}
BOUNDS = {"catch_up": (0, 36500), "ranks": (1, 1_000_000), "threads": (1, 10_000), "attempts": (1, 1000),
          "poll": (0.01, 86400), "batch": (1, 2**63 - 1)}
OURS = {"out", "checkpoint", "labelled", "pending", "restart", "force", "config", "quiet", "progress", "threads"}


class Campaign:
    def __init__(self, path):
        self.path = Path(path).resolve()
        self.base = self.path.parent
        try:
            content = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Stop(NO_INPUT, f"{path}: no such campaign file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Stop(CONFIG, f"{path}: not valid TOML: {error}") from None
        take = self._take
        self.name = take(content, "name", str)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise Stop(CONFIG, f"{path}: name = {self.name!r}: letters, digits, dot, dash and underscore only")
        self.first = take(content, "first", datetime.date)
        self.last = take(content, "last", datetime.date, datetime.date.max)
        self.catch_up = take(content, "catch_up", int, 7)
        self.folder = self.base / take(content, "folder", str, self.name)
        self.publish = self.base / take(content, "publish", str, str(self.folder / "published"))
        self.labelled = take(content, "labelled", list, [])
        run = take(content, "run", dict, {})
        self.run = {key: take(run, key, type(value), value) for key, value in RUN_DEFAULTS.items()}
        self.select = take(content, "select", dict)
        if left := sorted([*content, *(f"run.{key}" for key in run)]):
            raise Stop(CONFIG, f"{path}: unknown: {', '.join(left)}")
        if taken := sorted(OURS & self.select.keys()):
            raise Stop(CONFIG, f"{path}: [select] {', '.join(taken)}: nightly.sh decides that")
        if missing := sorted({"pool", "strategy", "batch"} - self.select.keys()):
            raise Stop(CONFIG, f"{path}: [select] needs {', '.join(missing)}")
        self._check_select()
        if self.run["by"] not in ("local", "slurm"):
            raise Stop(CONFIG, f"{path}: run.by = {self.run['by']!r}: expected local or slurm")

    def _take(self, table, key, kind, default=None):
        value = table.pop(key, default)
        if value is None:
            raise Stop(CONFIG, f"{self.path}: {key} is missing")
        if kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, (bool, datetime.datetime)):
            raise Stop(CONFIG, f"{self.path}: {key} = {value!r}: expected {kind.__name__}")
        if kind is list and not all(isinstance(each, str) for each in value):
            raise Stop(CONFIG, f"{self.path}: {key} = {value!r}: expected a list of str")
        if key in BOUNDS and not BOUNDS[key][0] <= value <= BOUNDS[key][1]:
            least, most = BOUNDS[key]
            raise Stop(CONFIG, f"{self.path}: {key} = {value!r}: expected {least} to {most}")
        return value

    def _check_select(self):
        """The options that are read here are what they must be, and the others can be handed on to seine."""
        select = self.select
        kinds = {"strategy": str, "batch": int, "pool": str if isinstance(select["pool"], str) else list, "ids": str}
        for key in (key for key in kinds if key in select):
            self._take(dict(select), key, kinds[key])
        if not select["pool"]:
            raise Stop(CONFIG, f"{self.path}: pool = {select['pool']!r}: expected files")
        for key, value in select.items():
            if not all(isinstance(each, (str, int, float)) for each in (value if isinstance(value, list) else [value])):
                raise Stop(CONFIG, f"{self.path}: {key} = {value!r}: expected text, number, boolean or a list of them")

    def night(self, date):
        return self.folder / "nights" / date

    def pool_files(self):
        """What the pool consists of now, by full path, in seine's order."""
        given = self.select["pool"]
        given = [given] if isinstance(given, str) else given
        if len(given) == 1 and given[0].endswith(".txt"):
            if not (self.base / given[0]).is_file():
                raise Stop(NO_INPUT, f"{given[0]}: no such list of files")
            try:
                lines = (self.base / given[0]).read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise Stop(BAD_DATA, f"{given[0]}: not a list of files: {error}") from None
            lines = [line.strip() for line in lines]
            paths = [str(self.base / line) for line in lines if line and not line.startswith("#")]
            if not paths:
                raise Stop(NO_INPUT, f"{given[0]}: names no file")
            for path in paths:
                if not Path(path).exists():
                    raise Stop(NO_INPUT, f"{path}, listed in {given[0]}: no such file")
            return paths
        found = []
        for pattern in given:
            if not (paths := glob.glob(str(self.base / pattern))):
                raise Stop(NO_INPUT, f"{pattern}: no file matches")
            found += paths
        return sorted(found, key=natural_key)

    def labelled_ids(self):
        paths = sorted(path for pattern in self.labelled for path in glob.glob(str(self.base / pattern)))
        return list(dict.fromkeys(each for path in paths for each in read_ids(path)))
