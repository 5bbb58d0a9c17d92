"""A stage on balanced data: what is drawn, and the last layer retrained on it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sightline.data import DATASETS, Splits
from sightline.data.loader import EpochSampler, balanced_order
from sightline.errors import SightlineError
from sightline.training import loop, train
from tiny import Squares, recipe


class Skewed(Squares):
    """Squares of which one in five is of the second group; the classes stay as frequent."""

    def __init__(self, images: int, seed: int, grouped: bool = True) -> None:
        super().__init__(images, seed)
        self.groups = ["many", "few"] if grouped else []
        self.group_ids = (torch.arange(images) % 5 == 0).long() if grouped else None


@DATASETS.register("skewed-squares")
def skewed_squares(grouped: bool = True) -> Splits:
    """Squares in two groups of unequal size."""
    return Splits({"train": Skewed(20, 0, grouped), "val": Squares(8, 1), "test": Squares(8, 2)})


def test_every_stratum_comes_up_as_often_and_its_members_in_turn() -> None:
    strata = torch.tensor([3] * 9 + [0] * 2 + [7] * 2)
    order = balanced_order(strata, torch.Generator().manual_seed(0))
    assert Counter(strata[order].tolist()) == {0: 5, 3: 4, 7: 4}
    counts = Counter(order.tolist())
    assert all(counts[place] <= 1 for place in range(9))
    assert sorted(counts[place] for place in (9, 10)) == [2, 3]
    assert [counts[place] for place in (11, 12)] == [2, 2]


def test_the_order_depends_on_seed_and_epoch_alone_and_is_shared_by_processes() -> None:
    strata = torch.tensor([0] * 8 + [1] * 2)

    def draw(epoch: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> list[int]:
        sampler = EpochSampler(10, train=True, seed=seed, rank=rank, world_size=world_size)
        sampler.balance(strata)
        sampler.set_epoch(epoch)
        assert len(sampler) == 10 // world_size
        return [index for _, index in sampler]

    assert draw(0) == draw(0)
    assert len({tuple(draw(0)), tuple(draw(1)), tuple(draw(0, seed=1))}) == 3
    assert [
        index for pair in zip(draw(0, rank=0, world_size=2), draw(0, rank=1, world_size=2)) for index in pair
    ] == draw(0)


def test_the_last_layer_alone_is_retrained_on_balanced_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Counter[int]] = []
    step = loop.Trainer.train_step

    def watch(trainer: loop.Trainer, batches: list[Any], *rest: Any) -> Any:
        while len(seen) <= trainer.state.epoch:
            seen.append(Counter())
        for batch in batches:
            seen[-1].update((batch.indices % 5 == 0).long().tolist())
        return step(trainer, batches, *rest)

    monkeypatch.setattr(loop.Trainer, "train_step", watch)
    first = {"epochs": 1, "lr": 1e-3}
    last = {"epochs": 1, "lr": 1e-2, "trainable": "head", "guide": None, "balance_by": "groups"}
    before = train(recipe(data="skewed-squares", stages=[first]), output=tmp_path / "first")
    seen.clear()
    after = train(recipe(data="skewed-squares", stages=[first, last, first]), output=tmp_path / "both")
    assert seen == [{0: 16, 1: 4}, {0: 10, 1: 10}, {0: 16, 1: 4}]
    assert [row["step"] for row in after.rows] == ["3", "6", "9"]
    seen.clear()
    retrained = train(recipe(data="skewed-squares", stages=[first, last]), output=tmp_path / "retrained")
    one, other = load_file(before.last), load_file(retrained.last)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {"head.weight", "head.bias"}


def test_groups_that_the_data_does_not_have(tmp_path: Path) -> None:
    stage = {"epochs": 1, "lr": 1e-3, "balance_by": "groups"}
    data = {"name": "skewed-squares", "grouped": False}
    with pytest.raises(SightlineError, match=r"stages\.0\.balance_by is 'groups', but 'skewed-squares' has none"):
        train(recipe(data=data, stages=[stage]), output=tmp_path / "run")
    with pytest.raises(SightlineError, match="balance_by"):
        recipe(stages=[stage | {"balance_by": "group"}])
