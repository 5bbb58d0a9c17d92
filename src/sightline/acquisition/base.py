"""What every query strategy is, and what it may know: images, a model, and no labels."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sightline._core.seeding import generator
from sightline._core.tensors import check_finite
from sightline.data.batch import Batch
from sightline.data.loader import Transformed
from sightline.errors import SightlineError
from sightline.metric_base.scoring import Scorer
from sightline.network.features import DeepFeatures
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerChoice
from sightline.network.modes import evaluating


@dataclass(frozen=True)
class Selection:
    """Images of a pool to label next.

    Attributes:
        places: theirs in the pool, the one that is wanted most first.
        scores: how much each is wanted, by a measure of the strategy's own; None = it was drawn.
        pseudo_labels: place -> class of further images, which the model is sure enough of to learn from its own prediction.
    """

    places: list[int]
    scores: list[float | None]
    pseudo_labels: dict[int, int] = field(default_factory=dict)


class Pool:
    """Images without labels, and the model that has learned from those that have one.

    A query strategy gets tensors of images, never batches: no label can reach it.

    Args:
        model: a classifier that returns logits (B, K).
        images: batches of the pool, in the same order each time they are gone through; labels are ignored.
        known: batches of the images that the model learned from, likewise; None = not available.
        layer: the target layer of explainers.
        input_spec: normalises images in [0, 1].
        seed: of everything drawn.
        round: how often images have been chosen before, from 0 on.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Iterable[Batch],
        known: Iterable[Batch] | None = None,
        *,
        layer: LayerChoice | None = None,
        input_spec: InputSpec | None = None,
        seed: int = 0,
        round: int = 0,
    ) -> None:
        self.model, self.layer, self.input_spec = model, layer, input_spec
        self.seed, self.round = seed, round
        self._images, self._known = images, known

    def images(self) -> Iterator[Tensor]:
        """Yield the pool's images (B, C, H, W), batch by batch, on the model's device."""
        device = next((p.device for p in self.model.parameters()), None)
        return (batch.images.to(device) for batch in self._images)

    def __len__(self) -> int:
        return self._size

    @cached_property
    def _size(self) -> int:
        loader = self._images
        if isinstance(loader, DataLoader) and isinstance(loader.dataset, Transformed) and not loader.drop_last:
            return len(loader.sampler)  # type: ignore[arg-type]  # spares reading every image
        return sum(len(batch) for batch in loader)

    @cached_property
    def probabilities(self) -> Tensor:
        """What the model says about each image: (N, K), on the CPU."""
        scorer = Scorer(self.model, self.input_spec)
        return torch.cat([scorer(images).cpu() for images in self.images()])

    @cached_property
    def features(self) -> Tensor:
        """The input of the layer that classifies, for each image: (N, D), on the CPU."""
        return self._features(self._images)

    @cached_property
    def known_features(self) -> Tensor:
        """As `features`, for each image that the model learned from.

        Raises:
            SightlineError: those images are not available.
        """
        if self._known is None:
            raise SightlineError("known is missing; this strategy needs the indices of the labeled images")
        return self._features(self._known)

    def _features(self, batches: Iterable[Batch]) -> Tensor:
        features = DeepFeatures(self.model)
        device = next((p.device for p in self.model.parameters()), None)
        found = []
        with torch.no_grad(), evaluating(self.model):
            for batch in batches:
                images = batch.images.to(device)
                found.append(features(to_inputs(images, self.input_spec)).cpu())
        return torch.cat(found)


class QueryStrategy(ABC):
    """A method that selects the images to label next."""

    @abstractmethod
    def select(self, pool: Pool, count: int) -> Selection:
        """Select this many images of a pool that has at least as many."""


class Ranking(QueryStrategy):
    """A strategy that gives every image its own score and takes the highest; equal ones are drawn."""

    @abstractmethod
    def scores(self, pool: Pool) -> Tensor:
        """How much each image (N,) is wanted."""

    def select(self, pool: Pool, count: int) -> Selection:
        """Select the images with the highest scores."""
        scores = self.scores(pool).double().cpu()
        check_finite(scores, "the scores of the pool", "is the model finite there?")
        # Drawn, because data sets are in order of class: the first of equal images would be of one class.
        shuffled = torch.randperm(len(scores), generator=generator(pool.seed, pool.round, "acquisition"))
        order = shuffled[scores[shuffled].argsort(descending=True, stable=True)][:count]
        return Selection(order.tolist(), scores[order].tolist())
