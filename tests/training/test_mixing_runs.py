"""Runs on mixed images, against a loop of plain PyTorch and torchvision."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_checkpoint import identical
from test_checkpoint import stop_after as stop_after
from test_several_labels_run import SIDE as SIDE  # registers the data set "colours"
from torchvision.transforms import v2

import sightline as sl
from sightline._core.seeding import derive_seed
from sightline.errors import SightlineError
from sightline.training.build import build
from tiny import recipe

STAGE = {"epochs": 2, "lr": 1e-2, "mixing": {"cutmix": 1.0}}


@pytest.mark.parametrize("data", ["squares", "colours"])
def test_a_run_is_torchvisions_cutmix_on_each_batch(tmp_path: Path, data: str) -> None:
    r = recipe(data=data, guide=None, label_smoothing=0.1, stages=[STAGE])
    parts = build(r)
    loader, optimizer = parts.train_loader(0, 1), torch.optim.Adam(parts.model.parameters(), 1e-2)
    cut = v2.CutMix(alpha=1.0, num_classes=len(parts.splits.classes))
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            torch.manual_seed(derive_seed(0, epoch, *batch.indices.tolist(), "mixing"))
            torch.rand(())
            images, targets = cut(batch.images, batch.labels)
            logits = parts.model(parts.spec.normalize(images))
            if data == "squares":
                loss = F.cross_entropy(logits, targets, label_smoothing=0.1)
            else:
                loss = F.binary_cross_entropy_with_logits(logits, targets * 0.9 + 0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = load_file(sl.train(r, output=tmp_path / "run").last)
    for name, tensor in parts.model.state_dict().items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_a_guided_run_with_workers_and_a_resumed_one_end_bit_for_bit_alike(tmp_path: Path, stop_after: Any) -> None:
    stage = {"epochs": 3, "lr": 1e-3, "mixing": {"mixup": 0.2, "cutmix": 1.0, "probability": 0.8}}
    r = recipe(stages=[stage], gradient_accumulation=2, batch_size=4)
    whole = sl.train(r, output=tmp_path / "whole")
    stop_after(2, recipe=r, output=tmp_path / "parts")
    assert identical(whole.last, sl.train(r, output=tmp_path / "parts", resume=True).last)
    workers = sl.train(r, ["num_workers=1"], output=tmp_path / "workers")
    assert identical(whole.last, workers.last)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        ("random_background", "cannot go with RandomBackground, which changes single images"),
        ([{"name": "energy"}, {"name": "focal"}], "cannot go with Focal, which weighs single images"),
    ],
    ids=str,
)
def test_guides_of_single_images_are_rejected(tmp_path: Path, guide: Any, message: str) -> None:
    with pytest.raises(SightlineError, match=rf"stages\.0\.mixing {message}"):
        sl.train(recipe(guide=guide, stages=[STAGE]), output=tmp_path / "run")


def test_features_have_no_pixels_to_mix(tmp_path: Path) -> None:
    stage = STAGE | {"trainable": "head", "cache_features": 1}
    with pytest.raises(SightlineError, match=r"stages\.0\.mixing needs pixels"):
        sl.train(recipe(guide=None, stages=[stage]), output=tmp_path / "run")


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        ({}, "mixup and cutmix are 0"),
        ({"mixup": -1}, r"stages\.0\.mixing\.mixup"),
        ({"cutmix": 1.0, "probability": 2}, r"stages\.0\.mixing\.probability"),
    ],
    ids=str,
)
def test_values_out_of_range_are_named(mixing: Any, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        recipe(stages=[STAGE | {"mixing": mixing}])
