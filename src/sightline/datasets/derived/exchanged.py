"""Validation images with exchanged backgrounds, to choose models by.

A validation that shares a shortcut with the training images chooses the shortcut.
"""

from collections.abc import Mapping
from typing import Any, Literal

from sightline._core.checks import check_choice
from sightline.data.dataset import ImageDataset
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.datasets.derived.variants import BackgroundVariant, MaskedImages
from sightline.errors import SightlineError
from sightline.regions.backgrounds import Fill

Exchange = Literal["mixed_rand", "mixed_next"]


@DATASETS.register("exchanged", masks="some", groups=True)
def exchanged(
    source: Mapping[str, Any],
    *,
    variant: Exchange = "mixed_rand",
    size: int = 256,
    fill: Fill = "tile",
    seed: int = 0,
) -> Splits:
    """Any data set with masks, and for each validation split another one with exchanged backgrounds, such as "val_exchanged".

    A recipe chooses by it with `save_best: {metric: val_exchanged/accuracy}`. The split has the validation images that hold an
    object and a background. Each object stands on the background of another validation image, so no training image and no
    test image has a part in the choice. Groups are pairs (class, class of the background), of which
    `val_exchanged/worst_group_accuracy` is the worst. Masks may be found ones, by the data set "masked".

    Args:
        source: `name` and options of a registered data set with a split whose name begins with "val".
        variant: "mixed_rand": the background of any class with equal chances, which tells nothing of the object's class;
            "mixed_next": always that of the next class.
        size: see `MaskedImages`, as are the other options.
        fill: see `MaskedImages`.
        seed: of whose background an image gets.

    Raises:
        SightlineError: the source has no validation split, its validation images have too few masks, or a value is wrong.
    """
    check_choice(Exchange, variant=variant)
    splits = DATASETS.create_source(source)
    found = [name for name in splits if name.startswith("val")]
    if not found:
        raise SightlineError(
            f"the source {source['name']!r} has the splits {', '.join(splits)}; expected one whose name begins with 'val'"
        )
    derived: dict[str, ImageDataset] = {}
    for name in found:
        squares = MaskedImages(splits[name], size=size, fill=fill, seed=seed)
        derived[f"{name}_exchanged"] = BackgroundVariant(squares, variant)
    return Splits(splits | derived)
