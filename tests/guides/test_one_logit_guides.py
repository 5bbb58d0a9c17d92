"""One logit z trains as two logits do whose difference is z: every guide, step by step."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides import GUIDES, create_guide


class Pair(nn.Module):
    """The logits (-z/2, z/2) of a model that returns z."""

    def __init__(self, one: nn.Module) -> None:
        super().__init__()
        self.one = one

    def forward(self, x: Tensor) -> Tensor:
        z = self.one(x)
        return torch.cat([-z / 2, z / 2], 1)


OPTIONS: dict[str, dict[str, Any]] = {
    "group_dro": {"groups": 2},
    "hard_negative_mining": {"interval": 1},
    "explanation_consistency": {"interval": 1, "min_weight": 0.01},
    "iccnn": {"groups": 2, "class_weight": 0.3},
    "gain": {"supervision": 0.5},
    "right_reasons": {"reward": 0.1, "normalize": True},
    "region_activation": {"region": "masks"},
}
CHANGES_THE_MODEL = ("attention_branch", "attention_gate", "attention_pooling", "impactx", "wae")


def binary_batch(size: int = 6) -> Batch:
    """Doubles of two classes, with masks and groups."""
    batch = batch_of(size, 12, 2)
    return Batch(batch.images, batch.labels, batch.masks, indices=batch.indices, groups=torch.arange(size) // 2 % 2)


def train(objective: sl.Objective, batches: list[Batch]) -> list[Tensor]:
    """The losses of a step on each batch."""
    optimizer = torch.optim.SGD(objective.unwrap_model().parameters(), 0.5)
    losses = []
    objective.on_stage_start(batches)
    for epoch in range(2):
        objective.on_epoch_start(batches, epoch)
        for batch in batches:
            torch.manual_seed(epoch)
            loss = objective(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("name", [None, *(n for n in GUIDES.names() if n not in CHANGES_THE_MODEL)])
def test_every_guide_trains_one_logit_as_two(name: str | None) -> None:
    torch.manual_seed(3)
    one = TinyCNN(1).double()
    pair = Pair(copy.deepcopy(one))
    batches = [binary_batch(), binary_batch()]
    for batch in batches:
        batch.indices = batch.indices + (6 if batch is batches[1] else 0)

    def guide() -> Any:
        return None if name is None else create_guide(name, **OPTIONS.get(name, {}))

    ours = train(sl.Objective(one, guide(), layer="features.2"), batches)
    theirs = train(sl.Objective(pair, guide(), layer="one.features.2"), batches)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(one.parameters(), pair.one.parameters()):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("name", CHANGES_THE_MODEL)
def test_guides_that_change_the_model_keep_one_logit(name: str) -> None:
    torch.manual_seed(4)
    options = {"size": 12} if name in ("impactx", "wae") else {}
    model, batch = TinyCNN(1).double(), binary_batch()
    batch.maps = torch.rand(6, 12, 12, dtype=torch.float64)
    layer = "features.1" if name.startswith("attention") else "features.2"
    extra = {"layer": layer} if name in ("attention_branch", "attention_gate") else {}
    output = sl.Objective(model, create_guide(name, **options, **extra))(batch)
    z, labels = model(batch.images)[:, 0], batch.labels.double()
    torch.testing.assert_close(output["task"], F.binary_cross_entropy_with_logits(z, labels).detach())
    torch.testing.assert_close(output["logits"], torch.stack([torch.zeros_like(z), z], 1))
    if name == "attention_branch":
        heard: list[Tensor] = []
        model.features[1].attention_branch.register_forward_hook(lambda module, args, output: heard.append(output[1]))
        model(batch.images)
        branch = F.binary_cross_entropy_with_logits(heard[0][:, 0], labels)
        torch.testing.assert_close(output["attention_branch"], branch.detach())


def test_one_logit_has_no_use_for_several_labels() -> None:
    batch = Batch(torch.rand(4, 3, 8, 8), torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]]))
    with pytest.raises(SightlineError, match="one logit"):
        sl.Objective(TinyCNN(1))(batch)
    with pytest.raises(SightlineError, match=r"labels have shape \(4, 1\)"):
        Batch(torch.rand(4, 3, 8, 8), torch.ones(4, 1, dtype=torch.int64))
