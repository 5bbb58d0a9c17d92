"""Sightline's methods for the last layer, on the features that every method gets."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import efficientnet
import sightline as sl
from features import Rows, boxes_of, maps_of
from sightline.explainers import resize_maps
from sightline.explainers.cam import CAM, gradcam
from sightline.guides.energy import energy_loss, l1_loss
from sightline.heads import balanced_weights, choose_strength, fit_linear
from sightline.objectives.base import Guide
from task import Task

CLASSES, GROUPS = 3, 9
LOSSES = {"Energy": energy_loss, "L1": l1_loss}
STRENGTH = 0.1  # of the penalty where a trial tries something else


def train(task: Task, kind: str, **options: Any) -> nn.Module:
    """Train the last layer."""
    torch.manual_seed(task.seed)
    return KINDS[kind](task, **options)


def cross_entropy(task: Task, rate: float, epochs: int | None = None) -> nn.Module:
    loss = efficientnet.cross_entropy
    return efficientnet.fit(task.make(task.seed), task.rows, rate, loss, task.seed, task.batch, epochs or task.epochs)


def jtt(task: Task, upweight: float, first_epochs: int) -> nn.Module:
    first = cross_entropy(task, task.rate, first_epochs)
    guide = sl.create_guide("jtt", upweight=upweight)
    _measured(guide, first, task.rows)
    second = sl.Objective(nn.Sequential(nn.Flatten(), task.make(task.seed)), guide)
    return _guided(second, task, task.rate)


def dro(task: Task, rate: float, decay: float) -> nn.Module:
    guide = sl.GroupDRO(groups=GROUPS)
    objective = sl.Objective(nn.Sequential(nn.Flatten(), task.make(task.seed)), guide)
    return _guided(objective, task, rate, decay, balanced_weights(task.rows.groups))


def afr(task: Task, gamma: float) -> nn.Module:
    weights = _measured(sl.create_guide("afr", gamma=gamma), cross_entropy(task, task.rate), task.rows)
    return _fitted(task.rows, STRENGTH, weights)


def groups(task: Task, strength: float) -> nn.Module:
    return _fitted(task.rows, strength, balanced_weights(task.rows.groups))


def dfr(task: Task) -> nn.Module:
    """Half of the validation images train the last layer; the other half chooses the strength, as for SpuCo's DFR."""
    rows = task.held_out_rows
    first, second = (rows.take(torch.arange(start, len(rows), 2)) for start in (0, 1))
    weights = balanced_weights(first.groups)
    known = {"classes": CLASSES, "measure": "worst", "groups": second.groups, "weights": weights}
    strength, _ = choose_strength(first.pooled, first.targets, second.pooled, second.targets, **known)
    return _fitted(first, strength, weights)


def probe(task: Task, strength: float) -> nn.Module:
    return _fitted(task.rows, strength, None)


def guided(task: Task, loss: str, weight: float) -> nn.Module:
    """Train by cross-entropy and the energy or L1 loss on the Grad-CAM of the label, inside the box of the object."""
    split = f"train{task.seed}"
    data = TensorDataset(maps_of(task.name, split), task.rows.targets, boxes_of(task.name, split))
    total = partial(guided_loss, measure=LOSSES[loss], weight=weight, side=task.size)
    return efficientnet.fit(task.make(task.seed), data, task.rate, total, task.seed, task.batch, task.epochs)


def guided_loss(
    layer: nn.Module,
    maps: Tensor,
    labels: Tensor,
    boxes: Tensor,
    *,
    measure: Callable[[Tensor, Tensor, Tensor], Tensor],
    weight: float,
    side: int,
) -> Tensor:
    """Return the loss of a last layer on feature maps (B, F, h, w) of images of `side` pixels; an image may have no box."""
    network = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)
    tapped = sl.Tap(network, "0")(maps.float(), train=True)
    (found,) = CAM(gradcam).raw_maps(tapped, labels, create_graph=True)
    inside = _inside(boxes, side)
    known = inside.amax((1, 2))
    losses = measure(resize_maps(found, (side, side)), inside, 1 - inside)
    return nn.functional.cross_entropy(tapped.logits, labels) + weight * (losses * known).sum() / known.sum().clamp(
        min=1
    )


def _inside(boxes: Tensor, side: int) -> Tensor:
    """Return the pixels (B, side, side) inside boxes (B, 4) as left, top, right, bottom, ends exclusive."""
    places = torch.arange(side)
    across, down = ((boxes[:, n, None] <= places) & (places < boxes[:, n + 2, None]) for n in (0, 1))
    return (down[:, :, None] & across[:, None, :]).float()


def _fitted(rows: Rows, strength: float, weights: Tensor | None) -> nn.Linear:
    return efficientnet.linear(*fit_linear(rows.pooled, rows.targets, weights, strength=strength, classes=CLASSES))


def _batches(rows: Rows, places: Tensor) -> list[sl.Batch]:
    """Return batches whose images are features (B, F, 1, 1)."""
    return [
        sl.Batch(rows.pooled[n][..., None, None], rows.targets[n], groups=rows.groups[n], indices=n)
        for n in places.split(30)
    ]


def _measured(guide: Guide, layer: nn.Module, rows: Rows) -> Tensor:
    """Let a guide measure the weights (N,) of the rows by a trained layer, and return them."""
    objective = sl.Objective(nn.Sequential(nn.Flatten(), layer), guide)
    objective.on_stage_start(_batches(rows, torch.arange(len(rows))))
    return guide.weights


def _guided(
    objective: sl.Objective, task: Task, rate: float, decay: float = 0.0, draw: Tensor | None = None
) -> nn.Module:
    """Train by the objective; `draw` (N,) = how likely each row is drawn, None = each once in an epoch."""
    optimizer = torch.optim.Adam(objective.parameters(), rate, weight_decay=decay)
    objective.train()
    count = len(task.rows)
    for _ in range(task.epochs):
        places = torch.randperm(count) if draw is None else torch.multinomial(draw.float(), count, replacement=True)
        for batch in _batches(task.rows, places):
            optimizer.zero_grad()
            objective(batch)["loss"].backward()
            optimizer.step()
    return objective.unwrap_model()[1]


KINDS = {
    "cross_entropy": cross_entropy,
    "jtt": jtt,
    "dro": dro,
    "afr": afr,
    "groups": groups,
    "guided": guided,
    "dfr": dfr,
    "probe": probe,
}
