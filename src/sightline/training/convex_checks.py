"""What must hold before a head is fitted to its optimum; and the attention pooling that the model gets before training."""

import torch
import torch.nn.functional as F
from torch import nn

from sightline.data import Splits
from sightline.errors import SightlineError
from sightline.guides.afr import AFR
from sightline.guides.measured_weights import StageWeights
from sightline.models.gates import insert_pooling_gate
from sightline.models.pooling_place import pooling_place
from sightline.objectives.base import Guide
from sightline.objectives.objective import Objective
from sightline.runs.recipe import Recipe
from sightline.runs.stage import Stage
from sightline.training.frozen_features import last_layer

UNUSED = ("losses", "sample_weights", "attach")
"""What a guide does to a training by gradients."""


def prepare_heads(recipe: Recipe, splits: Splits, model: nn.Module) -> None:
    """Check the heads of stages with `fit: convex`, and put attention pooling into the model where one asks for it.

    It weighs all places equally until it is fitted, and no stage by gradients trains it unless its guide does.

    Raises:
        SightlineError: the model or the data does not allow what a stage asks for.
    """
    for number, stage in enumerate(recipe.stages):
        if stage.fit != "convex":
            continue
        key = f"stages.{number}"
        last_layer(model)
        _check_shown(splits, key)
        if recipe.label_smoothing and all(each.fit == "convex" for each in recipe.stages):
            raise SightlineError(f"label_smoothing is {recipe.label_smoothing}; expected 0 with {key}.fit: convex")
        if stage.strength == "auto" and stage.head.name != "prototype" and not _validation(splits):
            raise SightlineError(
                f"{key}.strength is 'auto', but {recipe.data.name!r} has no validation split to choose it by; give a number, "
                "such as 1.0"
            )
        if stage.head.name == "prototype":
            splits["train"].check_single_label(f"{key}.head: prototype")
            pooling_place(model)
        if stage.head.name != "linear":
            _check_objects(splits, stage, key)
        if stage.head.name == "attention_pooling":
            _, gate = insert_pooling_gate(model, stage.head.layer)
            gate.requires_grad_(False)


def check_convex_guides(stage: Stage, objective: Objective, key: str) -> None:
    """Reject guides that do more than change images, which a fit of the head has no use for."""
    if stage.fit != "convex":
        return
    for guide in objective.guides:
        if isinstance(guide, StageWeights):  # weights that are known before the fit
            _check_stage_weights(stage, guide, key)
            continue
        used = [name for name in UNUSED if getattr(type(guide), name) is not getattr(Guide, name)]
        if used:
            raise SightlineError(
                f"{key}.fit is 'convex', and the guide {type(guide).__name__} trains by gradients; expected guides that change "
                "images, such as random_background, or weigh them before, such as afr, or guide: null. For groups set "
                "balance_by: groups"
            )


def _check_stage_weights(stage: Stage, guide: StageWeights, key: str) -> None:
    if stage.balance_by is not None:
        raise SightlineError(
            f"{key}.balance_by and the guide {type(guide).__name__} both weigh images; leave out one of them"
        )
    if isinstance(guide, AFR) and guide.regularization:
        raise SightlineError(
            f"regularization of AFR is {guide.regularization}; expected 0 with {key}.fit: convex, whose penalty is strength"
        )


def _validation(splits: Splits) -> list[str]:
    return [name for name in splits if name.startswith("val")]


def _check_shown(splits: Splits, key: str) -> None:
    """Reject a class that no training image shows, or where images can have several, every one: its bias would be infinite."""
    images = splits["train"]
    labels = images.labels if images.multi_label else F.one_hot(images.labels, len(images.classes))
    counts = labels.sum(0)
    lacking = [name for name, count in zip(images.classes, counts.tolist()) if count in (0, len(images))]
    if lacking:
        raise SightlineError(
            f"{key}.fit is 'convex', and {len(lacking)} classes are shown by none or all of the {len(images)} training images, "
            f"such as {lacking[0]!r}; expected images with and without each class. Add images, or leave the classes out"
        )


def _check_objects(splits: Splits, stage: Stage, key: str) -> None:
    images = splits["train"]
    known = {"masks": images.has_mask, "boxes": images.has_boxes, "avoid": images.has_avoid}[stage.head.region]
    if not torch.as_tensor(known).any():
        needed = "regions to avoid" if stage.head.region == "avoid" else stage.head.region
        advice = "name their folder in data.avoid" if stage.head.region == "avoid" else "`sightline masks` finds some"
        raise SightlineError(
            f"{key}.head is {stage.head.name!r}, which needs {needed}, and none of the {len(images)} training "
            f"images has any; {advice}, or set head: linear"
        )
