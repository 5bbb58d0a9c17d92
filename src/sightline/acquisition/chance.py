"""What others are compared with: images at random, and all of them at once."""

import torch

from sightline._core.seeding import generator
from sightline.acquisition.base import Pool, QueryStrategy, Selection
from sightline.acquisition.registry import QUERY_STRATEGIES


@QUERY_STRATEGIES.register("random")
class Random(QueryStrategy):
    """Images at random (RAND)."""

    def select(self, pool: Pool, count: int) -> Selection:
        """Any images."""
        order = torch.randperm(len(pool), generator=generator(pool.seed, pool.round, "acquisition"))[:count]
        return Selection(order.tolist(), [None] * count)


@QUERY_STRATEGIES.register("all", whole=True)
class All(QueryStrategy):
    """The whole pool at once: what all labels would give (ALL)."""

    def select(self, pool: Pool, count: int) -> Selection:
        """Every image, however few were asked for."""
        return Selection(list(range(len(pool))), [None] * len(pool))
