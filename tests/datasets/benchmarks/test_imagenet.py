"""ImageNet in its official layouts, and by folders of wnids."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from layouts import write_image
from sightline import data
from sightline.errors import SightlineError

WNIDS = ("n01440764", "n02007558", "n04254777")  # tench, flamingo, sock: 0, 130, 806
NAMES = ["tench", "flamingo", "sock"]
ORDER = (2, 0, 1, 1, 0, 2, 2)  # the class of each validation image, by its number


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}.JPEG"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Validation and training images in folders of wnids."""
    for number, label in enumerate(ORDER, start=1):
        write_image(tmp_path / "val" / WNIDS[label] / name(number))
    for wnid in WNIDS:
        for number in range(2):
            write_image(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG")
    return tmp_path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Validation images in one folder, as ImageNet gives them."""
    for number in range(1, len(ORDER) + 1):
        write_image(tmp_path / "ILSVRC2012_img_val" / name(number))
    return tmp_path


def write_devkit(root: Path) -> None:
    """The kit counts classes from 1 in an order of its own, and lists groups of classes behind them."""
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    numbers = {WNIDS[0]: 2, WNIDS[1]: 3, WNIDS[2]: 1, "n00001740": 4}
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [
        (number, wnid, "", "", int(number == 4)) for wnid, number in sorted(numbers.items(), key=lambda pair: pair[1])
    ]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind)[:, None]})
    lines = [str(numbers[WNIDS[label]]) for label in ORDER]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines) + "\n")


def numbers_of(split: data.ImageDataset) -> list[tuple[int, int]]:
    """The number of each image, and its class."""
    return [(int(Path(split.path(i)).stem[-8:]), int(split.labels[i])) for i in range(len(split))]


EVERY = [(2, 0), (5, 0), (3, 1), (4, 1), (1, 2), (6, 2), (7, 2)]


def test_folders_of_wnids_give_splits_and_class_names(folders: Path) -> None:
    splits = data.create_dataset("imagenet", root=str(folders))
    assert {split: len(images) for split, images in splits.items()} == {"test": 7, "train": 6}
    assert splits.classes == NAMES
    assert numbers_of(splits["test"]) == EVERY
    assert [*data.create_dataset("imagenet", root=str(folders), train=False)] == ["test"]


def test_per_class_takes_the_first_images_of_each_class(folders: Path) -> None:
    splits = data.create_dataset("imagenet", root=str(folders), per_class=1)
    assert numbers_of(splits["test"]) == [(2, 0), (3, 1), (1, 2)]
    assert len(splits["train"]) == 6
    assert numbers_of(data.create_dataset("imagenet", root=str(folders), per_class=2)["test"]) == EVERY[:-1]


def test_random_images_follow_the_seed(folders: Path) -> None:
    def drawn(seed: int) -> list[tuple[int, int]]:
        return numbers_of(
            data.create_dataset("imagenet", root=str(folders), per_class=1, order="random", seed=seed)["test"]
        )

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 1
    assert all([label for _, label in drawn(seed)] == [0, 1, 2] for seed in range(8))


def test_the_development_kit_tells_the_classes(flat: Path) -> None:
    write_devkit(flat)
    splits = data.create_dataset("imagenet", root=str(flat))
    assert numbers_of(splits["test"]) == EVERY
    assert splits.classes == NAMES


def test_the_layout_of_the_challenge_is_read_with_its_boxes(tmp_path: Path) -> None:
    base = tmp_path / "ILSVRC"
    lines = ["ImageId,PredictionString"]
    for number, label in enumerate(ORDER, start=1):
        image = write_image(base / "Data" / "CLS-LOC" / "val" / name(number), size=(32, 24))
        lines.append(f"{image.stem},{WNIDS[label]} 4 6 20 18 ")
        xml = base / "Annotations" / "CLS-LOC" / "val" / f"{image.stem}.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        box = "<xmin>4</xmin><ymin>6</ymin><xmax>20</xmax><ymax>18</ymax>"
        xml.write_text(
            f"<annotation><folder>val</folder><filename>{image.stem}</filename><size><width>32</width><height>24</height>"
            f"<depth>3</depth></size><object><name>{WNIDS[label]}</name><bndbox>{box}</bndbox></object></annotation>"
        )
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    boxes = str(base / "Annotations" / "CLS-LOC" / "val")
    split = data.create_dataset("imagenet", root=str(tmp_path), per_class=1, boxes=boxes)["test"]
    assert numbers_of(split) == [(2, 0), (3, 1), (1, 2)]
    assert split.has_boxes.all()
    assert split[0].boxes is not None
    assert split[0].boxes.tolist() in ([[4, 6, 20, 18]], [[3, 5, 20, 18]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 3}, "per_class is 3; the class n01440764 has 2"),
        ({"per_class": 0}, "per_class is 0; expected a whole number >= 1"),
        ({"order": "last"}, "order"),
    ],
)
def test_imagenet_invalid_options_raise(folders: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        data.create_dataset("imagenet", root=str(folders), **options)


def test_images_without_a_class_raise(flat: Path) -> None:
    with pytest.raises(SightlineError, match="no file that tells the classes of the validation images"):
        data.create_dataset("imagenet", root=str(flat))
    write_devkit(flat)
    write_image(flat / "ILSVRC2012_img_val" / name(99))
    with pytest.raises(SightlineError, match=r"the class of .*00000099.* is not known"):
        data.create_dataset("imagenet", root=str(flat))


def test_other_folders_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="no folder val"):
        data.create_dataset("imagenet", root=str(tmp_path))
    write_image(tmp_path / "val" / WNIDS[0] / name(1))
    write_image(tmp_path / "val" / "cats" / name(2))
    with pytest.raises(SightlineError, match="cats is not a folder of a class"):
        data.create_dataset("imagenet", root=str(tmp_path))


def test_training_images_of_a_class_without_validation_images_are_rejected(folders: Path) -> None:
    write_image(folders / "train" / "n02085620" / "n02085620_1.JPEG")
    with pytest.raises(SightlineError, match="no validation image of 1 classes, such as n02085620"):
        data.create_dataset("imagenet", root=str(folders))
