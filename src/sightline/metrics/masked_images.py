"""What metrics share that change images by their masks."""

from typing import Any, ClassVar

from torch import Tensor

from sightline._core.tensors import check_pixels
from sightline.data.batch import class_masks
from sightline.errors import SightlineError
from sightline.metrics.base import ModelMetric
from sightline.metrics.observation import Observation


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
        change: What is done to the images, for the error where they lie outside [0, 1].
    """
    images = observation.require("images")
    check_pixels(images, change=change)
    masks = class_masks(observation.require("masks"), observation.require("labels"))
    if masks.shape != images[:, 0].shape:
        raise SightlineError(
            f"masks have shape {tuple(masks.shape)}; expected {tuple(images[:, 0].shape)}, as the images"
        )
    return masks
