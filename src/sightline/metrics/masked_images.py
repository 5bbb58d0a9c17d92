"""What metrics share that change images by their masks."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from sightline._core.tensors import check_pixels, check_shape
from sightline.data.batch import class_masks
from sightline.data.batch_checks import check_labels, check_masks, check_masks_of_classes
from sightline.metric_base.base import ModelMetric
from sightline.metric_base.observation import Observation


class MaskedImageMetric(ModelMetric):
    """A metric of a model's answers to images whose object or background is changed."""

    needs_maps: ClassVar[bool] = False
    needs_masks: ClassVar[bool] = True

    def update(  # type: ignore[override]
        self,
        images: Tensor,
        labels: Tensor,
        masks: Tensor,
        has_mask: Tensor | None = None,
        indices: Tensor | None = None,
        **known: Any,
    ) -> None:
        """Take a batch.

        Args:
            images: (B, C, H, W) in [0, 1].
            labels: (B,) int64.
            masks: (B, H, W) or (B, K, H, W): uint8 with 0, 1 and 255 = ignore, or float in [0, 1].
            has_mask: (B,) bool, which images have one; None = all.
            indices: (B,) each image's place in its dataset, which keys draws; None = not known.
            **known: What else `Observation` names, such as `backgrounds`.
        """
        self.update_batch(
            Observation(
                images, labels=labels, masks=masks, has_mask=has_mask, indices=indices, scorer=self.scorer, **known
            )
        )


def label_masks(observation: Observation, change: str) -> Tensor:
    """Return the masks (B, H, W) of the labels, of images in [0, 1].

    Args:
        observation: The batch, with images, labels and masks.
        change: What is done to the images, for the error where they are outside [0, 1].
    """
    images = observation.require("images")
    check_pixels(images, change=change)
    masks, labels = observation.require("masks"), observation.require("labels")
    check_masks(masks, (len(images), *images.shape[2:]))
    check_labels(labels, len(images))
    check_masks_of_classes(masks, labels)
    if observation.has_mask is not None:
        check_shape(observation.has_mask, "has_mask", (len(images),), dtype=torch.bool)
    return class_masks(masks, labels)
