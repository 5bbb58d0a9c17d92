"""Fine-tuning that keeps what a network knows, against loops of plain PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_checkpoint import stop_after as stop_after
from torch import Tensor, nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.network.modes import batch_norms
from sightline.training.build import Parts, build
from sightline.training.optim import decayed_groups
from tiny import recipe

HEAD, ALL = {"epochs": 1, "lr": 1e-2, "trainable": "head"}, {"epochs": 1, "lr": 1e-3}


def trained_by_hand(
    parts: Parts, epochs: list[tuple[Any, Callable[[nn.Module], Any]]], loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Train a stage of one epoch for each pair of parameter groups and the mode that the model is put in."""
    model, loader = parts.model, parts.train_loader(0, 1)
    for epoch, (groups, mode) in enumerate(epochs):
        loader.sampler.set_epoch(epoch)
        mode(model)
        optimizer = torch.optim.Adam(groups)
        for batch in loader:
            optimizer.zero_grad()
            loss(model(parts.spec.normalize(batch.images)), batch.labels).backward()
            optimizer.step()
    return model.state_dict()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6, msg=name)


def test_head_first_and_then_all_is_two_fresh_optimizers_and_a_still_trunk(tmp_path: Path) -> None:
    """LP-FT (Kumar et al. 2022): the probe sees the trunk as in evaluation, fine-tuning begins with a new Adam."""
    r = recipe(model="sightline/small_cnn", guide=None, stages=[HEAD, ALL])
    parts = build(r)
    head = [{"params": list(parts.model.head.parameters()), "lr": 1e-2}]
    everything = [{"params": list(parts.model.parameters()), "lr": 1e-3}]
    by_hand = trained_by_hand(parts, [(head, nn.Module.eval), (everything, nn.Module.train)], F.cross_entropy)
    assert_same(load_file(sl.train(r, output=tmp_path / "run").last), by_hand)


def test_layer_decay_frozen_batch_norm_and_smooth_labels_combine(tmp_path: Path) -> None:
    stage = {"epochs": 1, "lr": 1e-2, "layer_decay": 0.5, "batch_norm": "frozen"}
    r = recipe(model="sightline/small_cnn", guide=None, label_smoothing=0.2, stages=[stage])
    parts = build(r)
    start = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    norms = {id(parameter) for norm in batch_norms(parts.model) for parameter in norm.parameters()}
    groups = [
        {"params": [p for p in getattr(parts.model, part).parameters() if id(p) not in norms], "lr": 1e-2 * rate}
        for part, rate in [("stem", 1 / 16), ("head", 1)]
    ] + [
        {"params": [p for p in block.parameters() if id(p) not in norms], "lr": 1e-2 * rate}
        for block, rate in zip(parts.model.blocks, [1 / 8, 1 / 4, 1 / 2], strict=True)
    ]

    def smooth(logits: Tensor, labels: Tensor) -> Tensor:
        targets = F.one_hot(labels, 2) * 0.8 + 0.1
        return -(targets * logits.log_softmax(1)).sum(1).mean()

    by_hand = trained_by_hand(parts, [(groups, nn.Module.eval)], smooth)
    run = sl.train(r, output=tmp_path / "run")
    after = load_file(run.last)
    assert_same(after, by_hand)
    still = {name for name in start if torch.equal(start[name], after[name])}
    assert still == {name for name in start if "norm" in name or (".1." in name and "stem" in name)}
    assert float(run.rows[0]["lr"]) == 1e-2  # of the classifier


def test_a_stage_after_a_frozen_one_trains_batch_norm_again(tmp_path: Path) -> None:
    stages = [ALL | {"batch_norm": "frozen"}, ALL]
    r = recipe(model="sightline/small_cnn", guide=None, stages=stages)
    start = {name: tensor.clone() for name, tensor in build(r).model.state_dict().items()}
    after = load_file(sl.train(r, output=tmp_path / "run").last)
    assert not any(torch.equal(start[name], after[name]) for name in start)
    assert after["blocks.0.norm1.num_batches_tracked"] == 3


def test_the_rates_follow_the_schedule_and_what_a_guide_adds_has_the_classifiers(tmp_path: Path) -> None:
    model, _ = sl.load_model("sightline/lenet5", classes=2)
    added = nn.Parameter(torch.zeros(1))
    groups = decayed_groups(model, [*model.fc2.parameters(), *model.conv1.parameters(), added], 0.1, 0.5)
    assert [group["lr"] for group in groups] == pytest.approx([0.1 * 0.5**4, 0.1 * 0.5, 0.1])
    assert groups[-1]["params"] == [added]
    stage = {"epochs": 1, "lr": 1e-2, "layer_decay": 0.5, "schedule": "cosine"}
    common: dict[str, Any] = {"guide": None, "optimizer": {"name": "sgd", "momentum": 0.0}, "batch_size": 20}
    start = build(recipe(**common)).model.state_dict()
    moved = {
        decay: load_file(sl.train(recipe(**common, stages=[stage | {"layer_decay": decay}]), output=tmp_path / str(decay)).last)
        for decay in (1.0, 0.5)
    }  # fmt: skip
    for name, exponent in [("conv1", 4), ("conv2", 3), ("fc1", 2), ("fc2", 1), ("head", 0)]:
        plain, decayed = (moved[decay][f"{name}.weight"] - start[f"{name}.weight"] for decay in (1.0, 0.5))
        torch.testing.assert_close(decayed, plain * 0.5**exponent, rtol=1e-3, atol=1e-7)


def test_a_resumed_run_with_decayed_rates_ends_bit_for_bit_alike(tmp_path: Path, stop_after: Any) -> None:
    stage = {"epochs": 3, "lr": 1e-2, "layer_decay": 0.7, "batch_norm": "frozen"}
    r = recipe(model="sightline/small_cnn", stages=[stage], label_smoothing=0.1)
    whole = sl.train(r, output=tmp_path / "whole")
    stop_after(2, recipe=r, output=tmp_path / "parts")
    resumed = sl.train(r, output=tmp_path / "parts", resume=True)
    one, other = load_file(whole.last), load_file(resumed.last)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "stage", [{"layer_decay": 0}, {"layer_decay": 1.5}, {"batch_norm": "freeze"}, {"layer_decay": "0.5"}], ids=str
)
def test_values_out_of_range_are_named(stage: dict[str, Any]) -> None:
    with pytest.raises(SightlineError, match=rf"stages\.0\.{next(iter(stage))}"):
        recipe(stages=[ALL | stage])


def test_frozen_batch_norm_trains_on_one_image(tmp_path: Path) -> None:
    """A last batch of one image stops batch norm in training mode; frozen, it does not."""
    changes: dict[str, Any] = {"guide": None, "batch_size": 1, "model": "sightline/small_cnn"}
    run = sl.train(recipe(**changes, stages=[ALL | {"batch_norm": "frozen"}]), output=tmp_path / "run")
    assert run.facts["status"] == "finished"
