"""Records the results of studies: `python tests/golden/record.py [PAPER/ITEM ...]`; without names, of all of them."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import adapter
from renames import TEXT
from workplace import golden_file, machine, results_of, workplace

WIDTH = 118


def main(names: list[str]) -> None:
    known = ["/".join(study) for study in adapter.list_studies()]
    if unknown := set(names) - set(known):
        sys.exit(f"there is no study {', '.join(sorted(unknown))}")
    if TEXT:
        print("renames.py is not empty: what is recorded now has the new names, and would be renamed once more")
    with tempfile.TemporaryDirectory() as folder, workplace(Path(folder)):
        for name in names or known:
            start = time.perf_counter()
            results = {"made with": machine(), "files": results_of(name)}
            file = golden_file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(folded(results) + "\n", encoding="utf-8")
            print(f"{name}: {file.stat().st_size / 1000:.1f} kB, {time.perf_counter() - start:.1f} s")


def folded(value: Any, depth: int = 0) -> str:
    """JSON with as much on a line as there is room for, so that a change shows where it is."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + depth <= WIDTH or not isinstance(value, dict | list):
        return flat
    if isinstance(value, dict):
        inner = [f"{json.dumps(key, ensure_ascii=False)}: {folded(each, depth + 1)}" for key, each in value.items()]
    else:
        inner = [folded(each, depth + 1) for each in value]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    indent = "\n" + " " * (depth + 1)
    return f"{opened}{indent}{f',{indent}'.join(inner)}\n{' ' * depth}{closed}"


if __name__ == "__main__":
    main(sys.argv[1:])
