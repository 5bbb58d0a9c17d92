"""Optimisers, and learning rates as pure functions of the step, so nothing of them needs saving."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from sightline.finetuning.depth import parameters_by_depth
from sightline.runs import recipe_parts, stage


def create_optimizer(
    config: recipe_parts.Optimizer, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float
) -> Optimizer:
    """Create the optimizer that a recipe describes, over these parameters or groups of them."""
    if config.name == "sgd":
        return SGD(parameters, lr=lr, momentum=config.momentum, weight_decay=config.weight_decay)
    kind = {"adam": Adam, "adamw": AdamW}[config.name]
    return kind(parameters, lr=lr, weight_decay=config.weight_decay)


def decayed_groups(
    model: nn.Module, trained: Iterable[nn.Parameter], lr: float, decay: float, inputs: Tensor | None = None
) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer whose learning rate decays by layer, from the classifier to the input.

    Args:
        model: its layers are counted by `parameters_by_depth`.
        trained: what is trained. Parameters outside the model, such as a guide's network, have the classifier's rate.
        lr: of the classifier.
        decay: the learning rate of each layer by that of the layer after it.
        inputs: images that the model takes; None = a black image of a usual size.

    Returns:
        One group a layer that is trained. `lr_scale` is what a schedule's learning rate is multiplied by.
    """
    layers = parameters_by_depth(model, inputs)
    depth = {parameter: number for number, layer in enumerate(layers) for parameter in layer}
    members: dict[int, list[nn.Parameter]] = {}
    for parameter in trained:
        members.setdefault(depth.get(parameter, len(layers) - 1), []).append(parameter)
    scales = {number: decay ** (len(layers) - 1 - number) for number in sorted(members)}
    return [{"params": members[number], "lr": lr * scale, "lr_scale": scale} for number, scale in scales.items()]


def rate(schedule: stage.Schedule, step: int, steps: int, steps_an_epoch: int) -> float:
    """Return the factor of the learning rate at a step of a stage.

    Args:
        schedule: its shape.
        step: optimiser steps that the stage has made, from 0.
        steps: of the whole stage.
        steps_an_epoch: for `step`, which counts in epochs.

    Returns:
        A factor in [0, 1]: the linear warm-up reaches 1 at its last step, and the shape runs over what remains.
    """
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.name == "cosine":
        return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
    if schedule.name == "step":
        return schedule.factor ** (step // steps_an_epoch // schedule.every)
    return 1.0
