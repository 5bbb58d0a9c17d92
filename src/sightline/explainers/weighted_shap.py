"""Partition SHAP of all classes at once, weighted by their probabilities."""

import torch
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.explainers.base import normalize_maps
from sightline.explainers.partition_shap import PartitionSHAP, owen_values
from sightline.explainers.registry import EXPLAINERS
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.tap import logits_of
from sightline.network.targets import Targets


@EXPLAINERS.register("weighted_shap", differentiable=False, needs_gradient=False, needs_layer=False, pixel_space=True)
class WeightedSHAP(PartitionSHAP):
    """The weighted average explanation e(x) = sum_k p_k(x) phi_k(x) over classes k, which WAE learns.

    p_k is the model's probability of class k, and phi_k its Owen values summed over the colour channels. It is one map of the
    image, whatever the `targets`. The options are those of `partition_shap`.
    """

    def explain_images(
        self, model: nn.Module, images: Tensor, targets: Targets, layer: LayerSelection, input_spec: InputSpec | None
    ) -> Tensor:
        """Maps (B, H, W), in [0, 1] unless `raw`."""
        result = owen_values(
            model, images, "all", input_spec=input_spec, evaluations=self.evaluations, masker=self.masker,
            blur=self.blur, output=self.output, internal_batch_size=self.internal_batch_size,
        )  # fmt: skip
        inputs = images if input_spec is None else input_spec.normalize(images)
        probabilities = at_least_float32(logits_of(model(inputs))).softmax(1)
        values = torch.einsum("bk,bkchw->bhw", probabilities, result.values.to(probabilities))
        if self.raw:
            return values
        return normalize_maps(values.relu() if self.sign == "positive" else values.abs())
