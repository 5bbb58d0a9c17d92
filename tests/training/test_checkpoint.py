import errno
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sightline as sl
import tiny
from sightline._core.files import write_atomically
from sightline.errors import RunFailedError, SightlineError
from sightline.training import loop
from sightline.training.checkpoint import Checkpoint
from tiny import recipe

OPTIMIZERS = ["adam", "adamw", {"name": "sgd", "momentum": 0.9}, {"name": "sgd", "momentum": 0}]


class Stop(Exception):
    """The process is gone."""


@pytest.fixture
def stop_after(monkeypatch):
    """Train until so many epochs are written, then stop within the next one."""

    def train(epochs, **arguments):
        step = loop.Trainer.train_step

        def interrupted(self, *args):
            if self.state.epoch == epochs:
                raise Stop
            return step(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(loop.Trainer, "train_step", interrupted)
            with pytest.raises(Stop):
                sl.train(**arguments)

    return train


def identical(one, other):
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_resumed_run_ends_bit_for_bit_alike(tmp_path, stop_after, optimizer):
    r = recipe(optimizer=optimizer, schedule={"name": "cosine", "warmup": 0.3}, stages=[{"epochs": 4, "lr": 1e-2}])
    whole = sl.train(r, output=tmp_path / "whole")
    stop_after(2, recipe=r, output=tmp_path / "parts")
    assert sl.Run(tmp_path / "parts").facts["status"] == "failed: Stop"
    resumed = sl.train(r, output=tmp_path / "parts", resume=True)
    assert identical(whole.last, resumed.last)
    for a, b in zip(whole.rows, resumed.rows, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert {k: whole.facts[k] for k in ("steps", "images_seen")} == {
        k: resumed.facts[k] for k in ("steps", "images_seen")
    }


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_resuming_between_and_within_stages_gives_the_uninterrupted_run(tmp_path, stop_after, epochs):
    r = recipe(
        model={"name": "torchvision/squeezenet1_1", "layer": "features.7"},  # has dropout
        stages=[{"epochs": 2, "lr": 1e-3, "trainable": "head", "guide": None}, {"epochs": 3, "lr": 1e-3}],
        early_stopping={"metric": "val/loss", "mode": "min", "patience": 5},
        save_best={"metric": "val/loss", "mode": "min"},
    )
    whole = sl.train(r, output=tmp_path / "whole")
    stop_after(epochs, recipe=r, output=tmp_path / "parts")
    resumed = sl.train(r, output=tmp_path / "parts", resume=True)
    assert identical(whole.last, resumed.last)
    assert identical(whole.best, resumed.best)


def test_a_row_of_an_epoch_that_was_not_saved_is_written_once(tmp_path, monkeypatch):
    r = recipe(stages=[{"epochs": 3, "lr": 1e-3}])

    def gone(*_):
        raise Stop

    with monkeypatch.context() as patch:  # after the row, before the resume point
        patch.setattr(loop, "write_state", gone)
        with pytest.raises(Stop):
            sl.train(r, output=tmp_path / "run")
    assert len(sl.Run(tmp_path / "run").rows) == 1
    run = sl.train(r, output=tmp_path / "run", resume=True)
    assert [row["epoch"] for row in run.rows] == ["1", "2", "3"]


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    run = sl.train(recipe(), output=tmp_path / "run")
    shutil.copy(run.last, tmp_path / "before.safetensors")
    again = sl.train(recipe(), output=tmp_path / "run", resume=True)
    assert identical(again.last, tmp_path / "before.safetensors")
    assert len(again.rows) == 2
    assert again.facts["steps"] == 6


def test_resume_where_nothing_is_yet_begins(tmp_path):
    assert sl.train(recipe(), output=tmp_path / "run", resume=True).facts["status"] == "finished"


def test_an_existing_run_is_never_overwritten(tmp_path):
    sl.train(recipe(), output=tmp_path / "run")
    with pytest.raises(SightlineError, match="exists already"):
        sl.train(recipe(), output=tmp_path / "run")


def test_another_recipe_is_rejected_by_key(tmp_path, stop_after):
    stop_after(1, recipe=recipe(), output=tmp_path / "run")
    with pytest.raises(SightlineError, match=r"differs in stages\.0\.lr \(0\.001 and 0\.5\)"):
        sl.train(recipe(), ["stages.0.lr=0.5"], output=tmp_path / "run", resume=True)
    sl.train(
        recipe(), ["evaluation.metrics=[accuracy]"], output=tmp_path / "run", resume=True
    )  # says nothing of training


def test_other_data_is_rejected_by_split(tmp_path, stop_after, monkeypatch):
    stop_after(1, recipe=recipe(), output=tmp_path / "run")
    monkeypatch.setattr(tiny, "VALIDATION_SEED", 99)
    with pytest.raises(SightlineError, match="the data of the split 'val'"):
        sl.train(recipe(), output=tmp_path / "run", resume=True)


def test_a_damaged_checkpoint_is_named(tmp_path, stop_after):
    stop_after(1, recipe=recipe(), output=tmp_path / "run")
    run = sl.Run(tmp_path / "run")
    run.resume_point.write_bytes(run.resume_point.read_bytes()[:-100])
    with pytest.raises(SightlineError, match=r"cannot read .*resume\.safetensors: .*; the run cannot be resumed"):
        sl.train(recipe(), output=tmp_path / "run", resume=True)


def test_the_folder_of_something_else_is_rejected(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(SightlineError, match="not the folder of a run"):
        sl.train(recipe(), output=tmp_path, resume=True)


@pytest.mark.parametrize("inside", [".", "run"])
def test_a_folder_that_cannot_be_made(tmp_path, inside):
    (tmp_path / "file").touch()
    with pytest.raises(SightlineError, match="file"):
        sl.train(recipe(), output=tmp_path / "file" / inside)


def test_a_read_only_folder(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SightlineError, match="Read-only file system") as caught:
        sl.train(recipe(), output=tmp_path / "run")
    assert not isinstance(caught.value, RunFailedError)


@pytest.mark.parametrize("file", ["metrics.csv", "last.safetensors", "resume.safetensors"])
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch, file):
    r = recipe(stages=[{"epochs": 3, "lr": 1e-3}])
    whole = sl.train(r, output=tmp_path / "whole")
    written = []

    def fill_up(path, content):
        written.append(path.name)
        if path.name == file and written.count(file) == 2:  # in the second epoch
            with open("/dev/full", "wb", buffering=0) as disk:
                disk.write(content)
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        for module in ("runs.run", "training.checkpoint"):
            patch.setattr(f"sightline.{module}.write_atomically", fill_up)
        with pytest.raises(RunFailedError, match="No space left on device"):
            sl.train(r, output=tmp_path / "run")
    run = sl.Run(tmp_path / "run")
    assert "No space left" in run.facts["status"]
    assert Checkpoint(run.resume_point).state.epoch == 1
    assert identical(whole.last, sl.train(r, output=tmp_path / "run", resume=True).last)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_next_to_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_is_recorded_and_resumed(tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "train_step", pressed)
        with pytest.raises(KeyboardInterrupt):
            sl.train(recipe(), output=tmp_path / "run")
    assert sl.Run(tmp_path / "run").facts["status"] == "failed: interrupted"
    assert sl.train(recipe(), output=tmp_path / "run", resume=True).facts["status"] == "finished"
