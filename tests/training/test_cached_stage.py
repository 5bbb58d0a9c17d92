"""Stages that are trained from kept features give what they give from images."""

import pytest
import torch
from safetensors.torch import load_file

import sightline as sl
from sightline.errors import SightlineError
from sightline.runs.load_run import load_run
from sightline.training import cached_stage
from sightline.training.build import build
from tiny import recipe

OVERLAP = {"name": "segment_overlap", "weight": 2.0}
SWAP = {"name": "random_background", "probability": 0.7}


def trained(path, stage, **changes):
    keys = {"model": "sightline/small_cnn", "guide": None, "augment": {"jitter": 0.2}, **changes}
    stages = [{"epochs": 2, "lr": 1e-2, **stage}]
    return sl.train(recipe(stages=stages, **keys), output=path)


def check_equal(one, other, tolerance=1e-5):
    first, second = load_file(one.last), load_file(other.last)
    assert first.keys() == second.keys()
    for name, each in first.items():
        assert torch.allclose(each, second[name], atol=tolerance, rtol=tolerance), name
    for row, twin in zip(one.rows, other.rows, strict=True):
        assert row.keys() == twin.keys()
        for key in row.keys() - {"seconds"}:
            assert (row[key] == twin[key]) or abs(float(row[key]) - float(twin[key])) < 1e-4, key


CASES = {
    "the head alone, from pooled features": ({"trainable": "head"}, {}),
    "the head with a map of the layer before it": ({"trainable": "head"}, {"guide": [SWAP, {"name": "l1"}]}),
    "batch norm in the tail": ({"trainable": {"from": "blocks.2"}}, {"guide": [SWAP, OVERLAP]}),
    "a residual across the cut, frozen batch norm": (
        {"trainable": {"from": "blocks.2.conv2"}, "batch_norm": "frozen", "layer_decay": 0.5},
        {"guide": {"name": "region_activation", "region": "masks"}},
    ),
    "a gate after the cut": ({"trainable": "head"}, {"guide": {"name": "attention_gate", "layer": "blocks.1"}}),
    "a branch after the cut": ({"trainable": "head"}, {"guide": {"name": "attention_branch", "layer": "blocks.1"}}),
    "balanced groups": (
        {"trainable": "head", "balance_by": "groups"},
        {"guide": [SWAP, {"name": "group_dro", "groups": 2}], "drop_last": True},
    ),
    "weights measured by a pass over the images": (
        {"trainable": "head"},
        {"guide": {"name": "hard_negative_mining", "interval": 1}},
    ),
    "focal loss, accumulated gradients and filters in groups": (
        {"trainable": {"from": "blocks.2.norm2"}},
        {"guide": [{"name": "focal"}, {"name": "iccnn", "groups": 2}], "batch_size": 4, "gradient_accumulation": 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stage_from_features_equals_the_stage_from_images(case, tmp_path):
    stage, changes = CASES[case]
    plain = trained(tmp_path / "plain", stage, **changes)
    cached = trained(tmp_path / "cached", stage | {"cache_features": 2}, **changes)
    check_equal(plain, cached)


@pytest.mark.parametrize("stage", [{"trainable": "head"}, {"trainable": "head", "balance_by": "classes"}])
def test_one_draw_serves_every_epoch_where_nothing_is_random(stage, tmp_path):
    changes = {"augment": {"crop": 1.0, "flip": False}, "drop_last": True}
    plain = trained(tmp_path / "plain", stage, **changes)
    check_equal(plain, trained(tmp_path / "cached", stage | {"cache_features": 1}, **changes))


def test_a_stage_after_another_takes_the_trunk_as_that_left_it(tmp_path):
    stages = [{"epochs": 1, "lr": 1e-2}, {"epochs": 1, "lr": 1e-2, "trainable": "head"}]
    runs = []
    for name, draws in (("plain", None), ("cached", 2)):
        stages[1]["cache_features"] = draws
        runs.append(sl.train(recipe(model="sightline/small_cnn", stages=stages), output=tmp_path / name))
    check_equal(*runs)


class Killed(Exception):
    pass


@pytest.mark.parametrize("folder", [None, "features"])
def test_a_killed_run_resumes_to_the_same_weights(folder, tmp_path):
    folder = None if folder is None else str(tmp_path / folder)
    keys = recipe(
        model="sightline/small_cnn",
        stages=[{"epochs": 3, "lr": 1e-2, "trainable": {"from": "blocks.2"}, "cache_features": 2}],
        feature_cache={"folder": folder},
    )
    whole = sl.train(keys, output=tmp_path / "whole")

    def kill(more):
        raise Killed

    with pytest.raises(Killed):
        sl.train(keys, output=tmp_path / "killed", watch=kill)
    check_equal(whole, sl.train(keys, output=tmp_path / "killed", resume=True), tolerance=0)
    if folder is not None:
        files = sorted(file.name for file in tmp_path.glob("features/*/*"))
        assert files == [
            "draw-0.safetensors",
            "draw-0.safetensors",
            "draw-1.safetensors",
        ]  # one of the validation split


def test_the_run_is_one_of_the_whole_model(tmp_path):
    run = trained(tmp_path / "run", {"trainable": "head", "cache_features": 2})
    loaded = load_run(run)
    assert loaded.model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert run.facts["images_seen"] == 40


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ({}, {}, r"stages\.0\.cache_features is 2 and trainable is 'all'; expected 'head'"),
        ({"trainable": "head"}, {"guide": "gain"}, "GAIN needs the pixels of the images in every step"),
        ({"trainable": "head"}, {"guide": "adversarial_background"}, "AdversarialBackground needs the pixels"),
        ({"trainable": "head"}, {"guide": "right_reasons"}, "RightReasons needs the pixels"),
        ({"trainable": "head"}, {"guide": "explanation_consistency"}, "ExplanationConsistency needs the pixels"),
        (
            {"trainable": "head"},
            {"guide": OVERLAP | {"views": 4}},
            r"4 views of every image; expected one view \(views: 1",
        ),
        ({"trainable": {"from": "stem.0"}}, {}, "no layer of SmallCNN is frozen.*nothing to keep"),
        (
            {"trainable": {"from": "blocks.2"}},
            {"feature_cache": {"max_gb": 0.0005}},
            r"2 draws of 20 images behind blocks\.1 take 0\.632 MB in memory; expected at most feature_cache\.max_gb",
        ),
    ],
)
def test_cached_stage_invalid_keys_raise_before_a_run_begins(stage, changes, message, tmp_path):
    with pytest.raises(SightlineError, match=message):
        trained(tmp_path / "run", stage | {"cache_features": 2}, **changes)
    assert not (tmp_path / "run").exists()


def test_several_processes_are_rejected():
    with pytest.raises(SightlineError, match="2 processes are to train; expected one process"):
        build(recipe(stages=[{"epochs": 1, "lr": 1e-2, "trainable": "head", "cache_features": 1}]), processes=2)


def test_features_that_do_not_fit_are_rejected(monkeypatch, tmp_path):
    monkeypatch.setattr(cached_stage, "free_memory", lambda: 1000)
    monkeypatch.setattr(cached_stage, "free_disk", lambda folder: 1000)
    stage = {"trainable": "head", "cache_features": 2}
    with pytest.raises(SightlineError, match=r"in memory at a time, and 0.001 MB are free.*feature_cache\.folder"):
        trained(tmp_path / "run", stage)
    monkeypatch.setattr(cached_stage, "free_memory", lambda: None)
    with pytest.raises(SightlineError, match=r"for all stages, and 0\.001 MB are free there"):
        trained(tmp_path / "run", stage, feature_cache={"folder": str(tmp_path / "features")})
