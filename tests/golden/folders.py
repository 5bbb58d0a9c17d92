"""A folder of results as plain values: read from the files, and compared with those that were kept."""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pyarrow.parquet as pq
from PIL import Image
from safetensors.torch import load_file

Values = dict[str, Any]

ROWS = 40  # of a longer table only what each column holds is kept
ITEMS = 8  # of a longer list of numbers the mean and the spread, of a longer list of files their number
TIMES = {"ms", "least", "greatest", "seconds"}  # columns and keys whose values are the clock's
MACHINE = {"where"}  # keys that tell the machine
TIME = "a time"
TABLE = {"columns", "rows", "length", "held"}  # the keys of a table as it is kept here
PICTURES = {".png", ".jpg", ""}  # the last are the chunks of stored maps
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
EVENTS = re.compile(r"events\.out\.tfevents\..*")  # the rest of such a name is the time, the host and the process


# ---- reading ----


def read_folder(folder: Path, timed_parts: bool = False) -> Values:
    """What is in every file of a study's results, by name; of each run below it the names of its files, and its log.

    Args:
        folder: of the study.
        timed_parts: all numbers of its parts are times.
    """
    inside = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    runs = sorted({path.parts[1] for path in inside if path.parts[0] == "runs"})
    found: Values = {}
    for name in _names(path for path in inside if path.parts[0] != "runs"):
        found[name] = _read(folder / name, timed_parts)
    for run in runs:
        place = folder / "runs" / run
        files = _names(path.relative_to(place) for path in place.rglob("*") if path.is_file())
        found[f"runs/{run}"] = {"files": files, "log": _table(*_csv(place / "metrics.csv"), kept=2)}
    return found


def _names(paths: Iterable[Path]) -> list[str]:
    """Sorted names; many files of one kind in a folder as their number."""
    paths = list(paths)
    alike = Counter((path.parent, path.suffix) for path in paths)
    many = {key: number for key, number in alike.items() if number > ITEMS and key[1] in PICTURES}
    single = [EVENTS.sub("events", path.as_posix()) for path in paths if (path.parent, path.suffix) not in many]
    return sorted([*single, *(f"{parent.as_posix()}/{number} x {suffix}" for (parent, suffix), number in many.items())])


def _read(path: Path, timed: bool) -> Any:
    if path.suffix == ".csv":
        return _table(*_csv(path))
    if path.suffix == ".parquet":
        table = pq.read_table(path).to_pydict()
        return _table(list(table), [list(row) for row in zip(*table.values())])
    if path.suffix == ".json" and path.parent.name == "parts":
        return _plain(json.loads(path.read_text(encoding="utf-8")), timed)
    if path.suffix == ".safetensors":
        return {name: _tensor(values) for name, values in sorted(load_file(path).items())}
    if path.suffix == ".png" and path.is_file():
        return "{} x {}".format(*Image.open(path).size)
    if path.name == "report.md":
        return _report(path.read_text(encoding="utf-8"))
    return ""


def _csv(path: Path) -> tuple[list[str], list[list[Any]]]:
    if not path.is_file():
        return [], []
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    return (lines[0], [list(map(_cell, line)) for line in lines[1:]]) if lines else ([], [])


def _table(columns: list[str], rows: list[list[Any]], kept: int = ROWS) -> Values:
    rows = [[TIME if column in TIMES else _number(v) for column, v in zip(columns, row)] for row in rows]
    if len(rows) <= kept:
        return {"columns": columns, "rows": rows}
    held = {column: _held([row[place] for row in rows]) for place, column in enumerate(columns)}
    return {"columns": columns, "length": len(rows), "held": held}


def _held(values: list[Any]) -> Any:
    """What a long column holds."""
    numbers = [value for value in values if isinstance(value, int | float)]
    texts = sorted({str(value) for value in values if not isinstance(value, int | float)})
    found = _spread(numbers) if numbers else {}
    return found | ({"texts": texts[: 2 * ITEMS], "kinds": len(texts)} if texts else {})


def _plain(value: Any, timed: bool = False) -> Any:
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key not in MACHINE}
        return {key: TIME if key in TIMES else _plain(inner, timed) for key, inner in kept.items()}
    if isinstance(value, list):
        numbers = all(isinstance(inner, int | float) for inner in value)
        return _spread(value) if numbers and len(value) > ITEMS else [_plain(inner, timed) for inner in value]
    if timed and isinstance(value, float):
        return TIME
    return _number(value)


def _tensor(values: Any) -> Values:
    kind = f"{str(values.dtype).removeprefix('torch.')} {' x '.join(map(str, values.shape))}"
    return {"kind": kind} | _spread(values.double().flatten().tolist())


def _spread(numbers: Sequence[float]) -> Values:
    defined = [float(number) for number in numbers if not math.isnan(number)]
    mean, spread = (fmean(defined), pstdev(defined)) if defined else (math.nan, math.nan)
    return {"mean": _number(mean), "std": _number(spread), "defined": len(defined)}


def _cell(text: str) -> Any:
    try:
        return float(text) if text else text
    except ValueError:
        return text


def _number(value: Any) -> Any:
    """Six digits, as an int where it is whole; what JSON cannot hold as a text."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return str(value)
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() else short


def _report(text: str) -> list[str]:
    """Headings, pictures, and of each table its header row and the first cell of every row."""
    found: list[str] = []
    lines = text.splitlines()
    for place, line in enumerate(lines):
        if line.startswith("#") or (line.startswith("![") and line.endswith(")")):
            found.append(line)
        elif line.startswith("|") and not lines[place - 1].startswith("|"):
            rows = [lines[n] for n in _run(lines, place + 2)]
            found += [line, *(row.split("|")[1].strip() for row in rows)]
    return found


def _run(lines: list[str], start: int) -> Iterator[int]:
    """The places of the table's rows from here on."""
    for place in count(start):
        if place >= len(lines) or not lines[place].startswith("|"):
            return
        yield place


# ---- comparing ----


def renamed(value: Any, names: dict[str, str]) -> Any:
    """Recorded values with whole words, in keys and texts, under their new names."""
    if not names:
        return value
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)")

    def change(inner: Any) -> Any:
        if isinstance(inner, str):
            return pattern.sub(lambda found: names[found[0]], inner)
        if isinstance(inner, dict):
            return {change(key): change(each) for key, each in inner.items()}
        return [change(each) for each in inner] if isinstance(inner, list) else inner

    return change(value)


def differences(old: Values, new: Values, values: bool) -> list[str]:
    """What differs between recorded and present results, a line each, below the name of its file.

    Args:
        old: as recorded.
        new: as they are.
        values: compare numbers and what the tables and parts say too; otherwise files, columns, keys and shapes alone.
    """
    found: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            lines = ["is missing"]
        elif name not in old:
            lines = ["is new"]
        else:
            always = name == "report.md" or name.endswith(".png")
            lines = list(_compare(old[name], new[name], "", values or always))
        if lines:
            found += [f"{name}:", *(f"    {line}" for line in lines[:12])]
            found += [f"    and {len(lines) - 12} more"] if len(lines) > 12 else []
    return found


def _compare(old: Any, new: Any, at: str, values: bool) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        if all("columns" in each and each.keys() <= TABLE for each in (old, new)):
            yield from _compare_tables(old, new, at, values)
            return
        for key in sorted(old.keys() | new.keys()):
            place = f"{at}.{key}" if at else key
            if key not in new or key not in old:
                yield f"{place} is {'missing' if key not in new else 'new'}"
            else:
                yield from _compare(old[key], new[key], place, values or key in ("kind", "files"))
    elif not values:
        return
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = zip(*map(sorted, (old, new))) if at == "files" else zip(old, new)
        for place, pair in enumerate(pairs):
            yield from _compare(*pair, f"{at}[{place}]", values)
    elif isinstance(old, list) and isinstance(new, list):
        yield from (f"{at} {each!r} is missing".lstrip() for each in old if each not in new)
        yield from (f"{at} {each!r} is new".lstrip() for each in new if each not in old)
        yield f"{at}: {len(old)} entries were recorded, {len(new)} are there".lstrip(": ")
    elif not _same(old, new):
        yield f"{at or 'it'} was {old!r} and is {new!r}"


def _compare_tables(old: Values, new: Values, at: str, values: bool) -> Iterator[str]:
    start = f"{at}: " if at else ""
    if old["columns"] != new["columns"]:
        yield f"{start}the columns were {old['columns']} and are {new['columns']}"
    elif not values:
        return
    elif "rows" in old and "rows" in new and len(old["rows"]) == len(new["rows"]):
        for place, (before, after) in enumerate(zip(old["rows"], new["rows"])):
            for column, one, other in zip(old["columns"], before, after):
                if not _same(one, other):
                    yield f"{start}row {place}, {column}: was {one!r} and is {other!r}; {before}"
    elif "held" in old and "held" in new:
        for key in ("length", "held"):
            yield from _compare(old[key], new[key], f"{at}.{key}".lstrip("."), values)
    else:
        lengths = [each.get("length", len(each.get("rows", []))) for each in (old, new)]
        yield f"{start}{lengths[0]} rows were recorded, {lengths[1]} are there"


def _same(old: Any, new: Any) -> bool:
    """Equal, or numbers that are close, also those within texts; processors of one kind differ by up to 1.4e-4."""
    if isinstance(old, str) and isinstance(new, str):
        return NUMBER.sub("", old) == NUMBER.sub("", new) and all(map(_same, *map(_numbers, (old, new))))
    if isinstance(old, int | float) and isinstance(new, int | float):
        return math.isclose(old, new, rel_tol=2e-3, abs_tol=2e-4)
    return old == new


def _numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]
