"""ImageNet-9 in a small copy of its official layout."""

from pathlib import Path

import numpy as np
import pytest
import torch

from layouts import write_image
from sightline import data
from sightline.errors import SightlineError
from sightline.regions.backgrounds import VARIANTS

FOLDERS = ["00_dog", "01_bird", "02_wheeled vehicle"]


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    """Three of the classes, two photographs each, in all variants; masks of the left half, without one for a dog."""
    for variant in VARIANTS:
        for label, folder in enumerate(FOLDERS):
            for i in range(2):
                stem = f"fg_{i}_bg_{i}" if variant.startswith("mixed") else f"n0_{i}"
                write_image(
                    tmp_path / "bg_challenge" / variant / "val" / folder / f"{stem}.JPEG", (label, i, 0), (24, 24)
                )
    mask = np.zeros((24, 24), dtype=bool)
    mask[:, :12] = True
    for folder in FOLDERS:
        place = tmp_path / "bg_challenge/fg_mask/val" / folder
        place.mkdir(parents=True)
        for i in range(2):
            if (folder, i) != ("00_dog", 1):
                np.save(place / f"n0_{i}.npy", mask)
    for folder in FOLDERS:
        for i in range(5):
            write_image(tmp_path / "original/train" / folder / f"n1_{i}.JPEG", (9, i, 0))
    return tmp_path


def test_every_variant_is_a_split(challenge: Path) -> None:
    splits = data.create_dataset("imagenet9", root=str(challenge / "bg_challenge"))
    assert set(splits) == {"test", *VARIANTS} - {"original"}
    assert splits.classes == ["dog", "bird", "wheeled vehicle"]
    for split in splits.values():
        assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits["test"].has_mask.tolist() == [True, False, True, True, True, True]
    assert splits["only_fg"].has_mask.sum() == 5
    assert not any(splits[v].has_mask.any() for v in splits if v not in ("test", "only_fg"))
    mask = splits["test"][0].mask
    assert mask.dtype == torch.uint8
    assert mask[:, :12].eq(1).all()
    assert mask[:, 12:].eq(0).all()


def test_training_images_come_from_a_folder_of_their_own(challenge: Path) -> None:
    splits = data.create_dataset(
        "imagenet9", root=str(challenge / "bg_challenge"), train=str(challenge / "original"), val=1
    )
    assert list(splits)[:2] == ["train", "val"]
    assert (len(splits["train"]), len(splits["val"]), len(splits["test"])) == (12, 3, 6)
    assert not splits["train"].has_mask.any()
    few = data.create_dataset(
        "imagenet9", root=str(challenge / "bg_challenge"), train=str(challenge / "original"), per_class=2
    )
    assert len(few["train"]) == 6


def test_moving_the_folder_changes_nothing_and_missing_variants_are_no_error(challenge: Path, tmp_path: Path) -> None:
    before = data.create_dataset("imagenet9", root=str(challenge))["test"].fingerprint
    (challenge / "bg_challenge").rename(challenge / "moved")
    moved = challenge / "moved"
    for place in sorted((moved / "mixed_next").rglob("*"), reverse=True):
        place.unlink() if place.is_file() else place.rmdir()
    (moved / "mixed_next").rmdir()
    splits = data.create_dataset("imagenet9", root=str(moved))
    assert "mixed_next" not in splits
    assert splits["test"].fingerprint == before


def test_imagenet9_invalid_layouts_raise(challenge: Path) -> None:
    with pytest.raises(SightlineError, match="expected ImageNet-9's official layout"):
        data.create_dataset("imagenet9", root=str(challenge / "original"))
    with pytest.raises(SightlineError, match=r"there is no .*mixed_same/train"):
        data.create_dataset("imagenet9", root=str(challenge), train=str(challenge / "bg_challenge/mixed_same"))
    np.save(challenge / "bg_challenge/fg_mask/val/00_dog/n0_0.npy", np.zeros((5, 5)))
    splits = data.create_dataset("imagenet9", root=str(challenge))
    with pytest.raises(SightlineError, match=r"is \(5, 5\); its image is \(24, 24\)"):
        splits["test"][0]
    np.save(challenge / "bg_challenge/fg_mask/val/00_dog/n0_0.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(SightlineError, match="cannot read the mask"):
        splits["test"][0]
    (challenge / "bg_challenge/mixed_same/val/03_reptile").mkdir()
    with pytest.raises(SightlineError, match=r"mixed_same/val has the class folders .*03_reptile"):
        data.create_dataset("imagenet9", root=str(challenge))
