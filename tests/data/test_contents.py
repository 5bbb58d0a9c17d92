"""Files are told from others of the same names."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from layouts import trimap, write_image, write_mask
from sightline.data import DATASETS
from sightline.data.contents import content_of_files
from sightline.data.dataset import ImageDataset
from sightline.data.splits import Splits
from sightline.datasets.derived.joined import Joined
from sightline.datasets.derived.recompose import Recompose, recompose_splits
from sightline.datasets.derived.subset import Subset


@pytest.mark.parametrize("size", [0, 1, 4096, 16_384, 16_385, 100_000])
def test_sizes_ends_and_order_count(tmp_path: Path, size: int) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    content = bytes(torch.randint(0, 256, (size,), dtype=torch.uint8).tolist())
    file.write_bytes(content)
    other.write_bytes(b"another")
    before = content_of_files([file, other])
    assert content_of_files([other, file]) != before
    copy = tmp_path / "elsewhere"
    copy.write_bytes(content)
    assert content_of_files([copy, other]) == before  # names and dates do not count
    changes = [content + b"x", content[1:] if size else b"y"]
    changes += [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in ((0, size - 1) if size else ())]
    for changed in changes:
        file.write_bytes(changed)
        assert content_of_files([file, other]) != before
    file.unlink()
    assert content_of_files([file, other]) != before


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("jpg", {"quality": 95}), ("webp", {"lossless": True})])
def test_one_changed_pixel_of_a_compressed_image_counts(
    tmp_path: Path, suffix: str, options: dict[str, object]
) -> None:
    pixels = torch.randint(0, 256, (200, 300, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels.numpy()).save(file, **options)
    assert file.stat().st_size > 16_384
    before = content_of_files([file])
    pixels[60, 150] = 255 - pixels[60, 150]
    Image.fromarray(pixels.numpy()).save(file, **options)
    assert content_of_files([file]) != before


def folder(place: Path) -> ImageDataset:
    for name in ("cat", "dog"):
        for i in range(4):
            write_image(place / "images" / name / f"{i}.jpg")
            write_mask(place / "masks" / name / f"{i}.png", trimap())
    return DATASETS.create("folder", root=str(place / "images"), masks=str(place / "masks"), val=0, test=1)["train"]


def test_masks_count_and_what_is_not_in_a_subset_does_not(tmp_path: Path) -> None:
    images = folder(tmp_path)
    whole, part = images.content, Subset(images, [0, 2]).content
    assert whole is not None
    assert part not in (None, whole)
    write_mask(tmp_path / "masks" / Path(images.path(1)).parent.name / f"{Path(images.path(1)).stem}.png", 0 * trimap())
    again = folder_as_it_is(tmp_path)
    assert again.fingerprint == images.fingerprint
    assert again.content != whole
    assert Subset(again, [0, 2]).content == part


def test_files_of_made_images_are_those_of_all_their_origins(tmp_path: Path) -> None:
    images = folder(tmp_path)
    joined = Joined(Splits({"train": images}))
    assert joined.files(1) == images.files(1) != []
    objects = dict.fromkeys(("train", "test"), images)
    recomposed = recompose_splits(objects, {"train": images}, correlation=1.0, size=32, seed=0)["train"]
    assert isinstance(recomposed, Recompose)
    scene = recomposed.placements[2].scene
    assert recomposed.files(2) == [*images.files(2), *images.files(scene)]
    assert Subset(recomposed, [2]).files(0) == recomposed.files(2)


def folder_as_it_is(place: Path) -> ImageDataset:
    return DATASETS.create("folder", root=str(place / "images"), masks=str(place / "masks"), val=0, test=1)["train"]


def test_data_that_is_made_has_no_files() -> None:
    digits = DATASETS.create("digits")
    assert digits["train"].content is None
    assert Joined(digits).content is None
