"""Right for the right reasons: worked by hand, written out, and against finite differences."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from differences import check_gradients
from processes import gradients_of, in_two, join, share
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.guides import GuideSum, create_guide, from_config
from sightline.guides.energy import Energy
from sightline.guides.gain import GAIN
from sightline.guides.right_reasons import RightReasons


def setting(seed: int = 4, size: int = 4) -> tuple[TinyCNN, sl.Batch]:
    torch.manual_seed(seed)
    return TinyCNN().double(), batch_of(size)


def penalty_by_hand(model: nn.Module, batch: sl.Batch) -> Tensor:
    """Eq. of the paper, image by image and class by class."""
    penalties = []
    assert batch.masks is not None
    for image, mask in zip(batch.images, batch.masks):
        x = image[None].clone().requires_grad_()
        log_probabilities = model(x).softmax(1).log()[0]
        gradient = sum(torch.autograd.grad(each, x, create_graph=True)[0] for each in log_probabilities)
        penalties.append((gradient[0][:, mask == 0] ** 2).sum())
    return torch.stack(penalties)


def test_right_reasons_of_a_linear_classifier_equals_the_closed_form() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3)).double()
    batch = batch_of(2)
    batch.masks[:, :, :5] = 0
    batch.masks[:, :, 5:] = 1
    weight, p = model[1].weight, model(batch.images).softmax(1)
    gradients = (weight.sum(0) - 3 * p @ weight).unflatten(1, (3, 8, 8))
    expected = gradients[..., :5].square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(sl.Objective(model, RightReasons())(batch)["right_reasons"], expected.detach())


def test_the_loss_and_its_gradients_equal_the_formula_written_out() -> None:
    model, batch = setting()
    ours = sl.Objective(model, RightReasons(weight=1e5))(batch)["loss"]
    task = nn.functional.cross_entropy(model(batch.images), batch.labels)
    expected = task + 1e5 * penalty_by_hand(model, batch).mean()
    torch.testing.assert_close(ours, expected)
    for a, b in zip(torch.autograd.grad(ours, model.parameters()), torch.autograd.grad(expected, model.parameters())):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("options", [{}, {"region": "boxes"}, {"reward": 1e-4}])
def test_gradients_of_every_parameter_match_finite_differences(options: dict[str, object]) -> None:
    model, batch = setting(size=2)
    batch.boxes = torch.tensor([[[1.0, 2, 6, 7]], [[0, 0, 3, 8]]], dtype=torch.float64)
    batch.has_box = torch.ones(2, 1, dtype=torch.bool)
    objective = sl.Objective(model, RightReasons(weight=1e4, **options), task_weight=0.0)  # type: ignore[arg-type]
    seen = check_gradients(objective, batch, weight=10.0)
    assert {"classifier.weight", "features.0.weight"} <= seen


def test_right_reasons_shares_the_forward_pass_in_training_and_has_one_elsewhere() -> None:
    model, batch = setting()
    objective, calls = sl.Objective(model, RightReasons(weight=1e5)), []
    model.register_forward_hook(lambda *_: calls.append(1))
    trained = objective(batch)
    assert len(calls) == 1
    assert not batch.images.requires_grad
    with torch.no_grad():
        watched = objective.eval()(batch)
    assert len(calls) == 3
    assert not watched["loss"].requires_grad
    torch.testing.assert_close(watched["right_reasons"], trained["right_reasons"])
    objective.train()
    with torch.no_grad():
        torch.testing.assert_close(objective(batch)["right_reasons"], trained["right_reasons"])


def test_another_guides_transform_may_cut_the_graph() -> None:
    model, batch = setting()
    attack = {"name": "adversarial_background", "steps": 1}
    losses = []
    for order in ([{"name": "right_reasons"}, attack], [attack, {"name": "right_reasons"}]):
        loss = sl.Objective(model, from_config(order))(batch)["loss"]
        losses.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())]))
    torch.testing.assert_close(losses[0], losses[1])


def test_gradients_are_those_of_the_pixels_before_their_normalisation() -> None:
    model, batch = setting()
    spec = sl.InputSpec((0.5,) * 3, (0.25,) * 3, (8, 8))
    inside = sl.Objective(model, RightReasons(), input_spec=spec)(batch)["right_reasons"]
    before = sl.Objective(model, RightReasons())(replace(batch, images=spec.normalize(batch.images)))["right_reasons"]
    torch.testing.assert_close(inside, 16 * before)


def test_the_reward_is_the_share_that_the_object_lacks() -> None:
    model, batch = setting()
    alone = sl.Objective(model, RightReasons())(batch)["right_reasons"]
    swapped = replace(batch, masks=1 - batch.masks)
    both = sl.Objective(model, RightReasons(reward=2.0))
    shares = []
    for i in range(len(batch)):
        a, b = (
            penalty_by_hand(model, sl.Batch(x.images[i : i + 1], x.labels[i : i + 1], masks=x.masks[i : i + 1]))[0]
            for x in (batch, swapped)
        )
        shares.append(1 - b / (a + b))
    torch.testing.assert_close(both(batch)["right_reasons"], (alone + 2 * torch.stack(shares).mean()).detach())


def test_images_without_an_object_weigh_nothing_and_are_counted() -> None:
    model, batch = setting()
    batch.masks[3] = 0
    batch.has_mask = torch.tensor([True, True, False, True])
    mixed = sl.Objective(model, RightReasons(weight=1e5))(batch)
    first = sl.Batch(batch.images[:2], batch.labels[:2], masks=batch.masks[:2])
    torch.testing.assert_close(mixed["right_reasons"], sl.Objective(model, RightReasons())(first)["right_reasons"])
    assert int(mixed["n/right_reasons/unannotated"]) == 2
    none = sl.Objective(model, RightReasons(region="boxes"), task_weight=0.0)(batch)
    none["loss"].backward()
    assert all(not p.grad.any() for p in model.parameters())


def test_normalised_it_has_the_size_of_the_cross_entropy() -> None:
    model, batch = setting()
    batch.has_mask = torch.tensor([True, True, True, False])
    plain = sl.Objective(model, RightReasons(), task_weight=0.0)(batch)
    even = sl.Objective(model, RightReasons(normalize=True), task_weight=0.0)(batch)
    task = nn.functional.cross_entropy(model(batch.images[:3]), batch.labels[:3]).detach()
    torch.testing.assert_close(even["right_reasons"], task)
    torch.testing.assert_close(even["right_reasons/factor"], task / plain["right_reasons"])
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(even["loss"], parameters), torch.autograd.grad(plain["loss"], parameters)):
        torch.testing.assert_close(a, even["right_reasons/factor"] * b)


def test_right_reasons_works_with_chunks_of_views_and_accumulation() -> None:
    model, batch = setting(size=4)

    def guides() -> GuideSum:
        return RightReasons(weight=1e4) + sl.SegmentOverlap(views=4)

    def found(objective: sl.Objective, *parts: sl.Batch) -> Tensor:
        objective.zero_grad()
        counts = objective.counts(parts) if len(parts) > 1 else None
        for part in parts:
            objective(part, counts=counts)["loss"].backward()
        return torch.cat([p.grad.flatten() for p in objective.parameters()])

    whole = found(sl.Objective(model, guides()), batch)
    torch.testing.assert_close(found(sl.Objective(model, guides(), view_chunk=1), batch), whole)
    parts = [sl.Batch(batch.images[s], batch.labels[s], masks=batch.masks[s]) for s in (slice(1), slice(1, 4))]
    torch.testing.assert_close(found(sl.Objective(model, guides()), *parts), whole)


def test_descending_it_makes_the_gradient_leave_the_background() -> None:
    torch.manual_seed(0)
    model, batch = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), batch_of(dtype=torch.float32)
    batch.masks[:] = 0
    batch.masks[:, :, :4] = 1
    objective = sl.Objective(model, RightReasons(weight=10.0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = objective(batch)
    for _ in range(100):
        optimizer.zero_grad()
        last = objective(batch)
        last["loss"].backward()
        optimizer.step()
    assert last["right_reasons"] < 0.1 * first["right_reasons"]
    assert last["task"] < 0.5 * first["task"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight is -1.0"),
        ({"region": "mask"}, "did you mean 'masks'"),
        ({"reward": -0.5}, "reward is -0.5"),
    ],
)
def test_right_reasons_invalid_options_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        create_guide("right_reasons", **options)


# ---- on two processes ----


def all_weighted() -> GuideSum:
    """Every guide with a weight, each of the cross-entropy's size."""
    from sightline.guides.attention_gate import AttentionGate

    gate = AttentionGate(layer="features.1", normalize=True)
    return RightReasons(normalize=True) + Energy(normalize=True) + GAIN(normalize=True, supervision=0.5) + gate


def uneven() -> tuple[TinyCNN, sl.Batch]:
    model, batch = setting(size=6)
    batch.has_mask = torch.tensor([True, False, True, True, False, False])
    return model, batch


def train(rank: int, folder: str) -> None:
    join(rank, folder)
    model, batch = uneven()
    wrapped = DistributedDataParallel(sl.Objective(model, all_weighted()))
    wrapped(share(batch, rank))["loss"].backward()
    if rank == 0:
        torch.save(gradients_of(model), Path(folder) / "gradients.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    in_two(train, tmp_path)
    model, batch = uneven()
    sl.Objective(model, all_weighted())(batch)["loss"].backward()
    for ours, one in zip(torch.load(tmp_path / "gradients.pt"), gradients_of(model), strict=True):
        torch.testing.assert_close(ours, one)
