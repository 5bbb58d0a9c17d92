"""The guides to train with, and the commands that do it: with masks, with masks made in boxes, or with masks that are found.

Advice follows docs/results/guides.md: exchanged backgrounds come first with every kind of mask, and rectangles are worth less
than masks that are made in them.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

from sightline._core.strict import apply_overrides, override_text
from sightline.data import DATASETS
from sightline.runs.recipe import Recipe
from sightline.runs.run import Run

MASKS = "found-masks"  # the folder of masks that are made first
BASE = "demo-cross-entropy"  # the shipped recipe whose every particular is replaced

MASK_GUIDES = (
    (
        "random_background",
        "puts each object on the background of another image. It uses no saliency maps. Try it first.",
    ),
    ("segment_overlap", "makes the Grad-CAM map of the true class overlap the mask."),
    ("attention_gate", "multiplies the features by an attention map that is trained to equal the mask."),
)
WITHOUT_MASKS = (
    "explanation_consistency",
    "needs no masks: images whose map changes when the image is disturbed get more weight. It does not exchange backgrounds.",
)
FOR_MARKS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("l1", {"weight": 10}, "penalizes the Grad-CAM map of the true class in the regions to avoid."),
    ("random_background", {}, "replaces the content of the regions to avoid."),
)
BY_SOURCE = {
    "boxes": " The masks are made by GrabCut in the boxes.",
    "center": " The masks are found by GrabCut around the center of each image, without any annotation.",
}


@dataclass(frozen=True)
class TrainingConfig:
    """What a run is to be trained on, as a recipe says it.

    Attributes:
        data: name and options of the data set; None where it came from Python.
        model: name and, where given, weights and layer; None likewise.
        size: side of the input in pixels.
        recipe: a recipe file that already says all but the data, such as a run's own.
        boxes: a file of the objects' boxes, of which masks are to be made first.
        guides: names of the guides that the model was trained with.
        given: how the model sees images as a command was told: size, mean and std (numbers), classes (a file).
    """

    data: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None
    size: int = 224
    recipe: str | None = None
    boxes: str | None = None
    guides: frozenset[str] = field(default_factory=frozenset)
    given: Mapping[str, Any] = field(default_factory=dict)

    def without_unreadable(self) -> "TrainingConfig":
        """Return the same with the option that leaves out images that cannot be read, where the dataset has it."""
        if self.data is None or "skip_corrupt" not in signature(DATASETS[self.data["name"]].factory).parameters:
            return self
        return replace(self, data={**self.data, "skip_corrupt": True})


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


def recommend_guides(
    kind: str, boxed: bool, training: TrainingConfig | None, marked: bool = False
) -> list[Recommendation]:
    """Return the recommended guides, best first, without those that the model was trained with.

    Args:
        kind: of the annotation that was used: "masks", "boxes", "grabcut" or "saliency".
        boxed: whether the data set has boxes.
        training: what is to be trained; None = no commands.
        marked: whether the model leans on what it should avoid.
    """
    training = training or TrainingConfig()
    if marked:
        return [
            Recommendation(guide, why, _arguments(guide, training, training.data, {"region": "avoid", **more}))
            for guide, more, why in FOR_MARKS
        ]
    options = training.data or {}
    boxes = training.boxes or options.get("boxes")
    if kind == "masks" or options.get("name") == "found_masks":
        source = "masks"
    elif isinstance(boxes, str) or (boxed and training.data is None):
        source = "boxes"
    else:
        source = "center"
    found, first = training.data, ""
    if source != "masks" and training.data is not None:
        found = {"name": "found_masks", "source": dict(training.data), "masks": MASKS}
        first = _masks_command(training.data, boxes if source == "boxes" else None)
    given = [
        Recommendation(guide, why + BY_SOURCE.get(source, ""), _arguments(guide, training, found), first)
        for guide, why in MASK_GUIDES
    ]
    if source == "center":
        guide, why = WITHOUT_MASKS
        given.append(Recommendation(guide, why, _arguments(guide, training, training.data)))
    return [each for each in given if each.guide not in training.guides]


def fix_command(kind: str, training: TrainingConfig | None, marked: bool = False) -> str:
    """Return the `sightline fix` command for a model and a folder that are known by name; "" for others.

    Args:
        kind: of the annotation that was used: "masks", "boxes", "grabcut" or "saliency".
        training: the model and the folder.
        marked: whether the model leans on what it should avoid.
    """
    if training is None or training.model is None or training.data is None or training.data.get("name") != "folder":
        return ""
    data, boxes = training.data, training.boxes or training.data.get("boxes")
    options: dict[str, Any] = {
        "model": training.model["name"], "weights": training.model.get("weights"), **training.given, "data": data.get("root"),
        "masks": data.get("masks") if kind == "masks" else None,
        "boxes": boxes if kind != "masks" else None, "avoid": data.get("avoid") if marked else None,
    }  # fmt: skip
    texts = {
        key: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in options.items()
        if value is not None
    }
    words = [word for key, text in texts.items() for word in (f"--{key}", text)]
    found = [] if any(options[key] is not None for key in ("masks", "boxes", "avoid")) else ["--found"]
    return shlex.join(["sightline", "fix", *words, *found, "-o", "fixed"])


def _arguments(
    guide: str, training: TrainingConfig, data: Mapping[str, Any] | None, more: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the arguments of `sightline train`, with options of the guide; empty if they are not known."""
    value = guide if more is None else {"name": guide, **more}
    if training.recipe is not None and data is not None:
        changes: dict[str, Any] = {"name": guide, "guide": value, "data": data}
        return [training.recipe, *(override_text(key, value) for key, value in changes.items())]
    if data is None or training.model is None:
        return []
    changes = {
        "name": guide,
        "guide": value,
        "data": data,
        "model": training.model,
        "image_size": training.size,
        "augment": {"crop": 0.5},
        "stages": [{"epochs": 10, "lr": 0.0003}],
        "evaluation": {"splits": None},
    }
    return [BASE, *(override_text(key, value) for key, value in changes.items())]


def _masks_command(data: Mapping[str, Any], boxes: str | None) -> str:
    """Return the command that makes masks of the training images, in boxes or around the center."""
    options = [override_text(key, value) for key, value in data.items() if key != "name"]
    prompts = ["--center"] if boxes is None else ["--boxes", boxes]
    return shlex.join(["sightline", "masks", data["name"], *options, *prompts, "-o", MASKS])


def read_training(
    run: Path | None,
    data: str | None,
    options: Sequence[str],
    model: str | None,
    weights: str | None,
    layer: str | None,
    size: int,
    boxes: Path | None = None,
    given: Mapping[str, Any] | None = None,
) -> TrainingConfig:
    """Read what a run would be trained on, from the options of a command.

    Args:
        run: a run's folder, whose recipe says what the other arguments leave open.
        data: the data set's name; None = the run's.
        options: its `key=value` options.
        model: the model's name.
        weights: its weights.
        layer: its target layer.
        size: side of the input in pixels.
        boxes: a file of the objects' boxes.
        given: the options size, mean, std (numbers) and classes (a file), where they were given.
    """
    file = None if boxes is None else str(boxes)
    if run is not None:
        recipe = Run.open(run).recipe
        values = {"name": recipe.data.name, **recipe.data.options} if data is None else {"name": data}
        apply_overrides(values, options)
        return TrainingConfig(values, None, size, str(run / "recipe.yaml"), file, _guides(recipe))
    if data is None or model is None:
        return TrainingConfig(size=size)
    values = {"name": data}
    apply_overrides(values, options)
    known = {key: value for key, value in (given or {}).items() if value is not None}
    of_model = {key: value for key, value in known.items() if key != "size"}
    return TrainingConfig(
        values, {"name": model, "weights": weights, "layer": layer, **of_model}, size, boxes=file, given=known
    )


def _guides(recipe: Recipe) -> frozenset[str]:
    """Return the names of all guides of a recipe."""
    names = set()
    for guide in (recipe.guide, *(recipe.guide_of(stage) for stage in recipe.stages)):
        for one in guide if isinstance(guide, list) else [guide]:
            names.add(one.get("name") if isinstance(one, dict) else one)
    return frozenset(name for name in names if isinstance(name, str))
