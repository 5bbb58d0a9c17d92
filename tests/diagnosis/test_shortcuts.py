"""The search for a shortcut, on models whose shortcut is known, and its parts against closed forms."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import sightline as sl
from sightline.diagnosis import diagnose
from sightline.diagnosis.leftovers import border_alone
from sightline.diagnosis.page import render
from sightline.diagnosis.probe import out_of_fold, probe
from sightline.diagnosis.properties import associate, file_properties, jpeg_quality, pixel_properties
from sightline.diagnosis.transplants import BACKGROUND, Donors, paste_cell, take_blur, take_colors, take_compression

SIDE, COUNT = 16, 60
INSIDE = torch.zeros(SIDE, SIDE, dtype=torch.bool)
INSIDE[5:11, 5:11] = True
LABELS = torch.arange(COUNT) % 2


class Reads(nn.Module):
    """Two logits by whether the mean of a part of the first channel is above 0.5."""

    def __init__(self, part: Tensor) -> None:
        super().__init__()
        self.layer, self.part = nn.Identity(), part
        self.head = nn.Linear(1, 2)
        self.head.weight.data, self.head.bias.data = torch.tensor([[-40.0], [40.0]]), torch.tensor([20.0, -20.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[:, 0][:, self.part].mean(1, keepdim=True))


def batch(signal: Tensor, part: Tensor) -> sl.Batch:
    """Noise of mean 0.5 with the class where `part` is, and in the object."""
    images = 0.5 + 0.2 * (torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) - 0.5)
    images = torch.where(part | INSIDE, images + 0.2 * (2 * signal - 1)[:, None, None, None], images)
    known = torch.ones(COUNT, dtype=torch.bool)
    return sl.Batch(images.clamp(0, 1), LABELS, masks=INSIDE.to(torch.uint8).repeat(COUNT, 1, 1), has_mask=known)


def found(part: Tensor) -> sl.diagnosis.Diagnosis:
    return diagnose(
        Reads(part), [batch(LABELS.float(), part)], explainer="hirescam", layer="layer", preprocessing="ignore"
    )


CORNER = torch.zeros(SIDE, SIDE, dtype=torch.bool)
CORNER[12:, :4] = True


@pytest.mark.parametrize(
    ("part", "named"),
    [(CORNER, "a mark in the bottom left corner"), (~INSIDE, BACKGROUND), (INSIDE, "")],
    ids=["corner", "background", "object"],
)
def test_the_shortcut_is_named_and_none_where_there_is_none(part, named) -> None:
    said = found(part)
    # A model of the whole background follows its mean, which is a brightness as well.
    assert said.shortcuts.named in ((named, "brightness or color cast") if named == BACKGROUND else (named,))
    effects = {each.name: each for each in said.shortcuts.transplants}
    if named:
        assert effects[BACKGROUND].flips == 1
        assert effects[BACKGROUND].control == 0
        assert said.shortcuts.leftovers[0].accuracy == 1
    else:
        assert effects[BACKGROUND].flips == 0
    page = render(said)
    assert "Shortcuts that the predictions follow" in page
    assert sum(cluster.size for cluster in said.shortcuts.clusters) == COUNT


def test_transplants_exchange_what_their_names_define() -> None:
    draw = torch.Generator().manual_seed(1)
    images, others = (torch.rand(2, 3, 16, 16, generator=draw) for _ in range(2))
    regions = INSIDE.to(torch.uint8).repeat(2, 1, 1)
    donors = Donors(others, torch.zeros_like(regions), torch.tensor([torch.nan, 10]))
    pasted = paste_cell((0, 3))(images, regions, donors)
    assert pasted[..., :4, 12:].equal(others[..., :4, 12:])
    assert pasted[..., 4:, :].equal(images[..., 4:, :])
    middle = paste_cell((1, 1))(images, regions, donors)
    assert middle[:, :, INSIDE].equal(images[:, :, INSIDE])

    soft, wanted = 0.4 + 0.2 * images, 0.4 + 0.2 * others
    moved = take_colors(soft, regions, Donors(wanted, regions, donors.quality))
    torch.testing.assert_close(moved[..., ~INSIDE].mean(2), wanted[..., ~INSIDE].mean(2))
    assert take_blur(images, regions, donors)[0].std() > 0.9 * images[0].std()  # as sharp as before
    flat = take_blur(images, regions, Donors(torch.full_like(others, 0.5), regions, donors.quality))
    assert flat.std() < 0.2 * images.std()
    packed = take_compression(images, regions, donors)
    assert packed[0].equal(images[0])
    buffer = io.BytesIO()
    Image.fromarray((images[1] * 255).to(torch.uint8).permute(1, 2, 0).numpy()).save(buffer, format="JPEG", quality=10)
    expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255
    torch.testing.assert_close(packed[1], expected, rtol=0, atol=0)


def test_properties_of_files_follow_their_definition(tmp_path) -> None:
    paths = []
    for number, quality in enumerate((10, 50, 90)):
        exif = Image.Exif()
        exif[272] = "A" if number else "B"
        path = tmp_path / f"{number}.jpg"
        Image.new("RGB", (20 + number, 10)).save(path, quality=quality, exif=exif)
        paths.append(str(path))
        with Image.open(path) as image:
            assert jpeg_quality(image.quantization) == pytest.approx(quality, abs=1.5)
    files = file_properties([*paths, "image 3"])
    assert files["width"] == [20, 21, 22, None]
    assert files["camera"] == ["B", "A", "A", None]

    images, regions = torch.full((1, 3, 16, 16), 0.25), INSIDE.to(torch.uint8)[None]
    images[:, 0] = 0.7
    images[:, :, INSIDE] = 1.0
    images[:, :, 0, 0] += 0.01
    seen = pixel_properties(images, regions)
    assert float(seen["brightness"]) == pytest.approx(0.4, abs=1e-3)
    assert float(seen["red cast"]) == pytest.approx(0.3, abs=1e-3)
    corners = {name: float(value) for name, value in seen.items() if "corner" in name}
    assert corners["edges in the bottom right corner"] == pytest.approx(0, abs=1e-6)

    labels = np.arange(300) % 3
    noise = np.random.default_rng(0).normal(size=300)
    strength, p = associate((labels + 0.01 * noise).tolist(), labels)
    assert strength > 0.85
    assert p < 1e-10
    assert associate(noise.tolist(), labels)[0] < 0.05
    kinds = np.array(["a", "b", "c"])[labels].tolist()
    assert associate(kinds, labels)[0] == pytest.approx(1)


def test_probes_are_judged_on_images_left_out() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    noise = torch.randn(90, 30, generator=draw)
    nothing = probe("noise", noise, labels)
    assert nothing.p > 0.01
    assert nothing.chance == pytest.approx(1 / 3)
    told = probe("class", noise + 4 * torch.nn.functional.one_hot(labels, 30), labels, tests=5)
    assert told.accuracy > 0.95
    assert told.p < 1e-6
    assert out_of_fold(noise[:, :0], labels).shape == (90,)
    framed = border_alone(torch.ones(1, 3, 16, 16))
    assert framed[0, 0].eq(1).sum() == 16 * 16 - 12 * 12
