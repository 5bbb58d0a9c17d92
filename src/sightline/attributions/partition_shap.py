"""Partition SHAP as explainers: of one target, and of all classes weighted by their probabilities."""

from typing import Literal

import torch
from torch import Tensor, nn

from sightline._core.checks import check_choice
from sightline._core.tensors import at_least_float32
from sightline.attributions.owen.maskers import Masker, check_masker
from sightline.attributions.owen.values import Output, OwenValues, check_options, owen_values
from sightline.explainers.base import PixelExplainer, Sign, normalize_maps, signed_to_map
from sightline.explainers.precision import in_float32
from sightline.explainers.registry import EXPLAINERS
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerSelection
from sightline.network.logits import probabilities_of
from sightline.network.targets import Targets


@EXPLAINERS.register("partition_shap", needs_layer=False, pixel_space=True)
class PartitionSHAP(PixelExplainer):
    """Partition SHAP: Owen values over the binary partition of the image (Lundberg and Lee 2017).

    Explains the softmax probability of the class; see `owen_values`, which also gives the values of all classes.

    Args:
        evaluations: Number of evaluations of the model per image.
        tolerance: Finish an image once no part that could be split carries more than this share of the worth of all its parts;
            `evaluations` is then the most that it takes, and how many were taken is logged. None = all of them.
        masker: What is shown instead of hidden pixels.
        blur: Kernel of the blurs.
        output: What is explained of a class, its `"probability"` or `"logits"`.
        sign: How values, summed over the color channels, become a map: `"positive"` keeps the evidence for the class,
            `"absolute"` the evidence for or against it.
        raw: Return the signed sums (B, H, W) themselves instead of maps in [0, 1].
        internal_batch_size: Largest number of images in one call to the model; None chooses.

    References:
        Lundberg, Lee, "A Unified Approach to Interpreting Model Predictions" (NeurIPS 2017), Theorem 1, for the values of
            single pixels.
    """

    def __init__(
        self,
        evaluations: int = 2000,
        tolerance: float | None = None,
        masker: Masker = "blur",
        blur: int | float | None = None,
        output: Output = "probability",
        sign: Sign = "positive",
        raw: bool = False,
        internal_batch_size: int | None = None,
    ) -> None:
        check_options(evaluations, output, internal_batch_size, tolerance)
        check_masker(masker, blur)
        check_choice(Sign, sign=sign)
        self.evaluations, self.tolerance = evaluations, tolerance
        self.masker, self.blur, self.output = masker, blur, output
        self.sign, self.raw, self.internal_batch_size = sign, raw, internal_batch_size

    def explain_images(
        self, model: nn.Module, images: Tensor, targets: Targets, layer: LayerSelection, input_spec: InputSpec | None
    ) -> Tensor:
        """Return maps (B, H, W), in [0, 1] unless `raw`."""
        with in_float32(model, to_inputs(images, input_spec), targets, None, unless_asked=True) as given:
            wide, _, resolved, _ = given
            values = self.signed_map(wide, at_least_float32(images), resolved, input_spec)
        return values if self.raw else normalize_maps(signed_to_map(values, self.sign))

    def signed_map(self, model: nn.Module, images: Tensor, targets: Targets, input_spec: InputSpec | None) -> Tensor:
        """Return the Owen values (B, H, W) of the pixels, summed over the color channels."""
        return self.owen_values(model, images, targets, input_spec).values.sum(1)

    def owen_values(
        self, model: nn.Module, images: Tensor, targets: Targets | Literal["all"], input_spec: InputSpec | None
    ) -> OwenValues:
        """Return `owen_values` with the options of this explainer."""
        return owen_values(
            model,
            images,
            targets,
            input_spec=input_spec,
            evaluations=self.evaluations,
            tolerance=self.tolerance,
            masker=self.masker,
            blur=self.blur,
            output=self.output,
            internal_batch_size=self.internal_batch_size,
        )


@EXPLAINERS.register("weighted_shap", needs_layer=False, pixel_space=True)
class WeightedSHAP(PartitionSHAP):
    """The weighted average explanation e(x) = sum_k p_k(x) phi_k(x) over classes k, which WAE learns.

    p_k is the model's probability of class k, and phi_k the class's Owen values summed over the color channels. There is one
    map per image, regardless of `targets`. The options are those of `partition_shap`.

    References:
        Apicella et al., "SHAP-based explanations to improve classification systems" (XAI.it 2023).
        Apicella et al., "IMPACTX: improving model performance by appropriately constraining the training with teacher
            explanations" (Artificial Intelligence Review 2026), section 2, which describes it.
    """

    def signed_map(self, model: nn.Module, images: Tensor, targets: Targets, input_spec: InputSpec | None) -> Tensor:
        """Return the sum (B, H, W) over all classes, weighted by their probabilities."""
        values = self.owen_values(model, images, "all", input_spec).values
        inputs = to_inputs(images, input_spec)
        probabilities = probabilities_of(model(inputs))
        return torch.einsum("bk,bkchw->bhw", probabilities, values.to(probabilities))
