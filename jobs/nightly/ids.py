"""Lists of ids: what annotators bring back, and what seine is told."""
import csv
import io
import json
import os
import re
from pathlib import Path

from files import BAD_DATA, CONFIG, Stop


def natural_key(path):
    """Orders part-2 before part-10, as seine does."""
    return [(int(digits), "") if digits else (-1, text)
            for digits, text in re.findall(r"(\d+)|(\D)", os.path.abspath(path))]


def read_ids(path):
    """The texts of a list of labelled ids: .csv with a column `id`, a .json batch file, or one per line."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if path.endswith(".json"):
            ids = json.loads(text)["ids"]
            if not isinstance(ids, list) or not all(type(each) in (int, str) for each in ids):
                raise ValueError("ids is not a list of whole numbers and texts")
            return [str(each) for each in ids]
        if path.endswith(".csv"):
            rows = csv.reader(io.StringIO(text, newline=""), strict=True)
            header = next(rows, [])
            if "id" not in header:
                raise ValueError(f"its header is {','.join(header) or 'empty'}")
            at = header.index("id")
            return [row[at] for row in rows if row]
        if path.endswith(".txt"):
            return [line.strip() for line in text.splitlines() if line.strip()]
    except (ValueError, KeyError, IndexError, TypeError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        raise Stop(BAD_DATA, f"{path}: not a list of ids with a column `id`: {error}") from None
    raise Stop(CONFIG, f"{path}: labelled ids come as .csv, .json or .txt")


def as_csv(ids):
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id"])
    writer.writerows([each] for each in ids)
    return text.getvalue()


def key_of(ids):
    """How a text names one of these ids: `7`, `+7` and `007` are the whole number 7, and texts are themselves."""
    if ids and all(isinstance(each, int) for each in ids):
        return lambda text: int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else text
    return lambda text: text
