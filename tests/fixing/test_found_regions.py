"""Regions to avoid that a person marked in some images are found in the others."""

from pathlib import Path

import numpy as np
import torch
from cheats import OBJECTS, SIZE, accuracy, cheating_model
from PIL import Image

import sightline as sl
from sightline.fixing.mending.finding import find_avoided

STAMPS = {"apple": (250, 250, 40), "leaf": (40, 250, 250)}


def test_regions_are_where_the_features_of_known_ones_are() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(20, 3, 8, 8, generator=draw)
    places = torch.randint(0, 8, (20, 2), generator=draw)
    for index in range(16):  # the last four images carry no mark
        maps[index, 0, places[index, 0], places[index, 1]] += 8
    known = {}
    for index in range(0, 16, 2):
        known[index] = np.zeros((32, 32), bool)
        row, column = 4 * places[index]
        known[index][row : row + 4, column : column + 4] = True
    found, overlap = find_avoided(maps, known, 64)
    assert sorted(found) == list(range(1, 16, 2))
    for index, region in found.items():
        row, column = 8 * places[index]
        assert region[row : row + 8, column : column + 8].all()
        assert region.sum() <= 24 * 24  # half a place around it on each side, and what enlarging adds
    assert 0.15 < overlap < 1


def test_regions_that_the_features_do_not_show_have_a_low_overlap() -> None:
    draw = torch.Generator().manual_seed(1)
    maps = torch.randn(20, 3, 8, 8, generator=draw)
    known = {index: np.zeros((32, 32), bool) for index in range(10)}
    for index, region in known.items():
        region[4 * (index % 8) :, :4] = True
    assert find_avoided(maps, known, 64)[1] < 0.3


def write_stamped(folder: Path, swapped: bool, count: int, seed: int) -> dict[str, np.ndarray]:
    """Write images with an object and a stamp of a class, and return the regions of the stamps."""
    random = np.random.default_rng(seed)
    regions = {}
    for kind, color in OBJECTS.items():
        other = next(name for name in OBJECTS if name != kind)
        for number in range(count):
            image = random.integers(60, 160, (SIZE, SIZE, 3)).astype(np.uint8)
            image[16:32, 16:32] = (np.array(color) * 0.25 + image[16:32, 16:32] * 0.75).astype(np.uint8)
            region = np.zeros((SIZE, SIZE), bool)
            top, left = (int(random.choice([0, SIZE - 10])) for _ in range(2))
            region[top : top + 10, left : left + 10] = True
            image[region] = STAMPS[other if swapped else kind]
            file = folder / "images" / kind / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
            regions[f"{kind}/{number}.png"] = region
    return regions


def test_stamps_marked_in_some_images_lose_their_effect(tmp_path) -> None:
    regions = write_stamped(tmp_path / "seen", False, 24, 0)
    write_stamped(tmp_path / "swapped", True, 24, 1)
    model = cheating_model(tmp_path / "seen")
    before = accuracy(model, tmp_path / "swapped")
    some = {name: region for name, region in regions.items() if int(Path(name).stem) < 6}
    fixed = sl.fix(
        model, tmp_path / "seen" / "images", avoid=some, size=SIZE, mean=(0.5,), std=(0.5,), pretrained="none"
    )
    assert any("regions to avoid were found in 36 of 36 other images" in note for note in fixed.notes)
    assert before < 0.1
    assert accuracy(fixed.model, tmp_path / "swapped") > 0.5
    assert "36 images without a given mask or region" in fixed.summary


def test_regions_that_cannot_be_found_leave_all_images_to_judge(tmp_path) -> None:
    regions = write_stamped(tmp_path / "seen", False, 24, 0)
    random = np.random.default_rng(0)
    anywhere = {name: np.roll(regions[name], tuple(random.integers(0, SIZE, 2)), (0, 1)) for name in list(regions)[::5]}
    fixed = sl.fix(
        cheating_model(tmp_path / "seen"), tmp_path / "seen" / "images",
        avoid=anywhere, size=SIZE, mean=(0.5,), std=(0.5,), pretrained="none",
    )  # fmt: skip
    assert any("cannot be found in the 38 other images" in note for note in fixed.notes)
    assert "all 48 images, of which 10 have a given mask or region" in fixed.summary
