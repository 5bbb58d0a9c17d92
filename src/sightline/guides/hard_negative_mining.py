"""Hard negative mining: more weight for images that the model predicts wrongly."""

from math import ceil

import torch
from torch import Tensor

from sightline._core.checks import check_fraction
from sightline.data.batch import Batch
from sightline.guides.measured_weights import MeasuredWeights
from sightline.guides.registry import GUIDES
from sightline.guides.sample_weights import Normalize
from sightline.network.input_spec import to_inputs
from sightline.network.logits import logits_of
from sightline.objectives.base import GuidedModel
from sightline.objectives.losses import task_loss, true_log_probabilities


@GUIDES.register("hard_negative_mining", reweights=True)
class HardNegativeMining(MeasuredWeights):
    """Hard negative mining: an image gets the weight 1 - p, where p is the probability that the model gives its label.

    Where images can have several labels, it is the mean of 1 - p over the classes, as the task loss is, with p the probability
    of what is true of the class: that the image shows it, or that it does not.

    The explanation-consistency paper compares with it. Its weights are measured again every `interval` epochs.

    Args:
        ohem_fraction: replaces the pass by online hard example mining (OHEM, Shrivastava et al. 2016): at every step, this
            fraction of the batch, the images with the highest losses, has weight 1, and the rest weight 0. Each process
            selects among its own images.

    References:
        Wu et al., "Improving Network Interpretability via Explanation Consistency Evaluation" (IEEE Transactions on Multimedia
            2024), section IV, which compares with it.
        Shrivastava, Gupta, Girshick, "Training Region-based Object Detectors with Online Hard Example Mining" (CVPR 2016),
            the selection of the examples with the largest loss.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> batch = sl.Batch(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 0, 1]), indices=torch.arange(4))
        >>> objective = sl.Objective(model, sl.HardNegativeMining(ohem_fraction=0.5))
        >>> objective(batch)["loss"].backward()  # the two images with the highest losses
    """

    multi_label = True

    def __init__(self, interval: int = 4, ohem_fraction: float | None = None, normalize: Normalize = "weights") -> None:
        super().__init__(interval, 0.0, normalize)
        if ohem_fraction is not None:
            check_fraction("(0, 1]", ohem_fraction=ohem_fraction)
        self.ohem_fraction = ohem_fraction

    def measure(self, objective: GuidedModel, batch: Batch) -> Tensor:
        """1 - p of the label, for each image (B,)."""
        images = to_inputs(batch.images, objective.input_spec)
        with torch.inference_mode():
            logits = logits_of(objective.unwrap_model()(images))
            return -torch.expm1(true_log_probabilities(logits, batch.labels)).mean(1)

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """Return the stored weights (B,), or which images are kept."""
        if self.ohem_fraction is None or not self.training:
            return super().sample_weights(logits, batch)
        losses = task_loss(logits.detach(), batch.labels)
        kept = torch.zeros_like(losses)
        kept[losses.topk(self._kept(batch)).indices] = 1
        return self._noted(batch, kept)

    def weight_total(self, batch: Batch) -> Tensor | None:
        """Return the sum of the weights, or the number of images."""
        if self.ohem_fraction is None or not self.training or self.normalize == "batch":
            return super().weight_total(batch)
        return torch.tensor(float(self._kept(batch)))

    def due(self, epoch: int) -> bool:
        """Whether a pass comes before this epoch; never with `ohem_fraction`."""
        return self.ohem_fraction is None and super().due(epoch)

    def _kept(self, batch: Batch) -> int:
        assert self.ohem_fraction is not None
        return ceil(self.ohem_fraction * len(batch))
