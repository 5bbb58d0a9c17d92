"""Optimisers, and learning rates as pure functions of the step, so that nothing of them needs saving."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from sightline.training import recipe as r


def create_optimizer(config: r.Optimizer, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """The optimiser that a recipe describes, over these parameters."""
    if config.name == "sgd":
        return SGD(parameters, lr=lr, momentum=config.momentum, weight_decay=config.weight_decay)
    kind = {"adam": Adam, "adamw": AdamW}[config.name]
    return kind(parameters, lr=lr, weight_decay=config.weight_decay)


def rate(schedule: r.Schedule, step: int, steps: int, steps_an_epoch: int) -> float:
    """What the learning rate is multiplied by at a step of a stage.

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
