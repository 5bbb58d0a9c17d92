"""Reading masks: each file shows the same 200 pixels of 1,600, or says why it cannot."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import UnclearFileError
from sightline.data.mask_files import mask_meaning, read_mask
from sightline.errors import SightlineError

OBJECT = np.zeros((40, 40), bool)
OBJECT[8:28, 10:20] = True
NUMBERS = OBJECT.astype(np.uint8)
WHITE = NUMBERS * 255


def colored(inside: tuple[int, ...], outside: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(OBJECT[..., None], inside, outside).astype(np.uint8))


def palette(indices: np.ndarray, *colors: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette([value for color in colors for value in color])
    return image


READ = {
    "numbers.png": Image.fromarray(NUMBERS),
    "one bit.png": Image.fromarray(OBJECT),
    "one bit.tif": Image.fromarray(OBJECT),
    "white.webp": Image.fromarray(WHITE),
    "16 bits.png": Image.fromarray(NUMBERS.astype(np.uint16)),
    "deep numbers.png": Image.fromarray(NUMBERS.astype(np.uint16) * 1000),
    "32 bits.tif": Image.fromarray(NUMBERS.astype(np.int32) * 70000),
    "float.tif": Image.fromarray(NUMBERS.astype(np.float32)),
    "palette.png": palette(NUMBERS, (0, 0, 0), (0, 0, 0)),
    "palette.gif": palette(NUMBERS, (0, 0, 0), (9, 0, 0)),
    "rgb.png": colored((255, 255, 255), (0, 0, 0)),
    "blue.png": colored((0, 0, 1), (0, 0, 0)),
    "red.tif": colored((1, 0, 0), (0, 0, 0)),
    "rgba.png": colored((255, 0, 0, 255), (0, 0, 0, 255)),
    "alpha.png": colored((255, 255, 255, 255), (255, 255, 255, 0)),
    "black on nothing.png": colored((0, 0, 0, 255), (0, 0, 0, 0)),
    "gray alpha.png": colored((255, 255, 255, 255), (255, 255, 255, 0)).convert("LA"),
}


@pytest.mark.parametrize("name", READ)
def test_every_kind_of_file_shows_the_object(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    READ[name].save(tmp_path / name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mask = read_mask(tmp_path / name, mask_meaning())
    np.testing.assert_array_equal(mask.numpy(), OBJECT)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_jpeg_in_black_and_white_is_read_by_half(tmp_path: Path, mode: str, quality: int) -> None:
    Image.fromarray(WHITE).convert(mode).save(tmp_path / "a.jpg", quality=quality)
    with pytest.warns(UserWarning, match="JPEG files, which do not keep exact values"):
        mask = read_mask(tmp_path / "a.jpg", mask_meaning())
    np.testing.assert_array_equal(mask.numpy(), OBJECT)
    Image.new("L", (40, 40)).save(tmp_path / "none.jpg")
    assert not read_mask(tmp_path / "none.jpg", mask_meaning()).any()


def photo(mode: str) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(1, 256, (40, 40, 3), dtype=np.uint8)).convert(mode)


REFUSED = {
    "numbers.jpg": (Image.fromarray(NUMBERS * 3), None, "is a JPEG file"),
    "photo.jpg": (photo("RGB"), None, "is a JPEG file"),
    "ignore.jpg": (Image.fromarray(WHITE), 128, "is a JPEG file"),
    "cmyk.jpg": (photo("CMYK"), None, "is a JPEG file"),
    "lossy.webp": (Image.fromarray(WHITE), None, "is a WEBP file"),
    "a.jp2": (Image.fromarray(WHITE), None, "is a JPEG2000 file"),
    "photo.png": (photo("RGB"), None, "so it is a photo"),
    "colors.png": (colored((255, 0, 0), (0, 0, 0)), 255, "has colors"),
    "cmyk.tif": (photo("CMYK"), None, "color mode CMYK"),
    "deep.png": (Image.fromarray(NUMBERS.astype(np.uint16) * 1000), 255, "values up to 1000"),
    "soft.tif": (Image.fromarray(NUMBERS.astype(np.float32) * 0.5), None, "not all whole numbers"),
    "negative.tif": (Image.fromarray(-NUMBERS.astype(np.int32)), None, "not all whole numbers"),
    "inverted.png": (palette(1 - NUMBERS, (255, 255, 255), (0, 0, 0)), None, "may be inverted"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_masks_that_are_not_clear_raise_with_the_reason(tmp_path: Path, name: str) -> None:
    image, ignore, reason = REFUSED[name]
    image.save(tmp_path / name)
    with pytest.raises(UnclearFileError, match=f"{name} .*{reason}.*Save it as a PNG file"):
        read_mask(tmp_path / name, mask_meaning(ignore))


def test_a_background_in_transparent_or_in_black_is_rejected(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[OBJECT] = 255
    pixels[:4, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(UnclearFileError, match="the background may be either"):
        read_mask(tmp_path / "a.png", mask_meaning())


def test_several_frames_are_rejected(tmp_path: Path) -> None:
    frames = [Image.fromarray(WHITE), Image.fromarray(WHITE.T)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(UnclearFileError, match="has 2 frames"):
        read_mask(tmp_path / "a.tif", mask_meaning())


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_gray_values_keep_their_meaning(tmp_path: Path, mode: str) -> None:
    values = np.zeros((40, 40), np.uint8)
    values[:10], values[10:20], values[20:30] = 3, 200, 255
    image = Image.fromarray(values.astype(np.uint16)) if mode == "I;16" else Image.fromarray(values).convert(mode)
    image.save(tmp_path / "a.png")
    meaning = torch.stack([torch.arange(256) == 3, torch.arange(256) == 255]).to(torch.uint8)
    assert read_mask(tmp_path / "a.png", mask_meaning(200))[::10, 0].tolist() == [1, 255, 1, 0]
    assert read_mask(tmp_path / "a.png", meaning)[:, ::10, 0].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_is_turned_by_its_own_orientation(tmp_path: Path, mode: str, suffix: str) -> None:
    upright = np.zeros((24, 32), np.uint8)
    upright[2:9, 20:31] = 1
    exif = Image.Exif()
    for orientation, stored in ((3, np.rot90(upright, 2)), (6, np.rot90(upright)), (8, np.rot90(upright, -1))):
        exif[274] = orientation
        stored = np.ascontiguousarray(stored)
        if mode == "P":
            image = palette(stored, (0, 0, 0), (9, 9, 9))
        elif mode == "I;16":
            image = Image.fromarray(stored.astype(np.uint16))
        else:
            image = Image.fromarray(stored * 255).convert(mode)
        image.save(tmp_path / f"a.{suffix}", exif=exif)
        np.testing.assert_array_equal(read_mask(tmp_path / f"a.{suffix}", mask_meaning()).numpy(), upright)


def test_image_and_mask_with_one_orientation_agree(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(WHITE[:30]).convert("RGB").save(tmp_path / "image.png", exif=exif)
    Image.fromarray(WHITE[:30]).save(tmp_path / "mask.png", exif=exif)
    Image.fromarray(WHITE[:30]).save(tmp_path / "unturned.png")
    records = [Record(tmp_path / "image.png", label, tmp_path / "mask.png") for label in (0, 1)]
    sample = FileDataset(records, ["a", "b"], tmp_path)[0]
    torch.testing.assert_close(sample.image[0] == 255, sample.mask == 1)
    records[1] = Record(tmp_path / "image.png", 1, tmp_path / "unturned.png")
    with pytest.raises(SightlineError, match="give the mask the same orientation"):
        FileDataset(records, ["a", "b"], tmp_path)[1]


def test_an_image_is_not_a_mask_of_itself(tmp_path: Path) -> None:
    Image.fromarray(WHITE).save(tmp_path / "a.png")
    records = [Record(tmp_path / "a.png", label, tmp_path / "a.png") for label in (0, 1)]
    with pytest.raises(SightlineError, match=r"the mask of .*a\.png is the image itself"):
        FileDataset(records, ["a", "b"], tmp_path)


def test_damaged_masks_are_named(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(WHITE).save(content, "png")
    (tmp_path / "a.png").write_bytes(content.getvalue()[:60])
    with pytest.raises(SightlineError, match=r"cannot read the mask .*a\.png"):
        read_mask(tmp_path / "a.png", mask_meaning())
