"""Which guide fits the annotation at hand, and the command that trains with it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline._core.strict import apply_overrides, override_text

MASKS = "masks"  # the folder that masks made of boxes go to
BASE = "demo-cross-entropy"  # the shipped recipe whose every particular is replaced

# What each guide needs beside images and labels, and what it does with it; the first is the one to begin with.
GUIDES_FOR: dict[str, tuple[tuple[str, str], ...]] = {
    "masks": (
        ("random_background", "puts the objects on each other's backgrounds; no explanation takes part. Try it first."),
        ("segment_overlap", "makes the Grad-CAM map of the true class overlap the mask."),
        ("attention_gate", "lets the classifier see what a mask-supervised gate lets through."),
        ("adversarial_background", "trains against the backgrounds that are worst for the model."),
    ),
    "boxes": (
        ("region_activation", "pulls the region of the map into the box."),
        ("energy", "raises the share of the map's energy inside the box."),
    ),
    "none": (
        ("explanation_consistency", "needs no annotation: the map must stay the same when the image is disturbed."),
    ),
}


@dataclass(frozen=True)
class TrainingConfig:
    """What a run is to be trained on, as a recipe says it.

    Attributes:
        data: name and options of the data set; None where it came from Python.
        model: name and, where given, weights and layer; None likewise.
        size: side of the input in pixels.
        recipe: a recipe file that already says all this, such as a run's own.
        boxes: a file of the objects' boxes, of which masks are to be made first; only a data set "folder" can take them.
    """

    data: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None
    size: int = 224
    recipe: str | None = None
    boxes: str | None = None


@dataclass(frozen=True)
class Recommendation:
    """One guide to train with.

    Attributes:
        guide: its registered name.
        why: what it does.
        arguments: of `sightline train`; empty where the data or the model is not known by name.
        first: the command to give before; empty = none.
    """

    guide: str
    why: str
    arguments: list[str]
    first: str = ""

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(["sightline", "train", *self.arguments]) if self.arguments else ""


def recommend_guides(kind: str, boxed: bool, training: TrainingConfig | None) -> list[Recommendation]:
    """The guides that fit an annotation, the one to begin with first.

    Args:
        kind: of the annotation that was used: "masks", "boxes", "grabcut" or "saliency".
        boxed: whether the data set has boxes.
        training: what is to be trained; None = no commands.
    """
    at_hand = "masks" if kind == "masks" else "boxes" if kind == "boxes" or boxed else "none"
    first = _masks_command(training) if training is not None and training.boxes is not None else ""
    return [Recommendation(guide, why, _arguments(guide, training), first) for guide, why in GUIDES_FOR[at_hand]]


def _arguments(guide: str, training: TrainingConfig | None) -> list[str]:
    if training is None:
        return []
    if training.recipe is not None and training.boxes is None:
        return [training.recipe, f"name={guide}", f"guide={guide}"]
    if training.data is None or training.model is None:
        return []
    data = dict(training.data)
    if training.boxes is not None:
        if data["name"] != "folder":
            return []
        data["masks"] = MASKS
    changes: dict[str, Any] = {
        "name": guide,
        "guide": guide,
        "data": data,
        "model": training.model,
        "image_size": training.size,
        "augment": {"crop": 0.5},
        "stages": [{"epochs": 10, "lr": 0.0003}],
        "evaluation": {"splits": None},
    }
    return [
        BASE,
        *(override_text(key, value) for key, value in changes.items()),
    ]


def _masks_command(training: TrainingConfig) -> str:
    """The command that makes masks of boxes, by GrabCut."""
    if training.data is None or training.boxes is None or training.data["name"] != "folder":
        return ""
    options = [override_text(key, value) for key, value in training.data.items() if key != "name"]
    return shlex.join(["sightline", "masks", "folder", *options, "--boxes", training.boxes, "-o", MASKS])


def read_training(
    run: Path | None,
    data: str | None,
    options: Sequence[str],
    model: str | None,
    weights: str | None,
    layer: str | None,
    size: int,
    boxes: Path | None = None,
) -> TrainingConfig:
    """What a run would be trained on, from the options of a command.

    Args:
        run: a run's folder, whose recipe says all; None = what follows does.
        data: the data set's name; None = the run's.
        options: its `key=value` options.
        model: the model's name.
        weights: its weights.
        layer: its target layer.
        size: side of the input in pixels.
        boxes: a file of the objects' boxes.
    """
    file = None if boxes is None else str(boxes)
    if run is not None and data is None and not options:
        return TrainingConfig(recipe=str(run / "recipe.yaml"), size=size, boxes=file)
    if data is None or model is None:
        return TrainingConfig(size=size)
    values: dict[str, Any] = {"name": data}
    apply_overrides(values, options)
    return TrainingConfig(data=values, model={"name": model, "weights": weights, "layer": layer}, size=size, boxes=file)
