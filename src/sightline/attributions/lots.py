"""LOTS as an explainer: the pixels that have to change before a model sees something else in an image.

Section 4.3 of "Visualization of Deep Features with Grad-CAM and LOTS", called the thesis below.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from sightline._core.checks import check_fraction
from sightline._core.internal_batches import InternalBatches
from sightline._core.kernels import gaussian_blur, odd_kernel
from sightline.attacks.origin_target import Distance, LOTSResult, check_lots_options, lots
from sightline.errors import SightlineError
from sightline.explainers.base import PixelExplainer, normalize_maps
from sightline.explainers.registry import EXPLAINERS
from sightline.network.features import ClassFeatures
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerChoice, LayerSelection
from sightline.network.logits import logits_of
from sightline.network.modes import evaluating
from sightline.network.tap import unwrap
from sightline.network.targets import Targets, resolve_targets

logger = logging.getLogger(__name__)

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
BLUR = 49 / 224  # the thesis's kernel, as a fraction of the side


@EXPLAINERS.register("lots", needs_gradient=True, needs_layer=False, pixel_space=True)
class LOTS(PixelExplainer):
    """LOTS: which pixels change when an image is moved to other deep features (Rozsa et al. 2017; thesis, Algorithms 1 and 2).

    Images must be in [0, 1]; the model's normalization is the input spec. `layer` is where features are taken: None = the
    input of the last linear layer, `"logits"`, or a layer, for its output. `targets` are the classes (None = the predicted
    ones) whose features `"class"` and `"mean"` look up; the other targets need no class and pass over them.

    Args:
        target: the features to move to: `"zero"`; those of a reference image, (C, H, W) or one for each image (B, C, H, W),
            in [0, 1]; `"class"`: those of one training image of the class; `"mean"`: the mean of the class (thesis, 4.2).
        class_features: for `"class"` and `"mean"`: what `sightline.network.features.class_features` made, or its file.
        other_class: take the features of the likeliest other class instead of the image's own (thesis, 6.1).
        iterations: largest number of steps.
        tau: the distance to the target at which an image has converged.
        alpha: the largest change of a pixel in one step.
        distance: which one is compared with tau: `"euclidean"` or `"cosine"`.
        blur: kernel of the map's Gaussian blur: None = 49 of 224 pixels; int = pixels; float = fraction of the shorter side;
            smaller for fine detail; 0 = none. It is cut to the largest odd number below the side.
        threshold: where the final map is below this value, it is set to zero (thesis, 6.2).
        internal_batch_size: largest number of images in one call of the model; None chooses.

    Raises:
        SightlineError: an option is not as above.

    References:
        Rozsa, Günther, Boult, "LOTS about Attacking Deep Features" (IJCB 2017), the definition of LOTS.
        Weber, "Visualization of Deep Features with Grad-CAM and LOTS" (Master thesis, University of Zurich 2023), Algorithms 1
            and 2.
    """

    def __init__(
        self,
        target: Literal["zero", "class", "mean"] | Tensor = "zero",
        class_features: ClassFeatures | str | Path | None = None,
        other_class: bool = False,
        iterations: int = 500,
        tau: float = 0.1,
        alpha: float = 1 / 255,
        distance: Distance = "euclidean",
        blur: int | float | None = None,
        threshold: float = 0.0,
        internal_batch_size: int | None = None,
    ) -> None:
        looked_up = isinstance(target, str) and target in ("class", "mean")
        if not (looked_up or isinstance(target, Tensor) or target == "zero"):
            raise SightlineError(f"target is {target!r}; expected 'zero', 'class', 'mean' or a reference image")
        if isinstance(target, Tensor) and target.ndim not in (3, 4):
            raise SightlineError(
                f"target has shape {tuple(target.shape)}; expected a reference image (C, H, W), or (B, C, H, W)"
            )
        if looked_up and class_features is None:
            raise SightlineError(
                f"target is {target!r}, which needs class_features: what `sl.features.class_features` returns, or its file"
            )
        if (other_class or class_features is not None) and not looked_up:
            raise SightlineError("class_features and other_class are for target 'class' or 'mean'")
        check_lots_options(iterations, tau, alpha, distance, target)
        odd_kernel(blur, 224, BLUR)  # rejects what is not a kernel now, not after minutes
        check_fraction(threshold=threshold)
        InternalBatches(internal_batch_size)
        self.target = target
        self.class_features = (
            ClassFeatures.load(class_features) if isinstance(class_features, str | Path) else class_features
        )
        self.other_class = other_class
        self.iterations, self.tau, self.alpha, self.distance = iterations, tau, alpha, distance
        self.blur, self.threshold, self.internal_batch_size = blur, threshold, internal_batch_size

    def synthesize(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Targets = None,
        layer: LayerChoice | None = None,
        input_spec: InputSpec | None = None,
    ) -> LOTSResult:
        """Change the images as LOTS does and return them with the steps that it took; `maps` turns them into maps."""
        target = self.target
        if isinstance(target, str) and target != "zero":
            target = self._look_up(unwrap(model), images, targets, layer, input_spec)
        return lots(
            model, images, target, layer=layer, input_spec=input_spec, iterations=self.iterations, tau=self.tau,
            alpha=self.alpha, distance=self.distance, internal_batch_size=self.internal_batch_size,
        )  # fmt: skip

    def maps(self, images: Tensor, changed: Tensor) -> Tensor:
        """Return maps (B, H, W) in [0, 1] of the change between two versions (B, C, H, W) of images in [0, 1] (Algorithm 2)."""
        change = normalize_maps(grey(changed - images).abs())
        kernel = odd_kernel(self.blur, min(change.shape[-2:]), BLUR)
        if kernel:
            change = normalize_maps(gaussian_blur(change, kernel))
        return torch.where(change >= self.threshold, change, 0)

    def explain_images(
        self, model: nn.Module, images: Tensor, targets: Targets, layer: LayerSelection, input_spec: InputSpec | None
    ) -> Tensor:
        """Return maps (B, H, W) in [0, 1] of images in [0, 1]; images with a vanishing gradient are logged."""
        if isinstance(layer, Sequence) and not isinstance(layer, str):
            raise SightlineError(f"layer is a list of {len(layer)}; LOTS takes the features of one layer")
        result = self.synthesize(model, images, targets, layer, input_spec)
        flat = [index for index, why in enumerate(result.stopped) if why == "zero gradient"]
        if flat:
            logger.warning("the gradient of images %s of the batch became zero before they converged", flat[:10])
        return self.maps(images, result.images)

    def _look_up(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Targets,
        layer: LayerChoice | None,
        input_spec: InputSpec | None,
    ) -> Tensor:
        """Return the features (B, D) of the images' classes, or of other classes."""
        assert isinstance(self.class_features, ClassFeatures)
        self.class_features.check(model, layer, input_spec)
        inputs = to_inputs(images, input_spec)
        with torch.inference_mode(False), torch.no_grad(), evaluating(model):
            logits = InternalBatches(self.internal_batch_size).map(
                lambda a, b: logits_of(model(inputs[a:b])), len(inputs), inputs
            )
        classes = resolve_targets(targets, logits)  # type: ignore[arg-type]  # which rejects what is no class index
        if self.other_class:
            unknown = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
            unknown[: len(self.class_features.counts)] = (
                self.class_features.counts[: logits.shape[1]].to(logits.device) == 0
            )
            likeliest = logits.masked_fill(unknown, -torch.inf).scatter(1, classes[:, None], -torch.inf).max(1)
            if likeliest.values.isneginf().any():
                raise SightlineError(
                    "other_class is set, and the class features know no image of any other class; compute them with all classes"
                )
            classes = likeliest.indices
        return self.class_features.of(classes, "mean" if self.target == "mean" else "class")


def grey(images: Tensor) -> Tensor:
    """Return the luma (B, H, W) of color images (B, 3, H, W); for other numbers of channels, their mean."""
    if images.shape[1] != 3:
        return images.mean(1)
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1)
