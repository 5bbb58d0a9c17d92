"""Automatic feature reweighting by its authors' code: 80 % of the images train the last layer, 20 % train it again."""

import sys
from types import SimpleNamespace

import torch
from torch import nn

from protocol import PLACE
from task import Task

sys.path.insert(0, str(PLACE / "sources" / "afr"))

import losses
import optimizers
from utils.supervised_utils import get_last_layer_model, normalize_weights, rebalance_weights, take_step

import efficientnet

OPTIONS = SimpleNamespace(init_lr=0.01, momentum=0.0, weight_decay=0.0)
STEPS = 500  # these values are those of the authors' example for Waterbirds


def train(task: Task, gamma: float) -> nn.Module:
    """Train both stages. All draws of an image are in the same stage."""
    images = int(task.rows.order.max()) + 1
    order = torch.randperm(images, generator=torch.Generator().manual_seed(task.seed))
    in_second = torch.isin(task.rows.order, order[images * 4 // 5 :])
    first, second = (task.rows.take(rows.nonzero()[:, 0]) for rows in (~in_second, in_second))
    loss = efficientnet.cross_entropy
    before = efficientnet.fit(task.make(task.seed), first, task.rate, loss, task.seed, task.batch, task.epochs)
    with torch.no_grad():
        weights = losses.get_exp_weights(before(second.pooled), second.targets, gamma=gamma)
        weights = normalize_weights(rebalance_weights(weights, second.targets))
    start = before.weight.detach().clone(), before.bias.detach().clone()
    layer = get_last_layer_model(start)
    optimizer, criterion = optimizers.sgd_optimizer(layer, OPTIONS), losses.afr()
    for _ in range(STEPS):
        take_step(layer, (second.pooled, second.targets, weights), optimizer, criterion, None, start, 0.0, max_norm=1.0)
    return layer
