"""Masks of objects in images that nobody marked."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.progress import bar
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.transforms import resize_mask
from sightline.fixing.mending.fitting import shares
from sightline.localization.found_masks import SIDE, at_most, cut_out
from sightline.localization.image_maps import ExplainedMaps
from sightline.localization.prompts import Prompt, Prompter
from sightline.network.input_spec import InputSpec
from sightline.training.heads import fit_attention

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


def find_objects(
    maps: Tensor, known: Mapping[int, np.ndarray], size: int, strength: float = 1e-3
) -> dict[int, np.ndarray]:
    """Return masks of all images by an attention that known masks teach, (size, size) uint8 over the whole image.

    The attention is a linear function of features at a sixteenth of the input's side.

    Args:
        maps: (N, C, h, w) these features of whole images, stretched to a square.
        known: masks by index, at least one.
        size: side of the masks in pixels.
        strength: of the attention's penalty.
    """
    rows = torch.tensor(sorted(known))
    masks = torch.stack([resize_mask(torch.from_numpy(known[i].astype(np.uint8)), (size, size)) for i in rows.tolist()])
    inside, outside = (shares(masks == value, maps.shape[-2:]) for value in (1, 0))
    weight, bias = fit_attention(maps[rows].float(), inside, outside, strength=strength)
    logits = torch.einsum("nchw,c->nhw", maps.float(), weight[0].float()) + bias.float()
    return {index: _enlarged(one, size) for index, one in enumerate(logits)}


def _enlarged(logits: Tensor, size: int) -> np.ndarray:
    """Where an attention is above 0.5, on more pixels; the likeliest place where it is nowhere."""
    large = F.interpolate(logits[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]
    return (large >= min(0.0, float(large.max()))).numpy().astype(np.uint8)


def stretched(sample: Sample, size: int) -> Tensor:
    """Return a whole image as (3, size, size) in [0, 1]."""
    image = sample.image.as_subclass(Tensor)[None].float() / 255
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
