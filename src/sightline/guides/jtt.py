"""Just train twice: errors of a first model get more weight in a second training; no group labels."""

import torch
from torch import Tensor

from sightline._core.checks import check_positive
from sightline.data.batch import Batch
from sightline.guides.measured_weights import StageWeights
from sightline.guides.registry import GUIDES
from sightline.network.input_spec import to_inputs
from sightline.network.logits import hits, logits_of
from sightline.objectives.base import GuidedModel


@GUIDES.register("jtt", reweights=True)
class JTT(StageWeights):
    """JTT: training images that the model of the stage before gets wrong weigh `upweight` times as much as the others.

    In a recipe, the first stage trains the model that finds the errors, briefly or strongly regularized, and the second stage
    says `guide: jtt, start: initial`, so the second model begins again. The weights are scaled to a mean of 1: the loss is
    the average over the data set in which errors are repeated `upweight` times.

    Args:
        upweight: 100 on Waterbirds and 50 on CelebA in the paper, which chooses it on validation by the worst group.

    References:
        Liu et al., "Just Train Twice: Improving Group Robustness without Training Group Information", ICML 2021, Algorithm 1.
    """

    def __init__(self, upweight: float = 100.0) -> None:
        super().__init__()
        check_positive(upweight=upweight)
        self.upweight = upweight

    def measure(self, objective: GuidedModel, batch: Batch) -> Tensor:
        """`upweight` for an image (B,) whose predicted class is not its label, else 1."""
        with torch.inference_mode():
            logits = logits_of(objective.unwrap_model()(to_inputs(batch.images, objective.input_spec)))
            return torch.where(hits(logits, batch.labels), 1.0, self.upweight)
