from pathlib import Path

import numpy as np
import pytest

from layouts import write_image, write_mask
from sightline import data
from sightline.errors import SightlineError

SPECIES = ("Black_footed_Albatross", "Indigo_Bunting")


@pytest.fixture
def cub_folder(tmp_path: Path) -> Path:
    """CUB-200-2011's layout with its segmentations beside it: two species, four training and two test photographs each."""
    root = tmp_path / "CUB_200_2011"
    lists: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")
    }
    for species in range(2):
        for number in range(6):
            image = 6 * species + number + 1
            file = f"{species + 1:03}.{SPECIES[species]}/{SPECIES[species]}_{number:04}.jpg"
            lists["images"].append(f"{image} {file}")
            lists["image_class_labels"].append(f"{image} {species + 1}")
            lists["train_test_split"].append(f"{image} {int(number < 4)}")
            lists["bounding_boxes"].append(f"{image} 4.0 2.0 {10 + number}.0 20.0")
            write_image(root / "images" / file)
            agreement = np.zeros((24, 32))
            agreement[4:20, 6:26] = 102  # two annotators of five
            agreement[6:18, 8:24] = 153  # three
            agreement[8:16, 10:22] = 255
            write_mask(tmp_path / "segmentations" / Path(file).with_suffix(".png"), agreement)
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "classes.txt").write_text("".join(f"{i} {i:03}.{name}\n" for i, name in enumerate(SPECIES, start=1)))
    return root


def test_cub_official_layout_gives_splits_classes_and_masks(cub_folder: Path) -> None:
    splits = data.create_dataset("cub", root=str(cub_folder.parent), val=1)
    assert splits.classes == ["Black footed Albatross", "Indigo Bunting"]
    assert {name: split.labels.tolist() for name, split in splits.items()} == {
        "train": [0, 0, 0, 1, 1, 1],
        "val": [0, 1],
        "test": [0, 0, 1, 1],
    }
    sample = splits["test"][3]
    assert Path(sample.path).name == "Indigo_Bunting_0005.jpg"
    assert sample.boxes.tolist() == [[4, 2, 19, 22]]
    assert all(split.has_mask.all() and split.has_boxes.all() for split in splits.values())
    paths = [split.path(i) for split in splits.values() for i in range(len(split))]
    assert len(set(paths)) == 12


@pytest.mark.parametrize(("agreement", "pixels"), [(0.0, 16 * 20), (0.5, 12 * 16), (0.6, 8 * 12), (0.99, 8 * 12)])
def test_more_annotators_agree_on_fewer_pixels(cub_folder: Path, agreement: float, pixels: int) -> None:
    mask = data.create_dataset("cub", root=str(cub_folder), agreement=agreement)["train"][0].mask
    assert mask.unique().tolist() == [0, 1]
    assert int(mask.sum()) == pixels


def test_species_and_training_images_are_chosen(cub_folder: Path) -> None:
    def names(per_class: int) -> set[str]:
        train = data.create_dataset("cub", root=str(cub_folder), val=0, per_class=per_class)["train"]
        return {train.path(i) for i in range(len(train))}

    assert len(names(2)) == 4
    assert names(2) < names(3)
    with pytest.raises(SightlineError, match="unknown species 'indigo bunting'; did you mean 'Indigo Bunting'"):
        data.create_dataset("cub", root=str(cub_folder), species=["indigo bunting"])


def test_cub_without_segmentations_raises_unless_masks_are_off(cub_folder: Path) -> None:
    (cub_folder.parent / "segmentations").rename(cub_folder / "segmentations")
    assert data.create_dataset("cub", root=str(cub_folder))["train"].has_mask.all()
    (cub_folder / "segmentations").rename(cub_folder / "elsewhere")
    with pytest.raises(SightlineError, match="masks: there is no folder segmentations"):
        data.create_dataset("cub", root=str(cub_folder))
    assert not data.create_dataset("cub", root=str(cub_folder), masks=False)["train"].has_mask.any()


def test_cub_invalid_options_and_missing_files_raise(cub_folder: Path) -> None:
    with pytest.raises(SightlineError, match=r"agreement is 1\.0"):
        data.create_dataset("cub", root=str(cub_folder), agreement=1.0)
    (cub_folder / "bounding_boxes.txt").unlink()
    with pytest.raises(SightlineError, match=r"cannot read .*bounding_boxes\.txt"):
        data.create_dataset("cub", root=str(cub_folder))
    with pytest.raises(SightlineError, match=r"no images\.txt"):
        data.create_dataset("cub", root=str(cub_folder / "images"))
