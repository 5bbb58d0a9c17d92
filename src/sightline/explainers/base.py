"""What every explainer does: from a model and images to saliency maps in [0, 1]."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32, check_finite, check_images, has_contrast
from sightline.errors import SightlineError
from sightline.inference.fastest import fastest
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerSelection
from sightline.network.modes import evaluating
from sightline.network.tap import unwrap
from sightline.network.targets import GivenTargets, Targets, as_targets

_MISSING = re.compile(
    r"not have been used in the graph|does not require grad and does not have a grad_fn|derivative for"
)
Sign = Literal["positive", "absolute"]


class Explainer(ABC):
    """A method that says which pixels a classifier's score rests on.

    Call it with a model and images. The model is used in eval mode, every module's flag is restored, no `.grad` is
    touched, and no graph is kept.

    Examples:
        >>> class Brightness(sl.Explainer):
        ...     def explain(self, model, inputs, targets, layer):
        ...         return inputs.mean(1)
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> sl.explain(model, torch.rand(2, 3, 64, 64), method=Brightness()).shape
        torch.Size([2, 64, 64])
    """

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        targets: GivenTargets = None,
        layer: LayerSelection = None,
        input_spec: InputSpec | None = None,
    ) -> Tensor:
        """Explain a batch.

        Args:
            model: a classifier that returns logits (B, K), or an object with `.logits`.
            images: (B, C, H, W) float; in [0, 1] with an input spec, else as the model takes them.
            targets: what to explain: a class index, one for each image (a tensor, a list or an array), None for the predicted
                class of each image, or any scalar of the output: a function or one of `sightline.network.targets`.
            layer: the target layer (see `sightline.network.tap.Tap`); the maps of several layers are averaged.
            input_spec: normalizes the images inside.

        Returns:
            Saliency maps (B, H, W), float32 at least, in [0, 1]; a map without any contrast is all zeros.

        Raises:
            SightlineError: images, targets or layer are not as above, or the model's activations or gradients are not finite.
            NotDefinedError: the method is not defined for this model.
        """
        with explaining(model, images) as (bare, ordinary):
            wanted = as_targets(targets)
            wanted = _ordinary(wanted) if isinstance(wanted, Tensor) else wanted
            maps = self.explain_images(bare, ordinary, wanted, layer, input_spec)
        return checked_maps(maps)

    def for_images(self, images: Tensor, indices: Tensor | None = None, *purpose: int | str) -> Self:
        """Return an explainer of these images whose random draws are keyed by each image, not by its batch.

        An explainer that draws nothing for single images returns itself.

        Args:
            images: (B, C, H, W), those that it will explain, or what those are changed versions of.
            indices: (B,) each image's place in its dataset; None = its pixels are the key.
            purpose: what the maps are for; another purpose gets other draws.
        """
        return self

    def explain_images(
        self, model: nn.Module, images: Tensor, targets: Targets, layer: LayerSelection, input_spec: InputSpec | None
    ) -> Tensor:
        """Return maps (B, H, W) of images before their normalization."""
        inputs = to_inputs(images, input_spec)
        return self.explain(model, inputs, targets, layer)

    @abstractmethod
    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1] for inputs as the model takes them; the model is in eval mode."""


class PixelExplainer(Explainer):
    """An explainer that changes pixels, and so works on the images before their normalization."""

    @abstractmethod
    def explain_images(
        self, model: nn.Module, images: Tensor, targets: Targets, layer: LayerSelection, input_spec: InputSpec | None
    ) -> Tensor:
        """Return maps (B, H, W) of images (B, C, H, W)."""

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) for a model that takes the images themselves."""
        return self.explain_images(model, inputs, targets, layer, None)


@contextmanager
def explaining(model: nn.Module, images: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield an unwrapped model in eval mode, in its fastest form, and images that autograd can save.

    Args:
        model: a classifier.
        images: (B, C, H, W) float, before their normalization.

    Raises:
        SightlineError: the images are not as above, or an explained score has no gradient.
    """
    check_images(images)
    bare = unwrap(model)
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        evaluating(bare),
        naming_missing_gradients(),
        fastest(bare, images),
    ):
        yield bare, _ordinary(images)


def checked_maps(maps: Tensor) -> Tensor:
    """Return finished maps (B, H, W), float32 at least.

    Raises:
        SightlineError: a map is not finite.
    """
    check_finite(maps, "the maps", "is the model finite there?")
    return at_least_float32(maps)


def _ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd can save, even if it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (B, h, w) to another resolution bilinearly (corners not aligned)."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def normalize_maps(maps: Tensor) -> Tensor:
    """Return maps (B, h, w), float32 at least, shifted and scaled to [0, 1] one by one.

    A map without contrast (see `has_contrast`) becomes all zeros.
    """
    maps = at_least_float32(maps)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    shown = has_contrast(maps)[:, None, None]
    return torch.where(shown, (maps - low) / torch.where(shown, high - low, torch.ones_like(low)), 0)


def signed_to_map(values: Tensor, sign: Sign) -> Tensor:
    """Return signed shares in a score as relevance: their positive part, or their magnitude."""
    return values.relu() if sign == "positive" else values.abs()


@contextmanager
def naming_missing_gradients() -> Iterator[None]:
    """Raise SightlineError where autograd finds no way from the explained score to what it is differentiated by."""
    try:
        yield
    except RuntimeError as error:
        if not _MISSING.search(str(error)):
            raise
        raise SightlineError(
            "the explained score has no gradient with respect to the image or a layer: it does not depend on it, or a part of "
            "the model has no gradient (such as an int8 layer); explain another score, or use an explainer without gradients, "
            "such as 'occlusion', 'rise' or 'scorecam'"
        ) from error
