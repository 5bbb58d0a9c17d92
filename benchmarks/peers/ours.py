"""Sightline's own methods, by recipes on the exported files."""

from typing import Any

from torch import nn

import sightline as sl
from protocol import BATCH, CLASSES, DRAWS, EPOCHS, MODEL, WEIGHTS, augment_of
from sightline.runs import load_run
from task import Task


def train(task: Task, kind: str, **options: Any) -> nn.Module:
    """Train by a recipe, and return the network."""
    keys = RECIPES[kind](task, **options)
    recipe = sl.Recipe(**_common(task) | keys)
    run = sl.train(recipe, output=task.folder / "run", device="cpu")
    return load_run(run, "cpu").model


def _common(task: Task) -> dict[str, Any]:
    csv = task.set_folder / "training.csv"
    return {
        "name": "comparison",
        "seed": task.seed,
        "data": {"name": "csv", "path": str(csv.resolve()), "classes": list(CLASSES), "val": 0},
        "image_size": task.size,
        "model": {"name": MODEL, "weights": WEIGHTS},
        "guide": None,
        "batch_size": BATCH,
        "augment": augment_of(task.name, task.size),
        "cache_images": True,
    }


def _stage(rate: float) -> dict[str, Any]:
    return {"epochs": EPOCHS, "lr": rate}


def cross_entropy(task: Task, rate: float) -> dict[str, Any]:
    return {"stages": [_stage(rate)]}


def so_loss(task: Task, beta: float) -> dict[str, Any]:
    return {"stages": [_stage(task.rate)], "guide": {"name": "segment_overlap", "beta": beta}}


def exchanged(task: Task, probability: float) -> dict[str, Any]:
    return {"stages": [_stage(task.rate)], "guide": {"name": "random_background", "probability": probability}}


def guided(task: Task, loss: str, weight: float) -> dict[str, Any]:
    return {"stages": [_stage(task.rate)], "guide": {"name": loss.lower(), "weight": weight}}


def frozen(task: Task, head: str, strength: float) -> dict[str, Any]:
    """A head on the frozen network, with exchanged backgrounds in half of the passes."""
    shape: dict[str, Any] = {"name": head} if head == "linear" else {"name": head, "strength": 0.02}
    stage = {"fit": "convex", "passes": DRAWS, "strength": strength, "head": shape}
    return {"stages": [stage], "guide": {"name": "random_background", "probability": 0.5}}


RECIPES = {
    "cross_entropy": cross_entropy,
    "so_loss": so_loss,
    "exchanged": exchanged,
    "guided": guided,
    "frozen": frozen,
}
