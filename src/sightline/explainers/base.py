"""What every explainer does: from a model and images to saliency maps in [0, 1]."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.input_spec import InputSpec, check_images
from sightline.layers import LayerChoice
from sightline.tap import evaluating, unwrap

Targets = Tensor | int | None


class Explainer(ABC):
    """A method that says which pixels a classifier's score rests on.

    Call it with a model and images. The model is used in eval mode, every module's flag is restored, no `.grad` is
    touched, and no graph is kept.
    """

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Targets = None,
        layer: LayerChoice | Sequence[LayerChoice] | None = None,
        input_spec: InputSpec | None = None,
    ) -> Tensor:
        """Explain a batch.

        Args:
            model: a classifier that returns logits (B, K), or an object with `.logits`.
            images: (B, C, H, W) float; in [0, 1] with an input spec, else as the model takes them.
            targets: the class to explain: one index, (B,) indices, or None for the predicted class of each image.
            layer: the target layer (see `sightline.tap.Tap`); the maps of several layers are averaged.
            input_spec: normalises the images inside.

        Returns:
            Saliency maps (B, H, W), float32 at least, in [0, 1]; a map without any contrast is all zeros.

        Raises:
            SightlineError: images, targets or layer are not as above, or the model's activations or gradients are not finite.
        """
        check_images(images)
        model = unwrap(model)
        with torch.inference_mode(False), torch.no_grad(), evaluating(model):
            inputs = _ordinary(images if input_spec is None else input_spec.normalize(images))
            maps = self.explain(model, inputs, _ordinary(targets) if isinstance(targets, Tensor) else targets, layer)
        if not torch.isfinite(maps).all():
            bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero().flatten().tolist()
            raise SightlineError(
                f"the maps of images {bad[:10]} of the batch are NaN or infinite; is the model finite there?"
            )
        return maps

    @abstractmethod
    def explain(
        self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerChoice | Sequence[LayerChoice] | None
    ) -> Tensor:
        """Maps (B, H, W) in [0, 1] for inputs as the model takes them; the model is in eval mode."""


def _ordinary(tensor: Tensor) -> Tensor:
    """A tensor that autograd may save, also if it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def resolve_targets(targets: Targets, logits: Tensor) -> Tensor:
    """The classes (B,) that are explained: the predicted ones by default.

    Raises:
        SightlineError: an index outside 0 .. K - 1, or another number of them than images.
    """
    if targets is None:
        return logits.detach().argmax(1)
    size, classes = logits.shape
    if isinstance(targets, Tensor) and (targets.is_floating_point() or targets.dtype == torch.bool):
        raise SightlineError(f"targets have dtype {targets.dtype}; expected integer class indices")
    indices = torch.as_tensor(targets, dtype=torch.int64, device=logits.device)
    if indices.ndim == 0:
        indices = indices.expand(size)
    if indices.shape != (size,):
        raise SightlineError(f"targets have shape {tuple(indices.shape)}; expected ({size},), one class an image")
    if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= classes):
        raise SightlineError(
            f"targets range over [{int(indices.min())}, {int(indices.max())}]; the model has classes 0 .. {classes - 1}"
        )
    return indices


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, h, w) at another resolution, bilinearly (corners not aligned)."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def normalize_maps(maps: Tensor) -> Tensor:
    """Maps (B, h, w) shifted and scaled to [0, 1] one by one; a constant map becomes all zeros."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    contrast = high - low
    return (maps - low) / torch.where(contrast > 0, contrast, torch.ones_like(contrast))
