"""Images that the model is unsure of, and with them its pseudo-labels for those that it is sure of."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from sightline._core.checks import check_choice, check_non_negative
from sightline.acquisition.base import Pool, Ranking, Selection
from sightline.acquisition.registry import QUERY_STRATEGIES

By = Literal["confidence", "margin", "entropy"]


@QUERY_STRATEGIES.register("uncertainty")
class Uncertainty(Ranking):
    """Images that the model is least sure of (AL: Lewis and Gale 1994, uncertainty sampling).

    Args:
        by: `"confidence"` = 1 minus the highest probability; `"margin"` = 1 minus its lead over the second; `"entropy"`, in
            nats.
    """

    def __init__(self, by: By = "confidence") -> None:
        check_choice(By, by=by)
        self.by = by

    def scores(self, pool: Pool) -> Tensor:
        """Return the uncertainty (N,)."""
        if self.by == "entropy":
            return entropy(pool.probabilities)
        first, second = pool.probabilities.topk(2, dim=1).values.unbind(1)
        return 1 - (first if self.by == "confidence" else first - second)


@QUERY_STRATEGIES.register("ceal", pseudo_labels=True)
class CEAL(Uncertainty):
    """Unsure images to label, and sure ones with the model's prediction as pseudo-label (CEAL: Wang et al. 2016, Algorithm 1).

    A pseudo-label counts for one round: the image stays in the pool, and the next model predicts it again. It costs no label.

    Args:
        by: which images to label, as for `Uncertainty`.
        threshold: the entropy, in nats, below which the model is sure, in the first round.
        decay: taken from the threshold in every round.
    """

    def __init__(self, by: By = "confidence", threshold: float = 0.05, decay: float = 0.0033) -> None:
        super().__init__(by)
        check_non_negative(threshold=threshold, decay=decay)
        self.threshold, self.decay = threshold, decay

    def select(self, pool: Pool, count: int) -> Selection:
        """Select the images of lowest certainty, and pseudo-labels for the most certain ones."""
        selection = super().select(pool, count)
        sure = entropy(pool.probabilities) < self.threshold - self.decay * pool.round
        sure[selection.places] = False
        classes = pool.probabilities.argmax(1)
        return replace(selection, pseudo_labels={place: int(classes[place]) for place in sure.nonzero()[:, 0].tolist()})


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy (N,) in nats of probabilities (N, K)."""
    return torch.special.entr(probabilities.double()).sum(1)
