"""Model-Guidance's losses and attributions, in a loop for images with one label; the whole network or its last layer."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from protocol import PLACE
from task import Task

sys.path.insert(0, str(PLACE / "sources" / "Model-Guidance"))

import attribution_methods
import losses
import model_activators

import efficientnet
from features import box_of, boxes_of, maps_of

LAST_MAP = 4  # of timm's EfficientNet's children: the batch norm and activation before the pooling


def train(task: Task, loss: str, weight: float) -> nn.Module:
    """Train by cross-entropy and a localization loss on the Grad-CAM of the label, inside the box of the mask.

    The losses are summed over the images of a batch, as in the authors' loop; `weight` is that of their mean.
    """
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *args, **options: self  # the L1 loss moves its box to the GPU in any case
    localization = losses.get_localization_loss(loss)
    size, whole = (task.size, task.size), task.make(task.seed)
    attribute = attribution_methods.get_attributor(
        whole, "GradCam", localization.only_positive, localization.binarize, True, size, True
    )

    def guided(
        forward: Callable[[Tensor], tuple[Tensor, Tensor]], inputs: Tensor, labels: Tensor, boxes: Tensor
    ) -> Tensor:
        logits, features = forward(inputs)
        maps = attribute(features, logits, classes=labels).squeeze(1)
        total = sum(localization(each, [box]) for each, box in zip(maps, boxes.tolist()) if any(box))
        return nn.functional.cross_entropy(logits, labels) + weight / task.batch * total

    if not task.frozen:
        activator = model_activators.ResNetModelActivator(whole, LAST_MAP)

        def on_images(_: nn.Module, images: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
            boxes = torch.tensor([box_of(mask) or (0, 0, 0, 0) for mask in masks])
            return guided(activator, images, labels, boxes)

        data = efficientnet.augmented(task.images, task.name, task.size, masks=True)
        return efficientnet.fit(whole, data, task.rate, on_images, task.seed, task.batch, task.epochs)

    def on_maps(layer: nn.Module, maps: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
        maps = maps.float().requires_grad_()
        return guided(lambda given: (layer(given.mean((2, 3))), given), maps, labels, boxes)

    split = f"train{task.seed}"
    data = TensorDataset(maps_of(task.name, split), task.rows.targets, boxes_of(task.name, split))
    return efficientnet.fit(whole, data, task.rate, on_maps, task.seed, task.batch, task.epochs)
