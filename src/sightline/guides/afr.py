"""Automatic feature reweighting: the last layer again, on images that the model is unsure of; no group labels."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from sightline._core.checks import check_non_negative
from sightline.data.batch import Batch
from sightline.guides.measured_weights import StageWeights
from sightline.guides.registry import GUIDES
from sightline.guides.sample_weights import Stored
from sightline.network.head import head_parameters
from sightline.network.input_spec import to_inputs
from sightline.network.logits import logits_of
from sightline.objectives.base import Context, GuidedModel, all_images
from sightline.objectives.losses import true_log_probabilities


@GUIDES.register("afr", reweights=True)
class AFR(StageWeights):
    """AFR: an image weighs exp(-gamma p) / n, with p the probability of its label by the model of the stage before.

    n is how many training images have the label. The weights are scaled to a mean of 1. In a recipe, the first stage trains as
    usual, and the second says `trainable: head, guide: afr`.

    Args:
        gamma: how much more an image weighs that the model is unsure of; the paper chooses among 4 .. 20 on Waterbirds by
            validation.
        regularization: of the squared distance of the classifier's weights from those at the stage's start (lambda).

    References:
        Qiu et al., "Simple and Fast Group Robustness by Automatic Feature Reweighting" (ICML 2023). The paper retrains the last
            layer on 20 % of the training images that the first stage has not seen.
    """

    def __init__(self, gamma: float = 4.0, regularization: float = 0.0) -> None:
        super().__init__()
        check_non_negative(gamma=gamma, regularization=regularization)
        self.gamma, self.regularization = gamma, regularization
        self._head: list[nn.Parameter] = []
        self._start = Stored()

    def attach(self, model: nn.Module) -> None:
        """Find the classifier, whose weights are held near those at the stage's start."""
        self._head = head_parameters(model)

    def measure(self, objective: GuidedModel, batch: Batch) -> Tensor:
        """exp(-gamma p) for each image (B,)."""
        with torch.inference_mode():
            logits = logits_of(objective.unwrap_model()(to_inputs(batch.images, objective.input_spec)))
            return torch.exp(-self.gamma * true_log_probabilities(logits, batch.labels)[:, 0].exp())

    def on_stage_start(self, objective: GuidedModel, loader: Iterable[Batch]) -> None:
        """Measure the weights, and note the classifier's."""
        super().on_stage_start(objective, loader)
        self._start.values = parameters_to_vector(self._head).detach().clone()

    def scaled(self, weights: Tensor, labels: Tensor) -> Tensor:
        """Return the weights (N,) by the frequency of the labels (N,), with a mean of 1."""
        return super().scaled(weights / torch.bincount(labels)[labels], labels)

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """All images have the distance of the classifier's weights, where it counts."""
        return {"afr": all_images(batch)} if self.regularization else {}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Return the distance of the classifier's weights from those at the start of the stage, equal for each image (B,)."""
        super().losses(context)
        if not self.regularization:
            return {}
        distance = (parameters_to_vector(self._head) - self._start.values).square().sum()
        return {"afr": self.regularization * distance.expand(len(context.batch))}
