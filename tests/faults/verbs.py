"""Every command that writes, on data that takes a moment, with what its result is."""

import csv
import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parents[1] / "fixing"))
import cheats

RECIPE = {
    "name": "tiny",
    "data": {"name": "squares"},
    "image_size": 32,
    "model": "sightline/lenet5",
    "batch_size": 8,
    "save_best": {"metric": "val/accuracy"},
    "stages": [{"epochs": 2, "lr": 0.01}],
}
LEFT_OVER = re.compile(r"\..*\.[0-9a-f]{12}\.(tmp.*|old)|.*\.lock")
SWEEP = {"name": "swept", "recipe": "recipe.yaml", "space": {"batch_size": [4, 10]}, "pruning": None}
LOOP = {
    "kind": "active_learning",
    "recipe": "recipe.yaml",
    "variants": ["random"],
    "seeds": [0],
    "rounds": 2,
    "columns": ["test/accuracy"],
}
MODEL = """
from torch import nn

def make():
    first = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    return nn.Sequential(first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
"""
TABLE = ("evaluate", "run", "--explainers", "gradcam", "--metrics", "accuracy,energy_in_mask", "--splits", "test")


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        arguments: of the command.
        outputs: what it writes.
        result: reads from the folder what must be equal, however often the command was killed.
        refused: what the command says where its output is whole already; "" = it does not refuse.
    """

    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    result: Callable[[Path], Any]
    refused: str = ""


def left_over(folder: Path) -> list[Path]:
    """Files that a command should not leave."""
    return [path for path in folder.rglob("*") if LEFT_OVER.fullmatch(path.name)]


def contents(*patterns: str) -> Callable[[Path], dict[str, str]]:
    """The digest of each of these files."""

    def read(folder: Path) -> dict[str, str]:
        files = sorted(file for pattern in patterns for file in folder.glob(pattern))
        return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    return read


def rows(name: str, *without: str) -> Callable[[Path], list[dict[str, str]]]:
    """The rows of a table without columns that differ from call to call."""

    def read(folder: Path) -> list[dict[str, str]]:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            return [{key: value for key, value in row.items() if key not in without} for row in csv.DictReader(file)]

    return read


def trained(folder: Path) -> Any:
    weights = contents("new/checkpoints/last.safetensors", "new/checkpoints/best.safetensors")(folder)
    assert json.loads((folder / "new" / "run.json").read_text())["status"] == "finished"
    return weights, rows("new/metrics.csv", "seconds")(folder)


def swept(folder: Path) -> Any:
    found = rows("sweep/results.csv", "seconds", "trial", "run")(folder)
    assert all(row["state"] == "complete" for row in found)
    return sorted(found, key=str), len(contents("sweep/*.png")(folder))


def stored(folder: Path) -> Any:
    from sightline.data.map_store import MapStore

    store = MapStore(folder / "maps")
    store.check_finished()
    return np.asarray(store.read(range(len(store)))).tolist(), store.metadata


def study(folder: Path) -> Any:
    with sqlite3.connect(folder / "rating" / "study.sqlite") as connection:
        pictures = connection.execute(
            "SELECT pair, part, jpeg FROM pictures ORDER BY pair, part, length(jpeg)"
        ).fetchall()
        return connection.execute("SELECT * FROM pairs ORDER BY pair").fetchall(), pictures


def facts(name: str, *without: str) -> Callable[[Path], Any]:
    """What a JSON file says, without entries that differ from call to call."""
    return lambda folder: {k: v for k, v in json.loads((folder / name).read_text()).items() if k not in without}


def fixed(folder: Path) -> Any:
    whole = contents(
        "fixed/model/model.safetensors", "fixed/model/model.json", "fixed/masks/**/*.png", "fixed/recipe.yaml"
    )
    assert (folder / "fixed/model/model.pt2").exists()
    assert (folder / "fixed/report.html").exists()
    return whole(folder), facts("fixed/fix.json", "seconds")(folder)


def demonstrated(folder: Path) -> Any:
    runs = sorted((folder / "demo").glob("demo-*"))
    assert (folder / "demo/report.html").stat().st_size > 1000
    files = contents("demo/*/checkpoints/last.safetensors", "demo/*/evaluation/test/summary.json")(folder)
    return [rows(f"demo/{run.name}/metrics.csv", "seconds")(folder) for run in runs], files


VERBS = {
    "train": Verb(("train", "recipe.yaml", "--output", "new", "--no-evaluate", "--resume"), ("new",), trained),
    "evaluate a run": Verb(("evaluate", "run", "--explainers", "gradcam"), ("run/evaluation",),
                           contents("run/evaluation/test/**/*.*")),
    "evaluate to a table": Verb((*TABLE, "-o", "table"), ("table",), rows("table/table.csv")),
    "explain an image": Verb(("explain", "image.png", "--run", "run", "-o", "out/panel.png"), ("out",),
                             contents("out/panel.png")),
    "explain to a store": Verb(("explain", "--run", "run", "--store", "maps"), ("maps",), stored),
    "boxes": Verb(("boxes", "squares", "--detector", "saliency", "--run", "run", "-o", "found/boxes.csv"), ("found",),
                  contents("found/boxes.csv")),
    "masks": Verb(("masks", "squares", "--run", "run", "-o", "masks"), ("masks",), contents("masks/**/*.png", "masks/journal")),
    "export": Verb(("export", "run", "-o", "exported", "--formats", "state-dict"), ("exported",), contents("exported/*"),
                   "exported is not empty"),
    "diagnose": Verb(("diagnose", "--run", "run", "--samples", "8", "-o", "page/diagnosis.html"), ("page",),
                     facts("page/diagnosis.json")),
    "sweep": Verb(("sweep", "sweep.yaml", "--output", "sweep"), ("sweep",), swept),
    "acquire": Verb(("acquire", "loop.yaml", "-o", "loop"), ("loop",), rows("loop/table.csv")),
    "acquire next": Verb(
        ("acquire", "less", "--next", "3", "--strategy", "random", "-o", "next/next.csv"), ("next",),
        contents("next/next.csv"),
    ),
    "audit": Verb(("audit", "squares", "--run", "run", "--iterations", "1", "-o", "audit"), ("audit",),
                  contents("audit/audit.csv")),
    "filters": Verb(("filters", "--run", "run", "--count", "4", "--groups", "2", "--columns", "1", "-o", "out/filters.png"),
                    ("out",), contents("out/filters.png")),
    "compare": Verb(("compare", "run", "--against", "less", "-o", "out/report.html"), ("out",),
                    lambda folder: (folder / "out/report.html").stat().st_size > 1000),
    "leaderboard": Verb(("leaderboard", "made", "-o", "board"), ("board",), contents("board/leaderboard.md")),
    "rate": Verb(("rate", "run", "--explainers", "gradcam,eigencam", "--images", "4", "-o", "rating", "--results"),
                 ("rating",), study),
    "fix": Verb(("fix", "--model", "made_by_hand:make", "--weights", "hand.safetensors", "--data", "seen/images",
                 "--masks", "seen/masks", "--size", str(cheats.SIZE), "--mean", "0.5", "--std", "0.5",
                 "--pretrained", "none", "-o", "fixed"),
                ("fixed",), fixed, "fixed is not empty"),
    "demo": Verb(("demo", "data={name: squares}", "image_size=32", "stages=[{epochs: 1, lr: 0.01}]", "evaluation.splits=[test]",
                  "evaluation.explainers=[gradcam]", "evaluation.metrics=[accuracy]", "-o", "demo"), ("demo",), demonstrated),
    "reproduce": Verb(("reproduce", "lots", "figure-5.3", "data={name: csv, path: images.csv}", "num_images=2", "abreast=1",
                       "model={name: sightline/lenet5, size: 32}", "columns.1.options.iterations=3", "-o", "figure"),
                      ("figure",), contents("figure/*.png", "figure/table.csv", "figure/parts/*.safetensors")),
    "rate to a batch": Verb(("rate", "-o", "rated", "--export-batch", "batch"), ("batch",),
                            lambda folder: (len(list((folder / "batch/images").iterdir())), rows("batch/batch.csv")(folder))),
}  # fmt: skip


def prepare(folder: Path) -> list[tuple[str, ...]]:
    """Write what the commands need, and return the commands that make the rest."""
    for name, content in (("recipe", RECIPE), ("sweep", SWEEP), ("loop", LOOP)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (folder / "some.csv").write_text("index\n" + "\n".join(map(str, range(0, 20, 2))) + "\n")
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(folder / "image.png")
    (folder / "made_by_hand.py").write_text(MODEL)
    seen = cheats.write(folder / "seen", swapped=False, count=8, seed=0)
    scope: dict[str, Any] = {}
    exec(MODEL, scope)
    torch.manual_seed(0)
    save_file(scope["make"]().state_dict(), folder / "hand.safetensors")
    named = sorted(file.relative_to(folder) for file in (seen / "images").rglob("*.png"))
    (folder / "images.csv").write_text("path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in named))
    rating = VERBS["rate"].arguments
    return [
        ("train", "recipe.yaml", "--output", "run"),
        ("train", "recipe.yaml", "train_samples=some.csv", "--output", "less"),
        (*TABLE, "-o", "made"),
        (*(each if each != "rating" else "rated" for each in rating),),
    ]
