"""JTT and AFR, which need no group labels, against loops of plain PyTorch."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_checkpoint import identical
from test_checkpoint import stop_after as stop_after
from torch import Tensor, nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.guides import AFR, JTT
from sightline.heads import fit_linear
from sightline.training.build import Parts, build
from tiny import recipe

FIRST = {"epochs": 1, "lr": 3e-3, "guide": None}
SECOND = {"epochs": 2, "lr": 1e-3, "guide": {"name": "jtt", "upweight": 20.0}, "start": "initial"}
LAST = {"epochs": 2, "lr": 1e-2, "guide": {"name": "afr", "gamma": 3.0, "regularization": 0.5}, "trainable": "head"}


def first_model(tmp_path: Path) -> tuple[Parts, Tensor, Tensor]:
    """Train the first stage; return the parts with its model, and logits and labels of the images in order."""
    run = sl.train(recipe(stages=[FIRST]), output=tmp_path / "first")
    parts = build(recipe(stages=[FIRST]))
    parts.model.load_state_dict(load_file(run.last))
    batches = list(parts.plain_loader("train", 0, 1))
    with torch.no_grad():
        logits = torch.cat([parts.model.eval()(parts.spec.normalize(batch.images)) for batch in batches])
    return parts, logits, parts.splits["train"].labels


def second_stage(parts: Parts, weights: Tensor, trained: list[nn.Parameter], lr: float, penalty: float = 0.0) -> None:
    start = [parameter.detach().clone() for parameter in trained]
    loader, optimizer = parts.train_loader(0, 1), torch.optim.Adam(trained, lr)
    for epoch in (1, 2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            logits = parts.model(parts.spec.normalize(batch.images))
            losses = F.cross_entropy(logits, batch.labels, reduction="none")
            distance = sum((now - before).square().sum() for now, before in zip(trained, start))
            optimizer.zero_grad()
            ((weights[batch.indices] * losses).mean() + penalty * distance).backward()
            optimizer.step()


def assert_same(run: Any, model: nn.Module) -> None:
    for name, tensor in load_file(run.last).items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_second_training_begins_again_and_repeats_the_errors(tmp_path: Path) -> None:
    _, logits, labels = first_model(tmp_path)
    wrong = logits.argmax(1) != labels
    assert 0 < wrong.sum() < 20
    weights = 1 + 19 * wrong.float()
    parts = build(recipe(stages=[FIRST]))
    second_stage(parts, weights / weights.mean(), list(parts.model.parameters()), 1e-3)
    run = sl.train(recipe(stages=[FIRST, SECOND]), output=tmp_path / "run")
    assert_same(run, parts.model)
    assert float(run.rows[1]["train/weights/max"]) == pytest.approx(float((weights / weights.mean()).max()))


def test_afr_weights_the_last_layer_by_the_confidence_of_the_first_model(tmp_path: Path) -> None:
    parts, logits, labels = first_model(tmp_path)
    confidence = logits.softmax(1)[torch.arange(20), labels]
    weights = torch.exp(-3 * confidence) / torch.bincount(labels)[labels]
    second_stage(parts, weights / weights.mean(), list(parts.model.head.parameters()), 1e-2, penalty=0.5)
    run = sl.train(recipe(stages=[FIRST, LAST]), output=tmp_path / "run")
    assert_same(run, parts.model)
    assert float(run.rows[2]["train/afr"]) > 0


@pytest.mark.parametrize(("stage", "epochs"), [(SECOND, 1), (SECOND, 2), (LAST, 2)], ids=str)
def test_a_resumed_run_ends_bit_for_bit_alike(
    tmp_path: Path, stop_after: Any, stage: dict[str, Any], epochs: int
) -> None:
    r = recipe(stages=[FIRST, stage | {"averaging": "ema"}])
    whole = sl.train(r, output=tmp_path / "whole")
    stop_after(epochs, recipe=r, output=tmp_path / "parts")
    assert identical(whole.last, sl.train(r, output=tmp_path / "parts", resume=True).last)


def test_rare_classes_count_as_much_as_frequent_ones() -> None:
    """With gamma 0, the weights of each class add up to the same."""
    model, _ = sl.load_model("sightline/lenet5", classes=3)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    batches = [sl.Batch(torch.rand(7, 3, 32, 32), labels, indices=torch.arange(7))]
    objective = sl.Objective(model, guide := AFR(gamma=0.0))
    objective.on_stage_start(batches)
    sums = torch.zeros(3).index_add(0, labels, guide.weights)
    torch.testing.assert_close(sums, torch.full((3,), 7 / 3))


def test_guides_without_a_first_stage_raise(tmp_path: Path) -> None:
    model, _ = sl.load_model("sightline/lenet5", classes=2)
    batches = [sl.Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), indices=torch.arange(2))]
    with pytest.raises(SightlineError, match=r"JTT weighs images by .* call objective\.on_stage_start"):
        sl.Objective(model, JTT()).on_epoch_start(batches, 0)
    with pytest.raises(SightlineError, match=r"the first stage has the guide JTT, .* expected a stage before it"):
        sl.train(recipe(stages=[SECOND]), output=tmp_path / "run")
    with pytest.raises(SightlineError, match="upweight is 0"):
        JTT(upweight=0)
    with pytest.raises(SightlineError, match="gamma is -1"):
        AFR(gamma=-1)


def test_convex_fit_with_afr_weights_reaches_the_optimum(tmp_path: Path) -> None:
    stage = {"fit": "convex", "strength": 0.1, "guide": {"name": "afr", "gamma": 3.0}}
    plain = {"crop": 1.0, "flip": False}
    run = sl.train(recipe(stages=[FIRST, stage | {"guide": None}], augment=plain), output=tmp_path / "plain")
    erm = build(recipe(stages=[FIRST], augment=plain))
    erm.model.load_state_dict(load_file(sl.train(recipe(stages=[FIRST], augment=plain), output=tmp_path / "erm").last))
    features: list[Tensor] = []
    erm.model.eval().head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad():
        logits = torch.cat([erm.model(erm.spec.normalize(b.images)) for b in erm.plain_loader("train", 0, 1)])
    labels = erm.splits["train"].labels
    confidence = logits.softmax(1)[torch.arange(20), labels]
    weights = torch.exp(-3 * confidence) / torch.bincount(labels)[labels]
    weight, bias = fit_linear(torch.cat(features), labels, weights / weights.mean(), strength=0.1, classes=2)
    fitted = load_file(sl.train(recipe(stages=[FIRST, stage], augment=plain), output=tmp_path / "run").last)
    torch.testing.assert_close(fitted["head.weight"], weight.float(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(fitted["head.bias"], bias.float(), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(fitted["head.weight"], load_file(run.last)["head.weight"], rtol=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"balance_by": "groups"}, "balance_by and the guide AFR both weigh images"),
        ({"guide": {"name": "afr", "regularization": 0.1}}, r"regularization of AFR is 0\.1; expected 0"),
        ({"mixing": {"mixup": 0.2}}, "mixing is .* which has no use for it"),
    ],
    ids=str,
)
def test_keys_without_effect_in_a_convex_fit_raise(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    stage = {"fit": "convex", "strength": 0.1, "guide": {"name": "afr"}} | changes
    with pytest.raises(SightlineError, match=message):
        sl.train(recipe(stages=[FIRST, stage]), output=tmp_path / "run")
