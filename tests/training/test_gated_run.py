"""A run whose guide changes the model: trained, resumed, and evaluated from its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sightline as sl
from sightline.data import DATASETS
from sightline.evaluation import evaluate
from sightline.training import loop, train
from tiny import recipe

GUIDE = {"name": "attention_gate", "layer": "relu2"}


def test_a_gated_run_is_evaluated_with_its_gate(tmp_path: Path) -> None:
    stages = [{"epochs": 1, "lr": 1e-3}, {"epochs": 1, "lr": 1e-3, "guide": None}]
    run = train(recipe(guide=GUIDE, stages=stages, save_best={"metric": "val/accuracy"}), output=tmp_path / "run")
    state = load_file(run.last)
    assert state["relu2.attention_gate.weight"].any()
    model, spec = sl.load_model("sightline/lenet5", run.last, 2, 32)
    images = spec.normalize(torch.rand(2, 3, 32, 32))
    gated = model.eval()(images)
    with torch.no_grad():
        model.get_submodule("relu2.attention_gate").bias.fill_(-100.0)
    assert not torch.allclose(model(images), gated)
    found = evaluate(run, ["test"], ["gradcam"], ["accuracy"], device="cpu")
    assert found["test"].facts["n"] == len(DATASETS.create("squares")["test"])


def test_a_stage_of_the_head_trains_what_its_guide_adds(tmp_path: Path) -> None:
    stages = [{"epochs": 1, "lr": 1e-2, "trainable": "head"}]
    run = train(recipe(guide=GUIDE, stages=stages), output=tmp_path / "head")
    state = load_file(run.last)
    assert state["relu2.attention_gate.weight"].any()
    bare = [{"epochs": 1, "lr": 1e-2}, {"epochs": 1, "lr": 1e-2, "trainable": "head", "guide": None}]
    short = train(recipe(guide=GUIDE, stages=bare[:1]), output=tmp_path / "first")
    long = train(recipe(guide=GUIDE, stages=bare), output=tmp_path / "both")
    first, both = load_file(short.last), load_file(long.last)
    changed = {name.rpartition(".")[0] for name in first if not torch.equal(first[name], both[name])}
    assert changed == {"head"}


class Stop(Exception):
    """What ends a run from outside."""


def test_gated_run_resumes_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [{"epochs": 2, "lr": 1e-2}]
    whole = train(recipe(guide=GUIDE, stages=stages), output=tmp_path / "whole")
    train_epoch = loop.Trainer.train_epoch

    def stopping(trainer: loop.Trainer, *arguments: Any) -> dict[str, float]:
        if trainer.state.epoch == 1:
            raise Stop
        return train_epoch(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "train_epoch", stopping)
        with pytest.raises(Stop):
            train(recipe(guide=GUIDE, stages=stages), output=tmp_path / "parts")
    parts = train(recipe(guide=GUIDE, stages=stages), output=tmp_path / "parts", resume=True)
    one, other = load_file(whole.last), load_file(parts.last)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
