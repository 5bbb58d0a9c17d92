import copy
import json
import math
import platform
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import sightline as sl
from sightline.errors import NonFiniteLossError, RunFailedError, SightlineError
from sightline.training import loop
from sightline.training.build import build
from tiny import recipe


def weights(run):
    return load_file(run.last)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_folder_holds_what_it_should(tmp_path):
    stages = [{"epochs": 1, "lr": 1e-3, "trainable": "head", "guide": None}, {"epochs": 2, "lr": 3e-4}]
    run = sl.train(recipe(stages=stages, save_best={"metric": "val/accuracy"}), output=tmp_path / "run")
    facts = run.facts
    assert facts["status"] == "finished"
    assert facts["classes"] == ["red", "blue"]
    assert facts["model"] == {"name": "sightline/lenet5", "layer": "relu2"}
    assert facts["guide"] == "segment_overlap"
    assert facts["images_seen"] == 60
    assert facts["steps"] == 9
    assert facts["data"]["train"]["images"] == 20
    assert [row["epoch"] for row in run.rows] == ["1", "2", "3"]
    assert [row["stage"] for row in run.rows] == ["0", "1", "1"]
    assert [row["step"] for row in run.rows] == ["3", "6", "9"]
    assert run.rows[0]["train/segment_overlap"] == ""  # no guide yet
    for key in ("train/segment_overlap", "train/task", "train/accuracy", "val/loss", "val/worst_group_accuracy"):
        assert float(run.rows[2][key]) >= 0
    assert float(run.rows[2]["n/segment_overlap/unannotated"]) == 7  # every third of 20 images has no mask
    assert list((run.path / "tensorboard").iterdir())
    model, _ = sl.load_model("sightline/lenet5", run.last)
    assert model.head.out_features == 2
    assert sorted(file.suffix for file in (run.path / "checkpoints").iterdir()) == [".safetensors"] * 3


def test_training_reaches_full_validation_accuracy(tmp_path):
    run = sl.train(
        recipe(guide=None, augment={"crop": 1.0}, stages=[{"epochs": 15, "lr": 3e-3}]), output=tmp_path / "run"
    )
    assert float(run.rows[-1]["val/accuracy"]) == 1
    assert float(run.rows[-1]["train/loss"]) < 0.2 < float(run.rows[0]["train/loss"])


def test_the_head_stage_leaves_the_trunk_untouched_statistics_included(tmp_path):
    changes = {"model": "sightline/small_cnn", "stages": [{"epochs": 1, "lr": 1e-2, "trainable": "head"}]}
    before = copy.deepcopy(build(recipe(**changes)).model.state_dict())
    after = weights(sl.train(recipe(**changes), output=tmp_path / "run"))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"head.weight", "head.bias"}


def test_a_stage_from_a_layer_trains_it_and_what_follows_statistics_included(tmp_path):
    stages = [{"epochs": 1, "lr": 1e-2, "trainable": {"from": "blocks.2.norm1"}}]
    changes = {"model": "sightline/small_cnn", "stages": stages}
    before = copy.deepcopy(build(recipe(**changes)).model.state_dict())
    run = sl.train(recipe(**changes), output=tmp_path / "run")
    after = weights(run)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {
        key for key in before if key.startswith(("head", "blocks.2")) and not key.startswith("blocks.2.conv1")
    }
    assert run.recipe == recipe(**changes)  # as it was written and read again


def test_a_stage_from_a_layer_that_the_model_lacks_is_rejected(tmp_path):
    stages = [{"epochs": 1, "lr": 1e-2, "trainable": {"from": "block.2"}}]
    with pytest.raises(SightlineError, match=r"stages\.0\.trainable\.from.*did you mean 'blocks\.2'"):
        sl.train(recipe(model="sightline/small_cnn", stages=stages), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_later_stage_trains_the_trunk_again(tmp_path):
    stages = [{"epochs": 1, "lr": 1e-2, "trainable": "head"}, {"epochs": 1, "lr": 1e-2}]
    before = copy.deepcopy(build(recipe(stages=stages)).model.state_dict())
    after = weights(sl.train(recipe(stages=stages), output=tmp_path / "run"))
    assert not any(torch.equal(before[key], after[key]) for key in before)


def test_the_learning_rate_follows_stage_and_schedule(tmp_path):
    stages = [{"epochs": 2, "lr": 1e-2}, {"epochs": 1, "lr": 1e-3, "schedule": "constant"}]
    run = sl.train(recipe(stages=stages, schedule={"name": "step", "every": 1, "factor": 0.5}), output=tmp_path / "run")
    assert [float(row["lr"]) for row in run.rows] == [1e-2, 5e-3, 1e-3]


@pytest.mark.parametrize("guide", [None, {"name": "segment_overlap", "beta": 0.5}], ids=["task", "guided"])
def test_accumulation_equals_a_large_batch_also_in_the_last_short_step(tmp_path, guide):
    """20 images: 12 and 8 at once, or 4 + 4 + 4 and 4 + 4, unevenly annotated; by SGD, which shows the gradient's scale."""
    common = {"guide": guide, "optimizer": {"name": "sgd", "momentum": 0.9}, "stages": [{"epochs": 2, "lr": 1e-2}]}
    large = sl.train(recipe(**common, batch_size=12), output=tmp_path / "large")
    small = sl.train(recipe(**common, batch_size=4, gradient_accumulation=3), output=tmp_path / "small")
    start = build(recipe(**common)).model.state_dict()
    one, other = weights(large), weights(small)
    for key in one:
        torch.testing.assert_close(one[key] - start[key], other[key] - start[key], rtol=1e-3, atol=1e-7)
    for a, b in zip(large.rows, small.rows):
        for key in a.keys() - {"seconds"}:
            assert float(a[key]) == pytest.approx(float(b[key]), rel=1e-4, abs=1e-6), key


def test_clipping_bounds_the_step(tmp_path):
    common = {"optimizer": {"name": "sgd", "momentum": 0.0}, "batch_size": 20, "stages": [{"epochs": 1, "lr": 1.0}]}
    start = build(recipe(**common)).model.state_dict()
    end = weights(sl.train(recipe(**common, grad_clip_norm=1e-2), output=tmp_path / "run"))
    moved = torch.cat([(end[key] - start[key]).flatten() for key in start]).norm().item()
    assert moved == pytest.approx(1e-2, rel=1e-3)


def test_bf16_runs_and_differs_from_fp32(tmp_path):
    bf16 = sl.train(recipe(precision="bf16-mixed"), output=tmp_path / "bf16")
    fp32 = sl.train(recipe(), output=tmp_path / "fp32")
    assert all(tensor.dtype == torch.float32 for tensor in weights(bf16).values())
    assert not same(weights(bf16), weights(fp32))
    assert float(bf16.rows[-1]["train/loss"]) == pytest.approx(float(fp32.rows[-1]["train/loss"]), rel=0.05)


def test_early_stopping_ends_the_stage_and_select_keeps_the_first_best(tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.0, 2.5, 1.0, 1.5])
    monkeypatch.setattr(loop, "validate", lambda *_: {"loss": next(losses)})
    watch = {"metric": "val/loss", "mode": "min"}
    stages = [{"epochs": 9, "lr": 1e-3}, {"epochs": 2, "lr": 1e-3}]
    run = sl.train(
        recipe(stages=stages, early_stopping=watch | {"patience": 2}, save_best=watch), output=tmp_path / "run"
    )
    assert [row["stage"] for row in run.rows] == ["0"] * 4 + ["1"] * 2  # best at the 2nd, stopped two later
    with safe_open(run.best, "pt") as file:
        assert json.loads(file.metadata()["sightline"]) == {"epoch": 5}


@pytest.mark.parametrize(
    ("interval", "patience", "losses", "epochs"),
    [
        (3, 1, [2.0, 2.5, 1.0], 6),  # measured after 3 and 6
        (3, 2, [2.0, 1.0, 1.5, 1.5, 0.0], 12),  # the best after 6, and two that are not after 9 and 12
        (2, 1, [math.nan, 1.0, 1.5, 1.0], 6),  # NaN is worse than any number
        (4, 3, [2.0, 2.0, 2.0], 10),  # measured after 4, 8 and 10, which is the end
    ],
)
def test_epochs_that_are_not_validated_do_not_count_for_early_stopping(
    tmp_path, monkeypatch, interval, patience, losses, epochs
):
    values = iter(losses)
    monkeypatch.setattr(loop, "validate", lambda *_: {"loss": next(values)})
    watch = {"metric": "val/loss", "mode": "min"}
    run = sl.train(
        recipe(
            guide=None,
            stages=[{"epochs": 10 if patience == 3 else 20, "lr": 1e-3}],
            early_stopping=watch | {"patience": patience},
            val_interval=interval,
        ),
        output=tmp_path / "run",
    )
    assert len(run.rows) == epochs


def test_a_nan_loss_stops_the_run_names_the_images_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    forward = sl.Objective.forward

    def poisoned(self, batch, counts=None):
        if self.epoch == 1 and 7 in batch.indices:
            with torch.no_grad():
                batch.images[batch.indices == 7] = torch.nan
        return forward(self, batch, counts)

    monkeypatch.setattr(
        sl.InputSpec, "normalize", lambda self, images, checked=True: images
    )  # which would refuse the image first
    monkeypatch.setattr(sl.Objective, "forward", poisoned)
    with pytest.raises(NonFiniteLossError) as caught:
        sl.train(recipe(stages=[{"epochs": 3, "lr": 1e-3}]), output=tmp_path / "run")
    assert caught.value.indices == [7]
    run = loop.Run(tmp_path / "run")
    assert run.facts["status"].startswith("failed: ")
    assert "7" in run.facts["status"]
    assert len(run.rows) == 1
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())

    monkeypatch.undo()
    whole = sl.train(recipe(stages=[{"epochs": 3, "lr": 1e-3}]), output=tmp_path / "run", resume=True)
    assert whole.facts["status"] == "finished"


@pytest.mark.parametrize("lr", [1e30, 1e38], ids=["huge", "infinite"])
def test_a_run_that_diverges_in_its_last_step_saves_nothing(tmp_path, lr):
    changes = {"guide": None, "batch_size": 20, "optimizer": "sgd", "stages": [{"epochs": 1, "lr": lr}]}
    with pytest.raises(RunFailedError, match="NaN or infinite"):
        sl.train(recipe(**changes), output=tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_launched_processes_must_be_those_that_were_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(SightlineError, match="4 processes were launched"):
        sl.train(recipe(), output=tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(SightlineError, match="WORLD_SIZE is 'two'; expected the number of processes"):
        sl.train(recipe(), output=tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "")
    assert sl.train(recipe(stages=[{"epochs": 1, "lr": 1e-3}]), output=tmp_path / "run").rows


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "x"), ("LOCAL_RANK", "-1"), ("SLURM_NTASKS", "2(x3)"), ("SLURM_NTASKS", ""), ("SLURM_PROCID", "a")],
)
def test_a_variable_of_a_launcher_that_is_not_a_number_is_named(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SightlineError, match=re.escape(f"the variable {name} is {value!r}; expected a whole number")):
        sl.train(recipe(), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_device_is_where_it_trains(tmp_path):
    seen = []
    run = sl.train(
        recipe(stages=[{"epochs": 1, "lr": 1e-3}]),
        output=tmp_path / "run",
        device="cpu",
        watch=lambda more: seen.append(more),
    )
    assert run.facts["hardware"]["device"] == (platform.processor() or platform.machine())
    assert seen == [False]
    with pytest.raises(SightlineError, match="device is 'gpu'"):
        sl.train(recipe(), output=tmp_path / "other", device="gpu")
    with pytest.raises(SightlineError, match="device is 'cpu:0', which is one device; expected its kind alone for 2"):
        sl.train(recipe(), output=tmp_path / "other", device="cpu:0", devices=2)
    assert not (tmp_path / "other").exists()


def test_training_with_a_wrong_recipe_writes_nothing(tmp_path):
    with pytest.raises(SightlineError):
        sl.train(recipe(data="squars"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
