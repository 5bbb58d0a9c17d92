"""P-ClArC by PEAL's code, on the features of the frozen network: directions of the stamps are projected out of them.

An artifact of PEAL is present or absent, and its direction is learned from the images of one class. Here every class has one,
its own stamp. So there are three corrections; each is learned on features that the ones before it have corrected.
"""

import torch
from peal.adaptors.clarc import CavProjection, calculate_cav
from torch import nn

import efficientnet
from protocol import CLASSES
from task import Task


def train(task: Task, projection: str, strength: float) -> nn.Module:
    """Train the last layer by cross-entropy, and put the corrections before it; PEAL's default trains nothing after them."""
    rows, loss, corrections = task.rows, efficientnet.cross_entropy, []
    head = efficientnet.fit(task.make(task.seed), rows, task.rate, loss, task.seed, task.batch, task.epochs)
    pooled = rows.pooled
    for label in range(len(CLASSES)):
        of_class = rows.targets == label
        stamped = (rows.contexts[of_class] == label).float()
        torch.manual_seed(task.seed)
        direction = calculate_cav(pooled[of_class], stamped, projection).to(pooled.dtype)
        correction = CavProjection(pooled[of_class], stamped, direction, correction_strength=strength)
        pooled = correction(pooled)
        outer = correction.cav @ correction.cav.T
        corrections.append(efficientnet.linear(torch.eye(len(outer)) - outer, correction.z[0]))
    return efficientnet.corrected([*corrections, head])
