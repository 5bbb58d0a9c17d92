import pytest
import torch
from pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from torch import Tensor, nn

import sightline as sl
from region_classifier import RegionClassifier
from sightline._core.seeding import generator
from sightline.metrics import LeRF, LeRFMinusMoRF, MoRF, Observation, Scorer, area_under_curve, square_curves


def test_curves_of_a_region_mean_have_a_closed_form(region: Tensor) -> None:
    # The region is 4 of 16 squares; each that goes takes a quarter of the region's mean with it.
    model, images = RegionClassifier(region), torch.ones(1, 3, 8, 8)
    maps = region.float()[None] + torch.rand(1, 8, 8) * 0.1
    options = {"square": 2, "fill": 0.0}
    gone = torch.arange(17.0)
    morf = square_curves(model, images, maps, 0, order="morf", **options)[0]
    torch.testing.assert_close(morf, torch.sigmoid(3 - gone.clamp(max=4)))
    lerf = square_curves(model, images, maps, 0, order="lerf", **options)[0]
    torch.testing.assert_close(lerf, torch.sigmoid(3 - (gone - 12).clamp(min=0)))


def literal_curve(model: nn.Module, image: Tensor, noise: Tensor, saliency: Tensor, side: int, least: bool) -> Tensor:
    """The loop of the papers, a square at a time."""
    height, width = saliency.shape
    squares = [(slice(y, y + side), slice(x, x + side)) for y in range(0, height, side) for x in range(0, width, side)]
    squares.sort(key=lambda place: -saliency[place].double().mean().item())
    target, current, scores = model(image[None]).argmax(1), image.clone(), [model(image[None])]
    for place in reversed(squares) if least else squares:
        current[:, *place] = noise[:, *place]
        scores.append(model(current[None]))
    return torch.cat(scores).softmax(1)[:, target].flatten()


@pytest.mark.parametrize("spec", [None, sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (9, 7))])
@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_equals_the_literal_loop(network: nn.Module, spec: sl.InputSpec | None, order: str) -> None:
    # Squares of 4 do not divide 9 x 7: those at the border are cut.
    images, maps = torch.rand(2, 3, 9, 7, dtype=torch.float64), torch.rand(2, 9, 7)
    indices = torch.tensor([40, 7])
    curves = square_curves(network, images, maps, order=order, repeats=3, seed=5, indices=indices, input_spec=spec)

    network.eval()
    model = network if spec is None else nn.Sequential(Normalized(spec), network)
    for i in range(2):
        noises = [torch.rand(3, 9, 7, generator=generator(5, int(indices[i]), "squares", r)).double() for r in range(3)]
        runs = [literal_curve(model, images[i], noise, maps[i], 4, order == "lerf") for noise in noises]
        torch.testing.assert_close(curves[i], torch.stack(runs).mean(0))


class Normalized(nn.Module):
    def __init__(self, spec: sl.InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        return self.spec.normalize(images)


def test_equals_pytorch_grad_cam_pixel_by_pixel(region: Tensor) -> None:
    images, maps = torch.rand(3, 3, 8, 8), torch.rand(3, 64).argsort(1).view(3, 8, 8) / 64
    model = RegionClassifier(region)
    targets = [lambda output: output.softmax(0)[0]] * 3
    for order, remove in (("morf", RemoveMostRelevantFirst), ("lerf", RemoveLeastRelevantFirst)):
        curves = square_curves(model, images, maps, 0, order=order, square=1, fill=0.0)
        for count in (1, 20, 63):  # the percentile that lies between the pixels that go and those that stay
            removal = remove(100 * (63.5 - count) / 63, lambda image, kept: image * kept)
            scores = PerturbationConfidenceMetric(removal)(images, maps.numpy(), targets, model, return_diff=False)
            torch.testing.assert_close(curves[:, count], torch.from_numpy(scores))


def test_steps_take_equal_shares_of_the_squares(network: nn.Module) -> None:
    images, maps = torch.rand(1, 3, 8, 8, dtype=torch.float64), torch.rand(1, 8, 8)
    for order in ("morf", "lerf"):
        every = square_curves(network, images, maps, order=order, square=2, repeats=1)
        fourth = square_curves(network, images, maps, order=order, square=2, steps=4, repeats=1)
        torch.testing.assert_close(fourth, every[:, ::4])
    sixth = square_curves(network, images, maps, square=2, steps=6, repeats=1)
    torch.testing.assert_close(sixth, every_at(network, images, maps, [0, 2, 5, 8, 10, 13, 16]))


def every_at(network: nn.Module, images: Tensor, maps: Tensor, places: list[int]) -> Tensor:
    return square_curves(network, images, maps, square=2, repeats=1)[:, places]


@pytest.mark.parametrize("internal_batch_size", [1, 5, 1000])
def test_neither_chunks_nor_the_batch_change_the_curves(network: nn.Module, internal_batch_size: int) -> None:
    images, maps, indices = torch.rand(3, 3, 8, 8, dtype=torch.float64), torch.rand(3, 8, 8), torch.tensor([9, 3, 5])
    whole = square_curves(network, images, maps, square=2, repeats=2, indices=indices)
    torch.testing.assert_close(
        square_curves(
            network, images, maps, square=2, repeats=2, indices=indices, internal_batch_size=internal_batch_size
        ),
        whole,
    )
    order = torch.tensor([2, 0, 1])
    moved = square_curves(network, images[order], maps[order], square=2, repeats=2, indices=indices[order])
    torch.testing.assert_close(moved, whole[order])


def test_the_square_follows_the_image(region: Tensor) -> None:
    for side, squares in ((32, 64), (64, 64), (96, 144)):
        region = torch.ones(side, side, dtype=torch.bool)
        model = RegionClassifier(region)
        curves = square_curves(model, torch.rand(1, 3, side, side), torch.rand(1, side, side), steps=1000, repeats=1)
        assert curves.shape == (1, squares + 1)
        assert model.images_seen == squares + 1


def test_metrics_share_their_curves_and_average_their_areas(region: Tensor) -> None:
    model = RegionClassifier(region)
    images, maps = torch.rand(4, 3, 8, 8), torch.rand(4, 8, 8)
    metrics = [MoRF(model, square=2), LeRF(model, square=2), LeRFMinusMoRF(model, square=2)]
    curves = [square_curves(model, images, maps, order=order, square=2) for order in ("morf", "lerf")]
    curves.append(curves[1] - curves[0])
    scorer = Scorer(model)
    probabilities = scorer(images)
    observation = Observation(
        images=images, maps=maps, targets=probabilities.argmax(1), probabilities=probabilities, scorer=scorer
    )
    model.images_seen = 0
    for metric, curve in zip(metrics, curves):
        metric.update_batch(observation)
        torch.testing.assert_close(metric.compute(), area_under_curve(curve).mean())
        torch.testing.assert_close(metric.curve[::4], curve.mean(0))  # 16 squares, 64 steps
    assert model.images_seen == 4 * 5 * 2 * 16


def test_square_curves_of_a_map_of_zeros_follow_the_row_order(region: Tensor) -> None:
    model, images = RegionClassifier(region), torch.ones(1, 3, 8, 8)
    zero = torch.zeros(1, 8, 8)  # squares in row order, and from the end
    options = {"square": 2, "fill": 0.0}
    gone = torch.arange(17.0)
    torch.testing.assert_close(
        square_curves(model, images, zero, 0, **options)[0], torch.sigmoid(3 - gone.clamp(max=4))
    )
    last = square_curves(model, images, zero, 0, order="lerf", **options)[0]
    torch.testing.assert_close(last, torch.sigmoid(3 - (gone - 12).clamp(min=0)))
    single = square_curves(certain(), images, zero)
    assert (single == 1).all()
    assert square_curves(model, images, zero, 0, square=50, fill=0.0).shape == (1, 2)  # one square holds the image


def certain() -> nn.Module:
    """A model that is always certain of class 0."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model[2].weight.data.zero_()
    model[2].bias.data = torch.tensor([200.0, 0.0])
    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "roar"}, "order is 'roar'"),
        ({"square": 0}, "square is 0"),
        ({"steps": 1}, "steps is 1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"fill": "grey"}, "fill is 'grey'"),
        ({"indices": torch.arange(3)}, "indices has 3 entries"),
    ],
)
def test_square_curves_invalid_arguments_raise(region: Tensor, options: dict, message: str) -> None:
    with pytest.raises(sl.SightlineError, match=message):
        square_curves(RegionClassifier(region), torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), **options)


def test_noise_needs_pixels(region: Tensor) -> None:
    with pytest.raises(sl.SightlineError, match=r"expected \[0, 1\] because noise"):
        square_curves(RegionClassifier(region), torch.rand(2, 3, 8, 8) * 3, torch.rand(2, 8, 8))
