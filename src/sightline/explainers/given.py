"""Maps of images in any form, a few images at a time."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from sightline._core.tensors import check_shape
from sightline.data.transforms import eval_transform
from sightline.explainers.base import Explainer
from sightline.given import Normalization, as_images
from sightline.models.opening import open_model
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.modes import evaluating
from sightline.network.targets import Contrast, Targets

CHUNK = 16


@dataclass(frozen=True)
class Explained:
    """Images as a model sees them, with their maps; `sl.show` draws them.

    Attributes:
        images: (B, 3, H, W) in [0, 1], resized and cropped to the size of the model's input.
        maps: (B, H, W) in [0, 1].
        names: where the images come from.
    """

    images: Tensor
    maps: Tensor
    names: list[str]

    def __repr__(self) -> str:
        """Return the shapes and the names, without the values."""
        return f"Explained(images {(*self.images.shape,)}, maps {(*self.maps.shape,)}, names {self.names})"


def explain_given(
    explainer: Explainer,
    model: nn.Module,
    data: Any,
    targets: Targets,
    layer: LayerSelection,
    input_spec: InputSpec | None,
) -> Explained:
    """Return the maps of images in any form that `sightline.given.as_images` takes.

    Args:
        explainer: makes the maps.
        model: a classifier.
        data: the images.
        targets: as for `sightline.explain`.
        layer: likewise.
        input_spec: likewise; None = what the model says, else ImageNet's at 224 px, with a warning.
    """
    if input_spec is None:
        with evaluating(model):
            opened = open_model(model)
        input_spec = opened.input_spec
        for note in opened.notes:
            warnings.warn(note, stacklevel=4)
    see = eval_transform(input_spec.size[0])
    named = as_images(data, Normalization(input_spec.mean, input_spec.std))
    images = torch.stack([see(tv_tensors.Image(image)).as_subclass(Tensor) for _, image in named])
    maps = explain_in_chunks(explainer, model, images, targets, layer, input_spec)
    return Explained(images, maps, [name for name, _ in named])


def explain_in_chunks(
    explainer: Explainer,
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    layer: LayerSelection,
    input_spec: InputSpec,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Return the maps (B, H, W) of images (B, C, H, W) on the CPU, each as if it were explained alone.

    Args:
        explainer: what it draws at random depends on the place of the image.
        model: a classifier.
        images: in [0, 1].
        targets: as for `sightline.explain`.
        layer: likewise.
        input_spec: normalizes the images.
        progress: is told the number of images of each finished chunk.
    """
    device = next(model.parameters(), torch.empty(0)).device
    found = []
    for rows in torch.arange(len(images)).split(CHUNK):
        some = images[rows].to(device)
        wanted = _rows_of(targets, rows, len(images))
        found.append(explainer.for_images(some, rows)(model, some, wanted, layer, input_spec).detach().cpu())
        if progress is not None:
            progress(len(rows))
    return torch.cat(found)


def _rows_of(targets: Targets, rows: Tensor, count: int) -> Targets:
    """Return the targets of some images."""
    if isinstance(targets, Contrast):
        return Contrast(_indices_of(targets.target, rows, count), _indices_of(targets.versus, rows, count))
    return _indices_of(targets, rows, count) if isinstance(targets, Tensor) else targets


def _indices_of(indices: Tensor | int | None, rows: Tensor, count: int) -> Tensor | int | None:
    if not isinstance(indices, Tensor) or indices.ndim == 0:
        return indices
    check_shape(indices, "targets", (count,), meaning="one class an image")
    return indices[rows]
