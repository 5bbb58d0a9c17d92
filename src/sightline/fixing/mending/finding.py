"""Masks of objects, and regions to avoid, in images that nobody marked."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.progress import bar
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.transforms import resize_mask
from sightline.fixing.mending.fitting import shares
from sightline.heads import fit_attention
from sightline.localization.found_masks import SIDE, at_most, cut_out
from sightline.localization.image_maps import ExplainedMaps
from sightline.localization.prompts import Prompt, Prompter
from sightline.network.input_spec import InputSpec

CHUNK = 32


def cut_out_all(
    dataset: ImageDataset,
    places: Sequence[int],
    saliency: tuple[nn.Module, InputSpec] | None,
    progress: bool = False,
) -> dict[int, np.ndarray]:
    """Return masks by GrabCut, (h, w) uint8 with 1 = object.

    Args:
        dataset: the images.
        places: which of them.
        saliency: a network trained on other images, whose Grad-CAM for its own answer tells points of the object; None = the
            object is somewhere around the center.
        progress: show a bar.
    """
    prompter = None if saliency is None else Prompter(ExplainedMaps(*saliency, "gradcam"))
    found = {}
    with bar(progress, "find objects", len(places)) as advance:
        for start in range(0, len(places), CHUNK):
            samples = [at_most(dataset[index], SIDE) for index in places[start : start + CHUNK]]
            prompts: list[list[Prompt]] = [[] for _ in samples] if prompter is None else prompter(samples)
            for index, sample, some in zip(places[start:], samples, prompts):
                found[index] = cut_out(sample, some).numpy()
                advance(1)
    return found


def find_objects(maps: Tensor, known: Mapping[int, np.ndarray], size: int) -> dict[int, np.ndarray]:
    """Return masks of all images by an attention that known masks teach, (size, size) uint8 over the whole image.

    A mask is where the attention is above 0.5; the likeliest place where it is nowhere, because each image has an object.

    Args:
        maps: (N, C, h, w) features of whole images at a sixteenth of the input's side, stretched to a square.
        known: masks by index, at least one.
        size: side of the masks in pixels.
    """
    large = (_enlarged(one, size) for one in _attended(maps, known, size))
    return {index: (one >= min(0.0, float(one.max()))).numpy().astype(np.uint8) for index, one in enumerate(large)}


def find_avoided(maps: Tensor, known: Mapping[int, np.ndarray], size: int) -> tuple[dict[int, np.ndarray], float]:
    """Return the regions to avoid of the other images, and how well those of the known images are found.

    A region is where an attention that the known ones teach is above 0.5, and half of a place of the features around it. An
    image without such a place has no region: few images may carry a mark. How well: each half of the known images teaches an
    attention that finds the regions of the other half; the mean of their intersections over unions.

    Args:
        maps: as in `find_objects`.
        known: (h, w) bool by index, at least four.
        size: side of the regions in pixels.
    """
    margin = size // maps.shape[-1] // 2

    def found_by(some: Mapping[int, np.ndarray], in_these: Sequence[int]) -> dict[int, Tensor]:
        above = {
            index: (_enlarged(one, size) >= 0).float()
            for index, one in zip(in_these, _attended(maps, some, size, in_these))
        }
        return {index: F.max_pool2d(one[None], 2 * margin + 1, 1, margin)[0] > 0 for index, one in above.items()}

    order = sorted(known)
    overlaps = []
    for side in (0, 1):
        for index, found in found_by({index: known[index] for index in order[side::2]}, order[1 - side :: 2]).items():
            wanted = _resized(known[index], size) == 1
            overlaps.append((found & wanted).sum() / (found | wanted).sum().clamp_min(1))
    others = found_by(known, [index for index in range(len(maps)) if index not in known])
    regions = {index: region.numpy() for index, region in others.items() if region.any()}
    return regions, float(torch.stack(overlaps).mean())


def _attended(
    maps: Tensor, known: Mapping[int, np.ndarray], size: int, in_these: Sequence[int] | None = None
) -> Tensor:
    """Return the logits (n, h, w) of an attention that known masks teach, a linear function of the features; None = of all."""
    rows = torch.tensor(sorted(known))
    masks = torch.stack([_resized(known[index], size) for index in rows.tolist()])
    inside, outside = (shares(masks == value, maps.shape[-2:]) for value in (1, 0))
    weight, bias = fit_attention(maps[rows].float(), inside, outside, strength=1e-3)
    shown = maps if in_these is None else maps[list(in_these)]
    return torch.einsum("nchw,c->nhw", shown.float(), weight[0].float()) + bias.float()


def _enlarged(logits: Tensor, size: int) -> Tensor:
    return F.interpolate(logits[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]


def _resized(mask: np.ndarray, size: int) -> Tensor:
    return resize_mask(torch.from_numpy(mask.astype(np.uint8)), (size, size))


def stretched(sample: Sample, size: int) -> Tensor:
    """Return a whole image as (3, size, size) in [0, 1]."""
    image = sample.image.as_subclass(Tensor)[None].float() / 255
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
