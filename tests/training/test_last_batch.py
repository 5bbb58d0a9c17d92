"""A last batch of one image, on which batch norm cannot train, is refused before the run begins, or left out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.models.registry import MODELS
from sightline.training.build import build, check_single_image, last_batch_size
from tiny import recipe


def flat(*last: nn.Module) -> nn.Module:
    """A classifier whose features have one place."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), *last, nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2)
    )


@pytest.mark.parametrize(
    ("images", "keys", "processes", "smallest"),
    [(20, {}, 1, 4), (17, {}, 1, 1), (16, {}, 1, 8), (17, {"drop_last": True}, 1, 8), (18, {}, 2, 1), (17, {}, 2, 1)],
)
def test_last_batch_size_is_the_smallest_batch(
    images: int, keys: dict[str, Any], processes: int, smallest: int
) -> None:
    assert last_batch_size(recipe(**keys), images, processes) == smallest


def test_only_models_that_cannot_are_rejected_and_none_is_changed() -> None:
    image = torch.rand(1, 3, 8, 8)
    for model in (flat(), flat(nn.GroupNorm(2, 4)), nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten())):
        check_single_image(sl.Objective(model), image, "")
    model = flat(nn.BatchNorm2d(4)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SightlineError, match=r"one image cannot be trained on \(Expected more than 1 value.*Do so"):
        check_single_image(sl.Objective(model), image, "Do so")
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> str:
    """A registered model with batch norm after its pooling."""
    MODELS.names()  # loads the built-in entries; this one goes into a copy
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    MODELS.register("pooled", size=32)(lambda classes=2: flat(nn.BatchNorm2d(4)))
    return "sightline/pooled"


def test_a_run_is_rejected_before_its_folder_is_made(pooled: str, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"model": pooled, "guide": None, "data": {"name": "squares", "images": 17}}
    with pytest.raises(
        SightlineError, match="17 training images in batches of 8 leave one of one image: set drop_last=true"
    ):
        sl.train(recipe(**keys), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(SightlineError, match="batch_size is 1; expected at least 2"):
        build(recipe(**keys, batch_size=1))
    build(recipe(**keys, stages=[{"epochs": 1, "lr": 1e-3, "trainable": "head"}]))

    run = sl.train(recipe(**keys, drop_last=True), output=tmp_path / "run")
    assert [row["step"] for row in run.rows] == ["2", "4"]
    assert run.facts["images_seen"] == 32
