"""What others are compared with: images at random, and all of them at once."""

import torch

from sightline._core.seeding import generator
from sightline.acquisition.base import Acquisition, Choice, Pool
from sightline.acquisition.registry import ACQUISITIONS


@ACQUISITIONS.register("random")
class Random(Acquisition):
    """Images at random (RAND)."""

    def choose(self, pool: Pool, count: int) -> Choice:
        """Any images."""
        order = torch.randperm(len(pool), generator=generator(pool.seed, pool.round, "acquisition"))[:count]
        return Choice(order.tolist(), [None] * count)


@ACQUISITIONS.register("all", whole=True)
class All(Acquisition):
    """The whole pool at once: what all labels would give (ALL)."""

    def choose(self, pool: Pool, count: int) -> Choice:
        """Every image, however few were asked for."""
        return Choice(list(range(len(pool))), [None] * len(pool))
