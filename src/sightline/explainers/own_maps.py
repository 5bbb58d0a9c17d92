"""Models that carry their own explainer: what the branch that a guide gave them shows."""

from collections.abc import Sequence

from torch import Tensor, nn

from sightline.errors import NotDefinedError
from sightline.explainers.base import Explainer, at_least_float32, normalize_maps, resize_maps
from sightline.explainers.registry import EXPLAINERS
from sightline.layers import LayerChoice
from sightline.models.attention_branch import attention_branch_of
from sightline.models.two_branch import two_branch_of
from sightline.targets import Targets


@EXPLAINERS.register("impactx", differentiable=False, needs_gradient=False, needs_layer=False, pixel_space=False)
class OwnMap(Explainer):
    """The map that an IMPACTX or WAE model predicts with its logits: its positive part, scaled to [0, 1].

    The model has one map of an image, that of the class it decides for; `targets` changes nothing. A model without the branch
    is not defined.
    """

    def explain(
        self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerChoice | Sequence[LayerChoice] | None
    ) -> Tensor:
        """Maps (B, H, W)."""
        branch = two_branch_of(model)
        maps = at_least_float32(branch.decoder(branch.lep(inputs)))
        return resize_maps(normalize_maps(maps.relu()), (inputs.shape[-2], inputs.shape[-1]))


@EXPLAINERS.register(
    "attention_branch", differentiable=False, needs_gradient=False, needs_layer=False, pixel_space=False
)
class OwnAttention(Explainer):
    """The attention of an attention branch network, resized and scaled to [0, 1]; `targets` changes nothing."""

    def explain(
        self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerChoice | Sequence[LayerChoice] | None
    ) -> Tensor:
        """Maps (B, H, W)."""
        branch = attention_branch_of(model)
        if branch is None:
            raise NotDefinedError(f"{type(model).__name__} has no attention branch; train it with that guide")
        heard: list[Tensor] = []
        handle = branch.register_forward_hook(lambda module, args, output: heard.append(output[0]))
        try:
            model(inputs)
        finally:
            handle.remove()
        return normalize_maps(resize_maps(at_least_float32(heard[0]), (inputs.shape[-2], inputs.shape[-1])))
