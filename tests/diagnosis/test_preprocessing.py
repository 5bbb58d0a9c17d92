"""A preprocessing error, a real shortcut and neither, told apart on models whose right preprocessing is known."""

import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

import sightline as sl
from sightline.data import ImageDataset, Sample
from sightline.diagnosis import diagnose
from sightline.diagnosis.page import render
from sightline.diagnosis.preprocessing import Preprocessing, color_alternatives

SIDE = 16
INSIDE = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
INSIDE[4:12, 4:12] = 1
PLAIN = ((0.0,) * 3, (1.0,) * 3)
HALF = ((0.5,) * 3, (0.5,) * 3)


class Painted(ImageDataset):
    """A square whose color says the class, on gray; other things may be painted over it."""

    def __init__(self, colors: list[tuple[int, int, int]], count: int = 60, noise: float = 0.0) -> None:
        self.colors, self.noise = colors, noise
        super().__init__([str(color) for color in colors], [i % len(colors) for i in range(count)], [True] * count)

    def load(self, index: int) -> Sample:
        label = int(self.labels[index])
        wrong = torch.rand(1, generator=torch.Generator().manual_seed(index)).item() < self.noise
        color = self.colors[(label + wrong) % len(self.colors)]
        pixels = torch.where(INSIDE.bool(), torch.tensor(color)[:, None, None], 128).to(torch.uint8)
        image, mask = self.paint(pixels, index), tv_tensors.Mask(INSIDE)
        return Sample(
            tv_tensors.Image(image), label, mask if image.shape[-1] == SIDE else None, index, None, f"{index}.png"
        )

    def paint(self, pixels: Tensor, index: int) -> Tensor:
        return pixels


class Center(nn.Module):
    """A linear function of the mean color of the middle, whatever the size."""

    def __init__(self, weight: list[list[float]], stamp: float = 0.0) -> None:
        super().__init__()
        self.layer, self.weight, self.stamp = nn.Identity(), torch.tensor(weight), stamp

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x)
        step = max(1, a.shape[-1] // 4)
        logits = a[..., step:-step, step:-step].mean((2, 3)) @ self.weight.T
        seen = (a[..., 0, 0].mean(1) - 0.5)[:, None] * torch.tensor([1.0, -1.0, 0.0])[: len(self.weight)]
        return logits + self.stamp * seen


BRIGHT = [[-20.0] * 3, [20.0] * 3]  # right only for images whose gray is 0
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def found(model: nn.Module, data: ImageDataset, norm=PLAIN, **options: object):
    spec = sl.InputSpec(*norm, (SIDE, SIDE))
    return diagnose(model, data, input_spec=spec, explainer="hirescam", layer="layer", **options)


def test_a_wrong_normalization_is_said_first_and_gone_on_with_on_request() -> None:
    data = Painted([(120, 120, 120), (136, 136, 136)])  # the mean of ImageNet lies below both
    said = found(Center(BRIGHT), data)
    assert said.verdict.answer == "wrong preprocessing"
    assert (
        "mean 0.5 and standard deviation 0.5 the accuracy is 100%, and 50% with the preprocessing that was given (60 images)"
        in said.verdict.because
    )
    assert said.measurements["accuracy"].value == 0.5
    assert "wrong preprocessing" in render(said)
    went_on = found(Center(BRIGHT), data, preprocessing="adopt")
    assert went_on.verdict.answer == "looks at the object"
    assert went_on.verdict.findings[0].startswith("With mean 0.5 and standard deviation 0.5")
    assert went_on.facts["mean"] == "0.5, 0.5, 0.5"
    assert found(Center(BRIGHT), data, preprocessing="ignore").verdict.answer == "cannot tell"
    assert found(Center(BRIGHT), data, norm=HALF).verdict.answer == "looks at the object"
    with pytest.raises(sl.SightlineError, match="preprocessing is 'guess'"):
        found(Center(BRIGHT), data, preprocessing="guess")


def test_channels_in_the_other_order_are_found_and_the_model_is_unchanged() -> None:
    model = Center([[0.0, 0, 9], [0, 9, 0], [9, 0, 0]])
    said = found(model, Painted(COLORS))
    assert said.verdict.answer == "wrong preprocessing"
    assert "blue, green, red" in said.verdict.because
    went_on = found(model, Painted(COLORS), preprocessing="adopt")
    assert went_on.measurements["accuracy"].value == 1
    assert went_on.verdict.answer == "looks at the object"
    assert not model._forward_pre_hooks


def test_images_squeezed_in_training_are_found() -> None:
    class Wide(Painted):
        def paint(self, pixels: Tensor, index: int) -> Tensor:
            square = pixels[:, 4:12, 4:12].repeat_interleave(2, 1)
            return torch.cat([torch.full_like(square, 128), square, square, torch.full_like(square, 128)], 2)

    class Edge(Center):
        def forward(self, x: Tensor) -> Tensor:
            a, part = self.layer(x), x.shape[-1] // 16
            return (
                a[..., 5 * part : 6 * part].mean((2, 3)) * (x[..., 2 * part, 0] - 128 / 255).abs().lt(0.001)
            ) @ self.weight.T

    said = found(Edge([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]]), Wide(COLORS))
    assert said.verdict.answer == "wrong preprocessing"
    assert "squeezed" in said.verdict.because


def test_shortcut_is_not_reported_as_wrong_preprocessing() -> None:
    """The stamp in the corner misleads every other image. A crop cuts it off, and so does gray."""

    class Stamped(Painted):
        def paint(self, pixels: Tensor, index: int) -> Tensor:
            shade = 255 * (int(self.labels[index]) ^ (index // 2 % 2))
            pixels[:, [0, -1]] = pixels[:, :, [0, -1]] = shade
            return pixels

    said = found(Center([[9.0, 0, 0], [0, 9, 0]], stamp=-20), Stamped([(255, 0, 0), (0, 255, 0)]))
    assert said.verdict.answer != "wrong preprocessing"
    assert said.preprocessing.trials
    crop = next(trial for trial in said.preprocessing.trials if "center" in trial.name)
    assert crop.accuracy > said.preprocessing.given + 0.2
    assert not crop.better


def test_colors_that_flip_a_misleading_background_are_no_error_of_preprocessing() -> None:
    """Red and blue grounds stand for the other class. Blue first would make every answer right."""

    class Ground(Painted):
        def paint(self, pixels: Tensor, index: int) -> Tensor:
            ground = torch.tensor(self.colors[1 - int(self.labels[index])])[:, None, None]
            return torch.where(INSIDE.bool(), 128, ground).to(torch.uint8)

    class ReadsGround(Center):
        def forward(self, x: Tensor) -> Tensor:
            a = self.layer(x)
            return torch.stack([a[:, 0, 0], a[:, 2, 0]], 1).mean(2) * 9

    said = found(ReadsGround([[0.0] * 3] * 2), Ground([(255, 0, 0), (0, 0, 255)]))
    assert said.verdict.answer == "leans on the background"
    assert "the accuracy would be 100%" in said.verdict.findings[0]


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6])
def test_neither_raises_no_alarm(noise) -> None:
    said = found(Center([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]]), Painted(COLORS, noise=noise))
    assert said.preprocessing.best is None
    assert said.verdict.answer != "wrong preprocessing"
    assert bool(said.preprocessing.trials) == (noise > 0)


def test_color_alternatives_follow_their_definition() -> None:
    given = sl.InputSpec((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), (SIDE, SIDE))
    images = torch.rand(2, 3, 4, 4)
    ways = {how.name: how for how in color_alternatives(given)}
    twice = ways["the given normalization applied twice"]
    once = given.normalize(images)
    mean, std = (torch.tensor(values)[:, None, None] for values in (given.mean, given.std))
    torch.testing.assert_close(twice.prepare(images), (once - mean) / std)
    torch.testing.assert_close(ways["values in 0 .. 255, not normalized"].prepare(images), 255 * images)
    caffe = ways["blue, green, red in 0 .. 255 minus the mean of ImageNet"]
    expected = 255 * images.flip(1) - 255 * torch.tensor([0.406, 0.456, 0.485])[:, None, None]
    torch.testing.assert_close(caffe.prepare(images), expected)
    for how in ways.values():  # the model's input is turned in place of the images
        after = how.input_spec.normalize(images)
        torch.testing.assert_close(after.flip(1) if how.bgr else after, how.prepare(images))
    assert Preprocessing("x", given).input_spec == given
