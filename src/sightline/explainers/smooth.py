"""Maps averaged over copies of an image: noisy ones, or flipped, turned and brightened ones."""

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from sightline._core.checks import check_count, check_non_negative
from sightline._core.internal_batches import InternalBatches
from sightline._core.seeding import generator
from sightline._core.tensors import at_least_float32
from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.explainers.cam import summed
from sightline.explainers.places import warn_of_few_places
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.tap import Tap
from sightline.network.targets import Resolved, Targets, resolve_score
from sightline.network.views import check_views, dihedral_views


@EXPLAINERS.register("smoothgradcam++", needs_gradient=True, needs_layer=True)
class SmoothGradCAMPlusPlus(Explainer):
    """Smooth Grad-CAM++: Grad-CAM++ with its derivatives averaged over noisy copies of the image (Omeiza et al. 2019).

    With D1, D2, D3 the means over the copies of g, g^2 and g^3, which stand for the derivatives as in Grad-CAM++: alpha =
    D2 / (2 D2 + (sum A) D3), 0 where the denominator is 0, and a channel weighs sum alpha ReLU(D1). The activations A are
    those of the image itself.

    Args:
        samples: number of noisy copies of each image.
        noise: standard deviation of the noise, as a fraction of the range of each image.
        absolute: `noise` is in the units of the model's input instead.
        seed: random seed of the noise; every image gets the same draws.
        internal_batch_size: images in one call to the model; None = automatic.

    References:
        Omeiza et al., "Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional Neural
            Network Models" (2019), the mean of the derivatives over noisy copies.
    """

    def __init__(
        self,
        samples: int = 4,
        noise: float = 0.3,
        absolute: bool = False,
        seed: int = 0,
        internal_batch_size: int | None = None,
    ) -> None:
        check_count(samples=samples)
        check_non_negative(noise=noise)
        self.samples = samples
        self.noise = noise
        self.absolute = absolute
        self.seed = seed
        self.batches = InternalBatches(internal_batch_size)

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]: resized to the input, normalized, and averaged over the layers."""
        tap = Tap(model, layer)
        clean = tap(inputs)
        warn_of_few_places(model, inputs, clean.layers, clean.activations)
        score = resolve_score(targets, clean.output)
        activations = [at_least_float32(a.detach()) for a in clean.activations]
        spread = inputs.amax((1, 2, 3), keepdim=True) - inputs.amin((1, 2, 3), keepdim=True)
        deviation = self.noise * (torch.ones_like(spread) if self.absolute else spread)

        def maps(start: int, stop: int) -> Tensor:
            random = generator(self.seed, "smoothgradcam++")
            of = torch.arange(start, stop, device=inputs.device)
            means = [[torch.zeros_like(a[of]) for _ in range(3)] for a in activations]  # D1, D2, D3 of each layer
            for _ in range(self.samples):
                noise = torch.randn(inputs.shape[1:], generator=random, dtype=torch.float64).to(inputs)
                noisy = tap(inputs[of] + deviation[of] * noise)
                with torch.enable_grad():
                    gradients = noisy.gradients(score(noisy.output, of))
                for powers, gradient in zip(means, gradients):
                    for power, mean in enumerate(powers, start=1):
                        mean += at_least_float32(gradient) ** power / self.samples
            return torch.stack([_map(a[of], m, clean.image_size) for a, m in zip(activations, means)], 1).mean(1)

        return self.batches.map(maps, len(inputs), inputs)


def _map(activations: Tensor, powers: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Return the map (B, H, W) in [0, 1] from activations and the mean powers 1, 2, 3 of their gradients, all (B, C, h, w)."""
    first, second, third = powers
    denominator = 2 * second + activations.sum((2, 3), keepdim=True) * third
    alphas = second / torch.where(denominator != 0, denominator, torch.ones_like(denominator))
    weights = (alphas * first.relu()).sum((2, 3), keepdim=True)
    return normalize_maps(resize_maps(summed(weights * activations), size))


@EXPLAINERS.register("augmented", needs_gradient=True, needs_layer=True)
class Augmented(Explainer):
    """Another explainer's maps, averaged over flips, turns and intensities of the image.

    The explained class is chosen on the unchanged image. Maps are turned back before the mean. A place that
    a target names, such as a detection's box, is not turned with the image: use `views=1` for those.

    Args:
        method: the explainer or its name; one that works on the model's input.
        views: 1, 2, 4 or 8 elements of the dihedral group: the image, its mirror image, those upside down, quarter turns.
        intensities: factors on the model's input, each applied to every view.
    """

    def __init__(
        self, method: str | Explainer = "gradcam", views: int = 2, intensities: Sequence[float] = (0.9, 1.0, 1.1)
    ) -> None:
        self.explainer = EXPLAINERS.create(method) if isinstance(method, str) else method
        if type(self.explainer).explain_images is not Explainer.explain_images:
            name = method if isinstance(method, str) else type(method).__name__
            raise SightlineError(
                f"method is {name!r}, which changes pixels in [0, 1]; intensities would leave that range"
            )
        if not intensities:
            raise SightlineError("intensities is empty; give at least one factor, such as 1.0")
        self.views = dihedral_views(views)
        self.intensities = tuple(intensities)

    def for_images(self, images: Tensor, indices: Tensor | None = None, *purpose: int | str) -> Self:
        """Return the explainer with the draws of these images; the copies of an image share them."""
        keyed = copy.copy(self)
        keyed.explainer = self.explainer.for_images(images, indices, *purpose)
        return keyed

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return the mean (B, H, W) of the copies' maps, in [0, 1]."""
        check_views(self.views, (inputs.shape[-2], inputs.shape[-1]))
        resolved = Resolved(resolve_score(targets, model(inputs)))
        maps = [
            view.inverse(self.explainer.explain(model, factor * view(inputs), resolved, layer))
            for view in self.views
            for factor in self.intensities
        ]
        return torch.stack(maps).mean(0)
