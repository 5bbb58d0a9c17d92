"""Images that the model is unsure of, and with them its guesses for those that it is sure of."""

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from sightline.acquisition.base import Choice, Pool, Ranking
from sightline.acquisition.registry import ACQUISITIONS
from sightline.errors import SightlineError

By = Literal["confidence", "margin", "entropy"]


@ACQUISITIONS.register("uncertainty")
class Uncertainty(Ranking):
    """Images that the model is least sure of (AL: Lewis and Gale 1994, uncertainty sampling).

    Args:
        by: `"confidence"` = 1 less the highest probability; `"margin"` = 1 less its lead over the second; `"entropy"`, in nats.
    """

    def __init__(self, by: By = "confidence") -> None:
        if by not in get_args(By):
            raise SightlineError(f"by is {by!r}; expected 'confidence', 'margin' or 'entropy'")
        self.by = by

    def scores(self, pool: Pool) -> Tensor:
        """The uncertainty (N,)."""
        if self.by == "entropy":
            return entropy(pool.probabilities)
        first, second = pool.probabilities.topk(2, dim=1).values.unbind(1)
        return 1 - (first if self.by == "confidence" else first - second)


@ACQUISITIONS.register("ceal", guesses=True)
class CEAL(Uncertainty):
    """Unsure images to label, and sure ones with the model's guess (CEAL: Wang et al. 2016, Algorithm 1).

    A guess counts for one round: the image stays in the pool, and the next model guesses anew. It costs no label.

    Args:
        by: which images to label, as for `Uncertainty`.
        threshold: the entropy, in nats, below which the model is sure, in the first round.
        decay: taken from the threshold in every round.
    """

    def __init__(self, by: By = "confidence", threshold: float = 0.05, decay: float = 0.0033) -> None:
        super().__init__(by)
        for name, value in (("threshold", threshold), ("decay", decay)):
            if value < 0:
                raise SightlineError(f"{name} is {value}; expected an entropy in nats, 0 or more")
        self.threshold, self.decay = threshold, decay

    def choose(self, pool: Pool, count: int) -> Choice:
        """The least sure images, and guesses for the surest."""
        choice = super().choose(pool, count)
        sure = entropy(pool.probabilities) < self.threshold - self.decay * pool.round
        sure[choice.places] = False
        classes = pool.probabilities.argmax(1)
        return replace(choice, guesses={place: int(classes[place]) for place in sure.nonzero()[:, 0].tolist()})


def entropy(probabilities: Tensor) -> Tensor:
    """The entropy (N,) in nats of probabilities (N, K)."""
    return torch.special.entr(probabilities.double()).sum(1)
