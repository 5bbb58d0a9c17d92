"""Group DRO: its weights step by step, alone and on two processes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from processes import WORLD, gradients_of, in_two, join, share
from torch.nn.parallel import DistributedDataParallel

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.guides import create_guide
from sightline.guides.group_dro import GroupDRO


def setting(size: int = 6) -> tuple[TinyCNN, sl.Batch]:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of(size)
    batch.groups = torch.tensor([0, 2, 2, 0, 0, 2])
    return model, batch


def test_group_dro_steps_equal_algorithm_1() -> None:
    model, batch = setting()
    objective = sl.Objective(model, GroupDRO(groups=3, step_size=0.5))
    q = torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(3):
        losses = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
        means = torch.stack([losses[batch.groups == 0].mean(), torch.tensor(0.0), losses[batch.groups == 2].mean()])
        q = q * torch.exp(0.5 * means.detach())
        q = q / q.sum()
        expected = (q * means).sum() / (q[0] + q[2])
        output = objective(batch)
        torch.testing.assert_close(output["loss"], expected, atol=1e-6, rtol=1e-6)
        ours = torch.autograd.grad(output["loss"], model.parameters())
        for a, b in zip(ours, torch.autograd.grad(expected, model.parameters()), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        assert output["task"] == output["loss"]
    torch.testing.assert_close(objective.guides[0].log_weights.exp().double(), q, atol=1e-6, rtol=1e-6)


def test_the_weights_move_in_training_steps_alone_and_are_saved() -> None:
    model, batch = setting()
    guide = GroupDRO(groups=3, step_size=0.5)
    objective, start = sl.Objective(model, guide), guide.log_weights.clone()
    with torch.no_grad():
        objective(batch)
    objective.eval()(batch)
    assert torch.equal(guide.log_weights, start)
    objective.train()(batch)
    assert not torch.equal(guide.log_weights, start)
    other = sl.Objective(TinyCNN().double(), GroupDRO(groups=3))
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.guides[0].log_weights, guide.log_weights)


def test_a_step_size_of_zero_balances_the_groups() -> None:
    model, batch = setting()
    batch.groups = torch.tensor([0, 1, 1, 1, 1, 1])
    losses = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
    expected = (losses[0] + losses[1:].mean()) / 2
    torch.testing.assert_close(sl.Objective(model, GroupDRO(2, step_size=0.0))(batch)["loss"], expected)


def test_many_steps_of_a_large_size_stay_finite_and_follow_the_worst_group() -> None:
    model, batch = setting()
    objective = sl.Objective(model, GroupDRO(groups=3, step_size=1e4))
    losses = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
    worst = max(losses[batch.groups == g].mean().item() for g in (0, 2))
    for _ in range(5):
        loss = objective(batch)["loss"]
    assert loss.item() == pytest.approx(worst)


def test_a_loss_that_is_not_finite_does_not_stay_in_the_weights() -> None:
    model, batch = setting()
    objective = sl.Objective(model, GroupDRO(groups=3))
    with torch.no_grad():
        model.classifier.bias.fill_(torch.nan)
    with pytest.raises(SightlineError, match="NaN or infinite"):
        objective(batch)
    assert objective.guides[0].log_weights.isfinite().all()


def test_groups_that_are_missing_or_out_of_range() -> None:
    model, batch = setting()
    with pytest.raises(SightlineError, match=r"groups range over \[0, 2\]; group_dro was made for 2"):
        sl.Objective(model, GroupDRO(groups=2))(batch)
    batch.groups = None
    with pytest.raises(SightlineError, match="the batch has no groups"):
        sl.Objective(model, GroupDRO(groups=2))(batch)
    with pytest.raises(SightlineError, match="needs 'groups'"):
        create_guide("group_dro")
    with pytest.raises(SightlineError, match="groups is 0"):
        create_guide("group_dro", groups=0)
    with pytest.raises(SightlineError, match="step_size is -1"):
        create_guide("group_dro", groups=2, step_size=-1.0)


def train(rank: int, folder: str) -> None:
    join(rank, folder)
    model, batch = setting()
    wrapped = DistributedDataParallel(sl.Objective(model, GroupDRO(groups=3, step_size=0.5)))
    for _ in range(2):
        model.zero_grad()
        wrapped(share(batch, rank))["loss"].backward()
    torch.save((gradients_of(model), wrapped.module.guides[0].log_weights), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_weights_and_gradients_of_one(tmp_path: Path) -> None:
    in_two(train, tmp_path)
    model, batch = setting()
    objective = sl.Objective(model, GroupDRO(groups=3, step_size=0.5))
    for _ in range(2):
        model.zero_grad()
        objective(batch)["loss"].backward()
    for rank in range(WORLD):
        gradients, weights = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(weights, objective.guides[0].log_weights)
        for ours, one in zip(gradients, gradients_of(model), strict=True):
            torch.testing.assert_close(ours, one, atol=1e-7, rtol=1e-5)
