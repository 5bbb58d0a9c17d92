"""Nearly identical images are found across splits; images of one kind are not taken for copies."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch.nn import functional as F
from typer.testing import CliRunner

from sightline.cli.app import app
from sightline.verification.near_copies import find_near_copies, sketch_image
from sightline.verification.verify import verify_dataset

pytest.importorskip("imagehash")


def scene(key: int) -> Image.Image:
    """A smooth color image with the structure of a photo at all scales."""
    draws = torch.Generator().manual_seed(key)
    layers = [
        F.interpolate(torch.randn(1, 3, side, side, generator=draws), (96, 128), mode="bicubic") / side**0.5
        for side in (3, 6, 12, 24)
    ]
    pixels = torch.stack(layers).sum(0)[0]
    pixels = (pixels - pixels.amin()) / (pixels.amax() - pixels.amin())
    return Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy())


def saved(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "jpeg", quality=quality)
    return Image.open(content)


CHANGES = {
    "png": lambda image: image,
    "quality": lambda image: saved(image, 30),
    "half": lambda image: image.resize((64, 48)),
    "double": lambda image: image.resize((256, 192)),
    "squashed": lambda image: image.resize((96, 96)),
    "gray": lambda image: image.convert("L"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "cropped": lambda image: image.crop((1, 1, 127, 95)),
}


def sketches(images: list[Image.Image]) -> list:
    return [
        sketch_image(torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)) for image in images
    ]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_found(change: str) -> None:
    images = [scene(key) for key in range(20)]
    changed = [CHANGES[change](image) for image in images]
    assert [*find_near_copies(sketches(images), sketches(changed))] == [(i, i) for i in range(20)]


def test_different_images_are_not_copies() -> None:
    first, second = (sketches([scene(key) for key in range(*span)]) for span in ((0, 60), (60, 150)))
    assert [*find_near_copies(first, second)] == []
    assert [*find_near_copies([], second)] == []


def test_flat_images_of_different_colors_are_not_near_copies() -> None:
    flat = [Image.new("RGB", (40, 30), color) for color in ((200, 10, 10), (10, 10, 200), (10, 200, 10))]
    close = [Image.new("RGB", (40, 30), (12, 9, 199)), scene(1)]
    assert [*find_near_copies(sketches(flat), sketches(close))] == [(1, 0)]


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    key = 0
    for part, count in (("train", 6), ("test", 4)):
        for name in ("cat", "dog"):
            for i in range(count):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                scene(key := key + 1).save(tmp_path / part / name / f"{i}.png")
    saved(Image.open(tmp_path / "train/cat/2.png").resize((64, 48)), 60).save(tmp_path / "test/cat/near.jpg")
    shutil.copy(tmp_path / "train/dog/5.png", tmp_path / "test/dog/equal.png")
    shutil.copy(tmp_path / "train/dog/4.png", tmp_path / "test/cat/label.png")
    (tmp_path / "test/dog/link.png").symlink_to(tmp_path / "train/dog/0.png")
    return tmp_path


def test_a_check_names_every_leak(leaking: Path) -> None:
    found = verify_dataset("folder", {"root": str(leaking), "val": 0})
    told = [line.replace(f"{leaking}/", "") for line in found.problems]
    assert told == [
        "contradicting labels: train/dog/4.png and test/cat/label.png: 'dog' and 'cat'",
        "one file: train/dog/0.png and test/dog/link.png: train and test",
        "equal files: train/dog/4.png and test/cat/label.png: train and test",
        "equal files: train/dog/5.png and test/dog/equal.png: train and test",
        "nearly identical: train/cat/2.png and test/cat/near.jpg: train and test",
    ]
    done = CliRunner().invoke(app, ["data", "check", "folder", f"root={leaking}", "val=0"])
    assert done.exit_code == 1
    assert all(line in done.output for line in found.problems)


def test_a_check_without_imagehash_says_what_it_did_not_search(leaking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    done = CliRunner().invoke(app, ["data", "check", "folder", f"root={leaking}", "val=0"])
    assert done.exit_code == 1
    assert "nearly identical images were not searched: pip install 'sightline-xai[check]'" in done.output
    assert "near.jpg" not in done.output
    assert "equal.png" in done.output
