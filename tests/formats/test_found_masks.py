"""Masks that were found, in place of the dataset's own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from sightline import data
from sightline.data.dataset import InMemory, Sample
from sightline.errors import SightlineError
from sightline.formats.found_masks import FoundMasks
from sightline.localization.prompts import Prompt
from sightline.localization.writing import write_masks
from sightline.studies import shipped_studies

PETS = [name.partition("/")[2] for name in shipped_studies() if name.startswith("pets/")]


class Corner:
    """A prompt for every image but the last: its first pixel."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.facts = {"points": "corner", "boxes": None}

    def __call__(self, samples):
        return [[Prompt(torch.tensor([[0.5, 0.5]]))] if s.index < self.last else [] for s in samples]


def top(image: np.ndarray, points: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """The upper rows, as many as the image is bright."""
    mask = np.zeros(image.shape[:2], dtype=bool)
    mask[: image[0, 0, 0] // 50] = True
    return mask


def pictures(count: int = 3, identity: str = "p") -> InMemory:
    """Pictures of 6 x 8, ever brighter, whose own masks are everything."""
    samples = [
        Sample(
            image=tv_tensors.Image(torch.full((3, 6, 8), 50 * (i + 1), dtype=torch.uint8)), label=i % 2,
            mask=tv_tensors.Mask(torch.ones(6, 8, dtype=torch.uint8)), index=i, group=None, path=f"{identity}/{i}",
        )
        for i in range(count)
    ]  # fmt: skip
    return InMemory(samples, ["a", "b"], identity=identity)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    done = write_masks(pictures(), tmp_path / "masks", Corner(2), top, name="top")
    assert (done.masks, done.without) == (2, 1)
    return tmp_path / "masks"


def test_found_masks_stand_in_the_place_of_the_data_sets_own(folder: Path) -> None:
    found = FoundMasks(pictures(), folder)
    assert found.has_mask.tolist() == [True, True, False]
    for index in range(2):
        expected = torch.zeros(6, 8, dtype=torch.uint8)
        expected[: index + 1] = 1
        torch.testing.assert_close(found[index].mask.as_subclass(torch.Tensor), expected)
    assert found[2].mask is None
    assert found.labels.tolist() == [0, 1, 0]
    assert found.path(1) == "p/1"
    assert found.fingerprint != pictures().fingerprint


def test_masks_of_something_else_are_rejected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="another data set"):
        FoundMasks(pictures(identity="q"), folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SightlineError, match="whose journal is missing"):
        FoundMasks(pictures(), tmp_path / "empty")
    journal = folder / "journal"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(SightlineError, match="2 images of 3"):
        FoundMasks(pictures(), folder)


def test_a_mask_of_another_size_is_an_error(folder: Path) -> None:
    from torchvision.io import write_png

    from sightline.data.image_files import read_image

    file = next(folder.glob("*0.png"))
    assert read_image(file).shape[-2:] == (6, 8)
    write_png(torch.zeros(1, 5, 8, dtype=torch.uint8), str(file))
    with pytest.raises(SightlineError, match=r"\(5, 8\)"):
        FoundMasks(pictures(), folder)[0]


def test_a_source_without_a_name_is_rejected(folder: Path) -> None:
    with pytest.raises(SightlineError, match="name of a data set"):
        data.create_dataset("found_masks", source={"size": 32}, masks=str(folder))
