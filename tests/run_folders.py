"""Run folders made up for the tests, in the format that training and evaluation write."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from sightline.runs import Recipe, Run


def begin_run(
    path: Path,
    model: str,
    classes: Sequence[str],
    side: int,
    *,
    layer: str | None = None,
    **changes: Any,
) -> Run:
    """Begin a run that trains nothing: its recipe and its record, without a checkpoint."""
    stages = [{"epochs": 1, "lr": 0.1}]
    keys = {"name": path.name, "data": "digits", "model": {"name": model, "layer": layer}, "stages": stages}
    facts = {
        "model": {"name": model, "layer": layer},
        "classes": list(classes),
        "input_spec": {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [side, side]},
    }
    run = Run(path)
    run.begin(Recipe(**(keys | changes)), facts)
    return run


EXPLAINERS = ("gradcam", "eigencam", "randomcam", "gaussian")
CLASSES = ["Abyssinian", "beagle", "pug"]
GROUPS = [f"{a} on {b}'s scene" for a in CLASSES for b in CLASSES]


def write_run(
    path: Path,
    *,
    name: str = "run",
    seed: int = 0,
    guide: dict[str, Any] | None = None,
    classes: Sequence[str] = CLASSES,
    splits: Sequence[str] = ("test",),
    n: int = 60,
    skill: float = 0.6,
    focus: float = 1.0,
    explainers: Sequence[str] = EXPLAINERS,
    correct: Sequence[int] | None = None,
    side: int = 48,
    masks: bool = True,
    **info: Any,
) -> Path:
    """Write one run.

    Args:
        skill: accuracy that predictions are drawn at, unless `correct` says which images are right.
        focus: how tightly the maps of the methods that look at the image gather on the object.
    """
    path.mkdir(parents=True)
    model = {"name": "sightline/small_cnn", "weights": None, "layer": None}
    recipe = {"name": name, "seed": seed, "data": {"name": "digits"}, "model": model, "guide": guide, "batch_size": 16}
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    facts = {
        "name": name,
        "seed": seed,
        "status": "finished",
        "versions": {"python": "3.12.1", "torch": "2.9.0", "sightline": "0.1.0"},
        "git": {"commit": "0123abc", "dirty": False},
        "hardware": {"device": "x86_64", "processes": 1, "cpus": 2, "threads": 2},
        "command": f"sightline train {name}.yaml seed={seed}",
        "classes": list(classes),
        "group_names": GROUPS,
        "input_spec": {"mean": [0.5], "std": [0.5], "size": [side, side]},
        "model": {"name": model["name"], "layer": "stages.3"},
        "guide": guide["name"] if guide else "none",
        "data": {"name": "digits"},
        "steps": 640,
        "images_seen": 10240,
        "seconds": 71.5,
        "started": "2026-01-01T10:00:00Z",
        "finished": "2026-01-01T10:01:11Z",
    }
    (path / "run.json").write_text(json.dumps(facts | info))
    _write_history(path / "metrics.csv", seed, skill, splits, guide)
    for split in splits:
        _write_evaluation(
            path / "evaluation" / split, split, seed, n, skill, focus, explainers, correct, side, masks, classes
        )
    return path


def _write_history(path: Path, seed: int, skill: float, splits: Sequence[str], guide: dict[str, Any] | None) -> None:
    random = np.random.default_rng(seed)
    columns = ["epoch", "stage", "step", "lr", "seconds", "train/loss", "train/task", "train/accuracy", "val/accuracy"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns + (["train/segment_overlap"] if guide else []))
        for epoch in range(12):
            fall = float(np.exp(-epoch / 4)) + 0.05 * random.random()
            row = [epoch, 0, 53 * (epoch + 1), 0.001, 6.0, fall, fall, 1 - 0.7 * fall, skill * (1 - 0.6 * fall)]
            writer.writerow(row + ([0.8 * fall] if guide else []))


def _write_evaluation(
    folder: Path, split: str, seed: int, n: int, skill: float, focus: float, explainers: Sequence[str],
    correct: Sequence[int] | None, side: int, masks: bool, classes: Sequence[str],
) -> None:  # fmt: skip
    folder.mkdir(parents=True)
    random = np.random.default_rng([seed, len(split), round(100 * skill)])
    scenes = np.random.default_rng(len(split))
    labels = np.arange(n) % len(classes)
    scene = scenes.integers(3, size=n)
    right = (
        np.asarray(correct)
        if correct is not None
        else (random.random(n) < skill - 0.15 * (labels != scene)).astype(int)
    )
    predicted = np.where(right, labels, (labels + 1) % len(classes))
    columns: dict[str, list[Any]] = {
        "index": list(range(n)), "path": [f"{split}/{i}.jpg" for i in range(n)], "label": labels.tolist(),
        "predicted": predicted.tolist(), "probability": random.uniform(0.4, 1, n).round(4).tolist(),
        "correct": right.tolist(), "group": (3 * (labels % 3) + scene).tolist(),
    }  # fmt: skip
    maps, energies = _maps(scenes, random, n, focus, explainers, side)
    for explainer in explainers:
        columns[f"energy_in_mask@{explainer}"] = energies[explainer] if masks else [""] * n
        columns[f"insertion@{explainer}"] = (0.5 * right + 0.3 * random.random(n)).round(4).tolist()
    with (folder / "samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))
    in_group = np.array(columns["group"])
    worst = min(right[in_group == g].mean() for g in np.unique(in_group))
    results = [("accuracy", None, float(right.mean())), ("worst_group_accuracy", None, float(worst))]
    for explainer in explainers:
        for metric in ("energy_in_mask", "insertion"):
            values = columns[f"{metric}@{explainer}"]
            results.append((metric, explainer, float(np.mean(values)) if values[0] != "" else None))
    unused = {"low": None, "high": None, "n": n}
    rows = [{"metric": m, "explainer": e, "value": v, "higher_is_better": True} | unused for m, e, v in results]
    summary = {
        "split": split,
        "n": n,
        "checkpoint": "checkpoints/last.safetensors",
        "model_fingerprint": "ab",
        "seed": 0,
    }
    (folder / "summary.json").write_text(json.dumps(summary | {"results": rows}))
    steps = np.linspace(0, 1, 225)
    curves: dict[str, Any] = {}
    for explainer in explainers:
        power = 1.0 if explainer in ("randomcam", "gaussian") else 1 / (1 + focus)
        curves[explainer] = {
            "insertion": {"at": steps.tolist(), "score": (0.1 + 0.8 * steps**power).tolist()},
            "deletion": {"at": steps.tolist(), "score": (0.9 - 0.8 * steps**power).tolist()},
        }
    (folder / "curves.json").write_text(json.dumps(curves))
    _write_gallery(folder / "gallery", split, min(n, 24), maps, side, masks)


def _object(side: int, i: int) -> tuple[np.ndarray, float, float]:
    y, x = np.mgrid[:side, :side] / side
    cy, cx = 0.35 + 0.3 * ((i * 7) % 5) / 4, 0.35 + 0.3 * ((i * 3) % 5) / 4
    return ((y - cy) ** 2 + (x - cx) ** 2 < 0.04), cy, cx


def _maps(
    scenes: np.random.Generator, random: np.random.Generator, n: int, focus: float, explainers: Sequence[str], side: int
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    y, x = np.mgrid[:12, :12] / 12
    maps: dict[str, np.ndarray] = {}
    energies: dict[str, list[float]] = {}
    for explainer in explainers:
        stack = []
        energies[explainer] = []
        for i in range(n):
            mask, cy, cx = _object(side, i)
            if explainer == "gaussian":
                cy = cx = 0.5
            elif explainer == "randomcam":
                cy, cx = random.random(2)
            else:
                cy, cx = np.array([cy, cx]) + random.normal(0, 0.3 / focus, 2)
            heat = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.06)
            heat = (heat - heat.min()) / (heat.max() - heat.min())
            stack.append((255 * heat).round().astype(np.uint8))
            large = np.kron(heat, np.ones((side // 12, side // 12)))
            energies[explainer].append(round(float(large[mask].sum() / large.sum()), 6))
        maps[explainer] = np.stack(stack)
    return maps, energies


def _write_gallery(folder: Path, split: str, count: int, maps: dict[str, np.ndarray], side: int, masks: bool) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    save_file(
        {"index": torch.arange(count)} | {name: torch.from_numpy(m[:count].copy()) for name, m in maps.items()},
        folder / "maps.safetensors",
    )
    for i in range(count):
        mask, *_ = _object(side, i)
        y, x = np.mgrid[:side, :side] / side
        pixels = np.stack([0.3 + 0.4 * x, 0.5 + 0.2 * np.sin(9 * y + i), 0.4 + 0.3 * y], -1)
        pixels[mask] = [0.85, 0.6, 0.3 + 0.05 * (i % 5)]
        Image.fromarray((255 * pixels).astype(np.uint8)).save(folder / "images" / f"{i}.jpg", quality=95)
        if masks:
            Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{i}.png")
