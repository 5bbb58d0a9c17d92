"""The recipe's keys `mask_fraction` and `mask_quality`."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sightline.errors import SightlineError
from sightline.localization.found_masks import FoundMasks
from sightline.localization.prompts import Prompter
from sightline.runs import read_recipe
from sightline.training import train
from sightline.training.build import build
from tiny import Squares, recipe


def test_only_training_images_are_changed() -> None:
    plain = build(recipe()).splits
    changed = build(recipe(mask_fraction=0.5, mask_quality={"name": "dilated", "radius": 0.2})).splits
    assert int(plain["train"].has_mask.sum()) == 13
    assert int(changed["train"].has_mask.sum()) == 6
    for name in ("val", "test"):
        assert plain[name].fingerprint == changed[name].fingerprint
        assert torch.equal(plain[name].has_mask, changed[name].has_mask)
    at = int(changed["train"].has_mask.nonzero()[0])
    assert int(changed["train"][at].mask.sum()) > int(plain["train"][at].mask.sum())
    assert torch.equal(changed["train"].group_ids, plain["train"].group_ids)
    assert torch.equal(build(recipe(mask_fraction=1.0)).splits["train"].has_mask, plain["train"].has_mask)


def test_a_run_without_masks_trains_on_the_task_alone(tmp_path: Path) -> None:
    run = train(recipe(mask_fraction=0.0, stages=[{"epochs": 1, "lr": 1e-3}]), output=tmp_path / "run")
    header, row = (run.path / "metrics.csv").read_text().splitlines()
    figures = dict(zip(header.split(","), row.split(",")))
    assert float(figures["n/segment_overlap/unannotated"]) == 20
    assert run.facts["data"]["train"]["masks"] == 0
    assert read_recipe(run.path / "recipe.yaml").mask_fraction == 0


def overlap(mask: Tensor, square: Tensor) -> float:
    return float((mask & square).sum() / (mask | square).sum())


@pytest.mark.parametrize("quality", ["found", "box_cut"])
def test_masks_by_grabcut_are_the_squares(quality: str) -> None:
    images = build(recipe(mask_quality=quality)).splits["train"]
    assert images.has_mask.all() == (quality == "found")
    overlaps = []
    for index in images.has_mask.nonzero()[:, 0].tolist():
        sample = images[index]
        square = sample.image.as_subclass(Tensor).float().amax(0) > 100  # noise is below 60
        assert sample.mask is not None
        assert sample.mask.dtype == torch.uint8
        assert sample.mask.equal(images[index].mask)
        overlaps.append(overlap(sample.mask.as_subclass(Tensor) == 1, square))
    assert sum(overlaps) / len(overlaps) > (0.6 if quality == "found" else 0.95)


def test_found_masks_do_not_depend_on_drawn_ones_and_a_fraction_of_them_is_kept() -> None:
    keys = {"mask_quality": "found", "mask_fraction": 0.5}
    images = build(recipe(**keys)).splits["train"]
    assert int(images.has_mask.sum()) == len(images) // 2
    source = Squares(6, 0)
    prompter = Prompter(center=True)
    first = FoundMasks(source, prompter, prompter.facts)
    source.has_mask[:] = False
    second = FoundMasks(source, prompter, prompter.facts)
    assert all(first[n].mask.equal(second[n].mask) for n in range(6))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mask_fraction": 1.2}, "mask_fraction is 1.2"),
        ({"mask_quality": "boxes"}, "mask_quality.name is 'boxes'"),
        (
            {"mask_quality": {"name": "box", "cels": 3}},
            "unknown key 'mask_quality.cels'; did you mean 'mask_quality.cells'",
        ),
    ],
)
def test_recipe_invalid_mask_values_raise(keys: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        recipe(**keys)
