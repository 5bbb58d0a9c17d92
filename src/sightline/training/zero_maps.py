"""Saliency maps that are zero everywhere: a guide has no gradient there."""

import warnings
from collections.abc import Mapping

from sightline.errors import RunFailedError

WARNED_SHARE = 0.1  # of the images of an epoch; below it, zero maps are ordinary
CURE = (
    "The guide has no gradient there. Take another target layer or explainer, a larger share of the cross-entropy, or a "
    "lower learning rate"
)


class ZeroMapCheck:
    """Warns once of a guide whose maps are zero for many images, and stops a training in which all are for an epoch."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def check(self, values: Mapping[str, float], images: int, epoch: int) -> None:
        """Look at an epoch's values.

        Args:
            values: of all processes; `n/<guide>/zero_maps` counts images.
            images: that were seen in the epoch.
            epoch: from 1.

        Raises:
            RunFailedError: every image's map is zero.
        """
        for name, count in values.items():
            guide = name.removeprefix("n/").removesuffix("/zero_maps")
            if name != f"n/{guide}/zero_maps":
                continue
            share = f"{count:.0f} of {images} images ({count / images:.0%})"
            told = f"{guide}: in epoch {epoch}, the saliency maps of {share} are zero"
            if count >= images:
                raise RunFailedError(f"{told}. {CURE}")
            if count >= WARNED_SHARE * images and guide not in self._warned:
                self._warned.add(guide)
                warnings.warn(f"{told}. {CURE}", stacklevel=2)
