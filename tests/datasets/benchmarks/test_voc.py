from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from layouts import write_image, write_mask
from sightline import data, maps
from sightline.auditing.run import audit
from sightline.data import Batch
from sightline.data.dataset import InMemory
from sightline.data.loader import create_loader
from sightline.datasets.benchmarks.voc import class_colors
from sightline.datasets.derived.recompose import Recompose
from sightline.diagnosis import diagnose
from sightline.errors import SightlineError
from sightline.network.features import class_features
from sightline.network.input_spec import InputSpec

SHOWN = {  # the classes of each image, numbered from 1 as VOC does
    "train": {"a0": [1], "a1": [1], "a2": [1], "b0": [20], "b1": [20], "b2": [20], "ab": [1, 20], "none": []},
    "val": {"c0": [1], "c1": [15, 20]},
}


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    """PASCAL VOC 2012's layout: each class of an image is a column of its segmentation, with an ignored rim."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for part, images in SHOWN.items():
        lists = root / "ImageSets/Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{part}.txt").write_text("\n".join(images) + "\n")
        for name, classes in images.items():
            write_image(root / "JPEGImages" / f"{name}.jpg")
            values = np.zeros((24, 32))
            for place, number in enumerate(classes):
                values[4:20, 2 + 14 * place : 14 + 14 * place] = 255
                values[6:18, 4 + 14 * place : 12 + 14 * place] = number
            write_mask(root / "SegmentationClass" / f"{name}.png", values)
    return root


def test_single_labels_take_the_images_of_one_class(voc_folder: Path) -> None:
    splits = data.create_dataset("voc", root=str(voc_folder.parents[1]), val=1)
    assert len(splits.classes) == 20
    assert {name: split.labels.tolist() for name, split in splits.items()} == {
        "train": [0, 0, 19, 19],
        "val": [0, 19],
        "test": [0],
    }
    sample = splits["test"][0]
    assert Path(sample.path).stem == "c0"
    assert sample.mask.shape == (24, 32)
    assert {int(value): int(count) for value, count in zip(*sample.mask.unique(return_counts=True))} == {
        0: 24 * 32 - 16 * 12,
        1: 12 * 8,
        255: 16 * 12 - 12 * 8,
    }


def test_multiple_labels_give_one_mask_per_class(voc_folder: Path) -> None:
    splits = data.create_dataset("voc", root=str(voc_folder), labels="multiple", val=0.25, seed=3)
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "val": 2, "test": 2}
    test = splits["test"]
    assert test.multi_label
    assert test.labels.nonzero().tolist() == [[0, 0], [1, 14], [1, 19]]
    assert splits.describe()["test"]["classes"]["tvmonitor"] == 1
    sample = test[1]
    assert sample.label.nonzero()[:, 0].tolist() == [14, 19]
    assert sample.mask.shape == (20, 24, 32)
    assert torch.equal((sample.mask == 1).flatten(1).any(1).long(), sample.label)
    assert sample.mask[14, 6:18, 4:12].eq(1).all()
    assert sample.mask[19, 6:18, 4:12].eq(0).all()
    assert sample.mask[:, 4, 2].eq(255).all()


def test_batches_of_several_labels_keep_masks_with_their_labels(voc_folder: Path) -> None:
    test = data.create_dataset("voc", root=str(voc_folder), labels="multiple")["test"]
    (batch,) = create_loader(test, size=24, batch_size=2, train=False)
    assert torch.equal(batch.labels, test.labels)
    assert batch.multi_label
    assert batch.masks.shape == (2, 20, 24, 24)
    union = (batch.masks[1, 14] == 1) | (batch.masks[1, 19] == 1)
    assert torch.equal(batch.object_masks()[1], union.float())
    (flipped,) = create_loader(test, size=24, batch_size=2, train=True, seed=1, augment={"crop": 1.0})
    assert (flipped.masks == 1).flatten(2).any(2).long().equal(flipped.labels)


def test_an_image_without_labels_has_no_object_mask() -> None:
    batch = Batch(torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, dtype=torch.int64), torch.ones(1, 5, 4, 4))
    assert not batch.object_masks().any()


def test_a_mask_that_cannot_be_read(voc_folder: Path) -> None:
    (voc_folder / "SegmentationClass/a1.png").write_bytes(b"no picture")
    with pytest.raises(SightlineError, match=r"cannot read the mask .*a1\.png"):
        data.create_dataset("voc", root=str(voc_folder))
    train = data.create_dataset("voc", root=str(voc_folder), val=0, skip_corrupt=True)["train"]
    assert len(train) == 5
    assert [Path(skipped).stem for skipped in train.skipped] == ["a1"]


def test_recomposition_needs_one_label(voc_folder: Path, make_scenes: Callable[..., InMemory]) -> None:
    objects = data.create_dataset("voc", root=str(voc_folder), labels="multiple")["test"]
    with pytest.raises(SightlineError, match="recomposition needs images with one label each"):
        Recompose(objects, make_scenes(objects.classes, each=1), split="test")


def test_voc_invalid_options_raise(voc_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="labels is 'many'; expected 'single' or 'multiple'"):
        data.create_dataset("voc", root=str(voc_folder), labels="many")
    with pytest.raises(SightlineError, match=r"no ImageSets/Segmentation/train\.txt"):
        data.create_dataset("voc", root=str(voc_folder / "JPEGImages"))


def test_metrics_of_one_label_reject_several(voc_folder: Path, tmp_path: Path) -> None:
    test = data.create_dataset("voc", root=str(voc_folder), labels="multiple")["test"]
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    spec = InputSpec((0.5,) * 3, (0.5,) * 3, (24, 24))
    with pytest.raises(SightlineError, match="audit needs images with one label each"):
        audit(model, test, tmp_path / "audit", input_spec=spec)
    with pytest.raises(SightlineError, match="diagnose needs images with one label each"):
        diagnose(model, test, input_spec=spec)
    with pytest.raises(SightlineError, match="targets 'label' needs images with one label each"):
        maps.compute_maps(model, test, tmp_path / "maps", "gradcam", targets="label", layer="0", input_spec=spec)
    with pytest.raises(SightlineError, match="features of classes need images with one label each"):
        class_features(model, list(create_loader(test, size=24, batch_size=2, train=False)), layer="2", input_spec=spec)


OFFICIAL_COLORS = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    8: (64, 0, 0),
    15: (192, 128, 128),
    19: (128, 192, 0),
    20: (0, 64, 128),
}


def test_the_palette_is_that_of_the_development_kit() -> None:
    colors = class_colors()
    assert {value: tuple(colors[value].tolist()) for value in OFFICIAL_COLORS} == OFFICIAL_COLORS
    assert colors[255].tolist() == [224, 224, 192]
    assert len(colors.unique(dim=0)) == 256


def save_in_colors(path: Path, mode: str) -> None:
    """Save a mask anew in the colors of the palette."""
    values = np.array(Image.open(path))
    image = Image.fromarray(class_colors().numpy()[values])
    if mode == "P":  # colors in the order in which a tool meets them
        image = image.quantize(16)
        assert not values.any() or not np.array_equal(np.array(image), values)
    elif mode == "VOC":
        image = Image.fromarray(values)
        image.putpalette(class_colors().flatten().tolist())
    else:
        image = image.convert(mode)
    image.save(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "VOC"])
@pytest.mark.parametrize("labels", ["single", "multiple"])
def test_masks_in_colors_equal_masks_of_indices(voc_folder: Path, mode: str, labels: str) -> None:
    """The same data set as with indices: a cat (8) stays a cat."""
    values = np.zeros((24, 32))
    values[4:9, 3:8] = 8
    write_mask(voc_folder / "SegmentationClass/c0.png", values)
    expected = data.create_dataset("voc", root=str(voc_folder), labels=labels)["test"]
    masks = [sample.mask for sample in map(expected.load, range(len(expected)))]
    for path in (voc_folder / "SegmentationClass").iterdir():
        save_in_colors(path, mode)
    found = data.create_dataset("voc", root=str(voc_folder), labels=labels)["test"]
    assert torch.equal(found.labels, expected.labels)
    assert expected.labels[0] == 7 if labels == "single" else expected.labels[0, 7] == 1
    assert all(torch.equal(found[index].mask, mask) for index, mask in enumerate(masks))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((24, 32), 147), r"c0\.png has the value 147; expected 0 to 20, or 255"),  # a person in gray
        (np.full((24, 32, 3), (64, 0, 1)), r"c0\.png has the color \(64, 0, 1\)"),
    ],
)
def test_mask_values_of_no_class_raise(voc_folder: Path, values: np.ndarray, message: str) -> None:
    write_mask(voc_folder / "SegmentationClass/c0.png", values)
    with pytest.raises(SightlineError, match=message):
        data.create_dataset("voc", root=str(voc_folder))
