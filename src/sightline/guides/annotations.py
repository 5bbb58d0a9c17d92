"""Whether the training images have what the guides need."""

import warnings

import torch
from torch import Tensor

from sightline.data.dataset import ImageDataset, Sample
from sightline.errors import SightlineError
from sightline.guides.group_dro import GroupDRO
from sightline.objectives.base import Guide, Need
from sightline.objectives.objective import Objective
from sightline.regions.batch_regions import SOURCES

FEW = 0.1  # the share of annotated images below which a warning gives the counts

REMEDIES: dict[Need, str] = {
    "masks": "Give the data set masks (`sightline masks` finds some)",
    "boxes": "Give the data set boxes (`sightline boxes` finds some)",
    "avoid": "Give the data set regions to avoid (the option or column `avoid` of your own images; `marked` makes some)",
    "maps": "Give stored maps, by `maps:` in the recipe (`sightline explain --store` makes some)",
    "groups": "Choose a data set with groups",
}


def check_annotations(objective: Objective, images: ImageDataset, *, maps: bool = False) -> None:
    """Reject a guide that would do nothing, because no training image has what it needs; warn if few have.

    Masks, boxes and regions to avoid are read until one holds an object, or something to avoid.

    Args:
        objective: the model with its guides; a guide of weight 0 needs nothing.
        images: the training images.
        maps: whether stored maps go with them.

    Raises:
        SightlineError: no image has what a guide needs, or the data has more groups than the guide was made for.
    """
    for guide, weight in zip(objective.guides, objective.weights):
        if not isinstance(guide, Guide) or guide.needs is None or weight == 0:
            continue
        name, need, total = type(guide).__name__, guide.needs, len(images)
        places = _annotated(images, need, maps).nonzero()[:, 0].tolist()
        if not places:
            raise SightlineError(
                f"{name} needs {need}, and none of the {total} training images has any, so it would do nothing. "
                f"{REMEDIES[need]}, or train without this guide"
            )
        if need in SOURCES and not any(_shows_object(images[place], need) for place in places):
            raise SightlineError(
                f"{name} needs {need}, and those of the {total} training images are all empty"
                f"{' or cover the whole image' if need == 'avoid' else ''}, so it would do nothing. Check the annotation, or "
                "train without this guide"
            )
        if isinstance(guide, GroupDRO) and guide.groups < len(images.groups):
            raise SightlineError(f"groups of {name} is {guide.groups}; expected {len(images.groups)}, as the data has")
        if len(places) < FEW * total:
            warnings.warn(
                f"{name} needs {need}, which {len(places)} of the {total} training images have; it does nothing for the "
                "others",
                stacklevel=2,
            )


def _annotated(images: ImageDataset, need: Need, maps: bool) -> Tensor:
    """Which images (N,) have what is needed, as the data set states."""
    all_of_them = {"maps": maps, "groups": images.group_ids is not None}
    if need in all_of_them:
        return torch.full((len(images),), all_of_them[need])
    return {"masks": images.has_mask, "boxes": images.has_boxes, "avoid": images.has_avoid}[need]


def _shows_object(sample: Sample, need: Need) -> bool:
    if need == "avoid":
        return sample.avoid is not None and all(bool((sample.avoid == value).any()) for value in (0, 1))
    if need == "masks":
        return sample.mask is not None and bool((sample.mask == 1).any())
    return sample.boxes is not None and bool((sample.boxes[:, 2:] > sample.boxes[:, :2]).all(1).any())
