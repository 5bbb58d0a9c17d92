"""Attention pooling: the mean over the places before the head is weighted by an attention that is trained to be the mask."""

from torch import nn

from sightline.guides.attention_gate import AttentionGate
from sightline.guides.registry import GUIDES
from sightline.models.gates import insert_pooling_gate


@GUIDES.register("attention_pooling", needs_masks=True)
class AttentionPooling(AttentionGate):
    """Attention pooling: the head sees the mean of the last feature map, weighted by the square of an attention.

    The attention is a linear function of the channels at each place, trained to be the object's mask by the same term as
    `AttentionGate` has. It changes nothing before the pooling, so it suits a frozen trunk; a new one weights all positions
    equally. It becomes part of the model, ships with it under `<layer>.attention_pooling.*`, and `load_model` puts it back. The
    explainer `attention_pooling` shows it. A stage with `fit: convex` fits the same attention to its optimum.

    The model must classify by the mean of its last feature map (global average pooling).

    Args:
        region: the object by its `"masks"` or by `"boxes"`; or what to `"avoid"`.
        layer: that the attention reads; None = the last feature map. An earlier layer has finer places, at which masks are
            followed more closely; its squared attention is averaged over the places of the last feature map.

    References:
        Mitsuhara et al., "Embedding Human Knowledge into Deep Neural Network via Attention Map" (VISAPP 2021), for an attention
            that is trained by masks. The pooling is sightline's.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> objective = sl.Objective(model, sl.AttentionPooling())
        >>> objective(batch)["loss"].backward()
    """

    def __init__(
        self,
        weight: float = 1.0,
        detach: bool = False,
        region: str = "masks",
        normalize: bool = False,
        layer: str | None = None,
    ) -> None:
        super().__init__(weight, layer, detach, region, normalize)

    def attach(self, model: nn.Module) -> None:
        """Put the pooling gate into the model, or take the one that exists."""
        _, self.gate = insert_pooling_gate(model, self.layer)
        self.gate.detached = self.detach
