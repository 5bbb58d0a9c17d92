"""Reading images of all depths, color modes and orientations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.files import UnclearFileError, UnreadableFileError
from sightline.data.image_files import read_image

RAMP = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a),
}  # fmt: skip


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def gray(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert (image == image[:1]).all()
    return image[0].numpy()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "a.pgm"])
def test_16_bits_are_scaled_by_their_depth(tmp_path: Path, name: str) -> None:
    Image.fromarray(RAMP).save(tmp_path / name)
    np.testing.assert_array_equal(gray(tmp_path / name), np.rint(RAMP / 257))


def test_12_bits_in_16_are_read_with_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.fromarray(RAMP).save(tmp_path / "full.png")
    Image.fromarray(RAMP * 0).save(tmp_path / "black.png")
    read_image(tmp_path / "full.png")
    read_image(tmp_path / "black.png")
    assert not recwarn.list
    Image.fromarray(RAMP // 16).save(tmp_path / "few.png")
    with pytest.warns(UserWarning, match="no value above 4095.*multiply the values by 16"):
        assert gray(tmp_path / "few.png").max() == 16


def test_16_bits_in_which_white_is_zero(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.tif", tiffinfo={262: 0})
    np.testing.assert_array_equal(gray(tmp_path / "a.tif"), 255 - np.rint(RAMP / 257))


def test_a_gray_map_is_scaled_by_its_highest_value(tmp_path: Path) -> None:
    values = np.arange(24 * 32).reshape(24, 32)
    written = b"P5 32 24 1000\n" + values.astype(">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(written)
    np.testing.assert_allclose(gray(tmp_path / "a.pgm"), values * 255 / 1000, atol=0.51)


def test_16_bits_in_color_are_scaled_to_8(tmp_path: Path) -> None:
    """A PNG file written by hand, because Pillow writes none: the color is 40,000 of 65,535 in red alone."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">HHH", 40000, 0, 0) * 3
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    torch.testing.assert_close(
        read_image(tmp_path / "a.png")[:, 0, 0].float(), torch.tensor([155.6, 0, 0]), atol=1, rtol=0
    )


@pytest.mark.parametrize("values", [RAMP / 65535, RAMP.astype(np.int32), RAMP.astype(np.int16)])
def test_values_without_a_known_range_are_rejected(tmp_path: Path, values: np.ndarray) -> None:
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    Image.fromarray(values.astype(np.int32) if values.dtype == np.int16 else values).save(tmp_path / "a.tif")
    with pytest.raises(UnclearFileError, match=r"a\.tif has .* values, and which of them"):
        read_image(tmp_path / "a.tif")


def test_a_float_file_is_scaled_by_its_stated_range(tmp_path: Path) -> None:
    values = (RAMP / 65535).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={340: 0.0, 341: 2.0})
    np.testing.assert_array_equal(gray(tmp_path / "a.tif"), np.rint(values * 127.5))
    Image.fromarray(values).save(tmp_path / "b.tif", tiffinfo={340: 0.0, 341: 0.5})
    with pytest.raises(UnclearFileError, match=r"range over \[0, 1\]; expected values in \[0, 0\.5\]"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "P", "1"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_images_are_turned_upright_once(tmp_path: Path, mode: str, name: str) -> None:
    values = np.random.default_rng(0).integers(0, 2, (24, 32)).astype(np.uint8) * 255
    image = Image.fromarray(values.astype(np.uint16) * 257 if mode == "I;16" else values)
    image = image if mode == "I;16" else image.convert(mode)
    for orientation, turn in TURNS.items():
        image.save(tmp_path / name, exif=oriented(orientation))
        np.testing.assert_array_equal(gray(tmp_path / name), turn(values))


def test_transparent_pixels_are_shown_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255  # a black shape: only the transparency tells it from the rest
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).convert("LA").save(tmp_path / "b.png")
    palette = Image.fromarray(np.repeat([[1], [1], [0], [0]], 4, 1).astype(np.uint8), mode="P")
    palette.putpalette([200, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "c.png", transparency=0)
    palette.save(tmp_path / "d.gif", transparency=0)
    for file in sorted(tmp_path.iterdir()):
        assert gray(file).tolist() == [[0] * 4] * 2 + [[255] * 4] * 2, file


def test_cmyk_is_converted_and_the_first_frame_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (250, 20, 20)).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert (read_image(tmp_path / "a.jpg").float().mean((1, 2)) - torch.tensor([250.0, 20, 20])).abs().max() < 3
    frames = [Image.new("L", (4, 4), value) for value in (40, 200)]
    frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:])
    assert (gray(tmp_path / "b.png") == 40).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.gif", "a.webp", "a.jpg", "a.bmp"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    """Whatever error Pillow raises for a file that is cut or has changed bytes, ours names the file."""
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    draws = np.random.default_rng(2)
    refused = 0
    for _ in range(40):
        damaged = bytearray(whole[: draws.integers(1, len(whole))])
        for place in draws.integers(0, len(damaged), 3):
            damaged[place] ^= 0xFF
        (tmp_path / name).write_bytes(damaged)
        try:
            read_image(tmp_path / name)
        except UnreadableFileError as error:
            refused += 1
            assert str(tmp_path / name) in str(error)  # noqa: PT017
    assert refused > 20
