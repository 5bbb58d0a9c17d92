"""Which images the slow metrics see, and the images that are kept with their maps."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sightline._core.seeding import generator
from sightline.data.batch import class_masks
from sightline.errors import SightlineError
from sightline.evaluation.result import SavedImages
from sightline.explainers import resize_maps
from sightline.metrics import Observation


def nested_subset(total: int, size: int, key: str) -> Tensor:
    """Return a random subset (total,) bool that contains every smaller one of the same key."""
    if size < 0:
        raise SightlineError(f"a subset of {size} images was asked for; expected 0 or more")
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.randperm(total, generator=generator(key, total))[:size]] = True
    return chosen


def to_bytes(values: Tensor) -> Tensor:
    """Return values in [0, 1] as uint8."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def energy_on_object(saliency: Tensor, mask: Tensor) -> float:
    """Return the share of a kept map's sum that is on the object; NaN without an object or for an empty map.

    Args:
        saliency: (h, w) uint8.
        mask: (H, W) bool, or uint8 with 0, 1 and 255. Pixels of 255 do not count.
    """
    heat = resize_maps(saliency[None].float(), (mask.shape[-2], mask.shape[-1]))[0]
    known = heat[mask != 255].sum()
    return float(heat[mask == 1].sum() / known) if known > 0 and bool((mask == 1).any()) else math.nan


def describe_images(observation: Observation, indices: Tensor) -> dict[str, Tensor]:
    """Return what is kept of a batch in addition to its maps."""
    kept = {"index": indices, "images": to_bytes(observation.require("images"))}
    if observation.masks is None:
        kept["has_mask"] = torch.zeros(len(indices), dtype=torch.bool)
        return kept
    masks = class_masks(observation.masks, observation.require("targets"))
    kept["masks"] = (masks >= 0.5).to(torch.uint8) if masks.is_floating_point() else masks
    kept["has_mask"] = (
        torch.ones(len(indices), dtype=torch.bool) if observation.has_mask is None else observation.has_mask
    )
    return kept


def concatenate(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the columns that all batches have, over all images."""
    shared = [name for name in batches[0] if all(name in batch for batch in batches)]
    return {name: torch.cat([batch[name] for batch in batches]) for name in shared}


def collect_images(batches: Sequence[Mapping[str, Tensor]]) -> SavedImages | None:
    """Return the kept images in the order of their indices; None if there are none."""
    if not batches:
        return None
    whole = concatenate(batches)
    order = whole["index"].argsort()
    whole = {name: value[order] for name, value in whole.items()}
    maps = {name.removeprefix("maps/"): value for name, value in whole.items() if name.startswith("maps/")}
    return SavedImages(whole["index"], whole["images"], whole.get("masks"), whole["has_mask"], maps)
