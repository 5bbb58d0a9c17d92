"""A mask-supervised attention gate: features are multiplied by an attention map that is trained to be the mask."""

from contextlib import AbstractContextManager

import torch.nn.functional as F
from torch import Tensor, nn

from sightline.data.batch import Batch
from sightline.guides.balance import WeightedGuide
from sightline.guides.recording import OutputRecorder
from sightline.guides.registry import GUIDES
from sightline.models.gates import Gate, insert_gate
from sightline.objectives.base import Context
from sightline.regions.batch_regions import Source, check_source, object_region


@GUIDES.register("attention_gate", needs_masks=True)
class AttentionGate(WeightedGuide):
    """An attention gate behind a middle stage, whose attention is trained to be the object's mask.

    From the gate on, the network sees features times attention, in training and afterwards. The gate becomes part of the
    model, ships with it under `<layer>.attention_gate.*`, and `load_model` puts it back. The term is the mean binary
    cross-entropy of the attention and the mask at the layer's resolution. Pixels that the mask ignores do not count.

    A norm over the channels right behind the layer, as between the stages of ConvNeXt and Swin, undoes a factor on all
    channels of a place: there, name a layer behind that norm.

    Args:
        layer: behind which the gate stands; None = the last stage at a sixteenth of the input's side.
        detach: train the attention by the masks alone; else the classifier's gradient reaches it too.
        region: the object by its `"masks"` or by `"boxes"`; or `"avoid"`: the attention is trained to be 0 in the region to
            avoid, and free elsewhere.

    References:
        Mitsuhara et al., "Embedding Human Knowledge into Deep Neural Network via Attention Map" (VISAPP 2021), teach the
            attention of an attention branch network by hand-made maps; this gate is the plainest network with one.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), masks=masks)
        >>> objective = sl.Objective(model, sl.AttentionGate())
        >>> objective(batch)["loss"].backward()
        >>> any("attention_gate" in name for name in model.state_dict())  # the gate is part of the model
        True
    """

    gate: Gate

    def __init__(
        self,
        weight: float = 1.0,
        layer: str | None = None,
        detach: bool = False,
        region: str = "masks",
        normalize: bool = False,
    ) -> None:
        super().__init__(weight, normalize)
        self.layer, self.detach = layer, detach
        self.region: Source = check_source(region)
        self.needs = self.region
        self._recorder = OutputRecorder()

    def attach(self, model: nn.Module) -> None:
        """Put the gate into the model, or take the one that exists."""
        _, self.gate = insert_gate(model, self.layer)
        self.gate.detached = self.detach

    def capture(self) -> AbstractContextManager[None]:
        """Record the logits of the attention."""
        return self._recorder.record(self.gate)

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """Return which images (B,) have a known object, or a known region to avoid."""
        return {self.gate.key: object_region(batch, self.region).known}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Return the binary cross-entropy (B,) of the identity view's attention and the object."""
        region = object_region(context.batch, self.region)
        logits = self._recorder.take()[: len(context.batch), ..., 0].to(region.inside.dtype)
        region = region.at((logits.shape[1], logits.shape[2]))
        values = attention_loss(logits, region.inside, region.outside)
        return {self.gate.key: self.balanced(self.gate.key, values, region.known, context)}


def attention_loss(logits: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of an attention map and the share of each place that the object covers.

    Args:
        logits: (B, h, w) of the attention.
        inside: (B, h, w) share of the object in each place.
        outside: (B, h, w) share of the background; what is missing to 1 does not count.

    Returns:
        (B,); 0 where nothing counts.
    """
    losses = inside * F.softplus(-logits) + outside * F.softplus(logits)
    counts = (inside + outside).sum((1, 2))
    return losses.sum((1, 2)) / counts.where(counts > 0, counts.new_ones(()))
