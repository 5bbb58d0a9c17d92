import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from region_classifier import RegionClassifier
from sightline._core.seeding import generator
from sightline.metrics import (
    RFS,
    BackgroundNoiseAccuracy,
    ForegroundNoiseAccuracy,
    NormalizedRFS,
    Observation,
    Scorer,
    noised,
    normalized_rfs,
)

NOISE = (ForegroundNoiseAccuracy, BackgroundNoiseAccuracy, RFS, NormalizedRFS)


class Untouched(nn.Module):
    """Class 0 while a region is black to the last pixel, else class 1."""

    def __init__(self, region: Tensor) -> None:
        super().__init__()
        self.region = region
        self.images_seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images_seen += len(images)
        touched = (images[:, :, self.region] != 0).flatten(1).any(1).float()
        return torch.stack([1 - touched, touched], 1) * 5


def batch(region: Tensor, size: int = 4) -> dict[str, Tensor]:
    masks = region.to(torch.uint8).repeat(size, 1, 1)
    return {"images": torch.zeros(size, 3, 8, 8), "labels": torch.zeros(size, dtype=torch.int64), "masks": masks}


@pytest.mark.parametrize("kind", ["gaussian", "l2"])
def test_a_model_that_reads_one_region_alone(region: Tensor, kind: str) -> None:
    for read, expected in [(region, [0, 1, 1, 1]), (~region, [1, 0, -1, -1])]:
        for metric_class, value in zip(NOISE, expected):
            metric = metric_class(Untouched(read), kind=kind)
            metric.update(**batch(region))
            assert metric.compute() == value
            assert metric.curve.tolist() == [value] * (7 if kind == "gaussian" else 8)


def test_normalized_rfs_divides_by_the_largest_possible_value() -> None:
    # Accuracies (bg, fg): (0.9, 0.7) a = 0.8, room 0.4; (0.3, 0.1) a = 0.2; (1, 0); and three without room.
    rfs, accuracy = torch.tensor([0.2, 0.2, 1, 0, 0, 0]), torch.tensor([0.8, 0.2, 0.5, 1, 0, 1 - 1e-8])
    torch.testing.assert_close(normalized_rfs(rfs, accuracy), torch.tensor([0.5, 0.5, 1, 0, 0, 0]))


def test_noise_goes_where_it_should_and_nowhere_else(region: Tensor) -> None:
    images = torch.full((3, 3, 8, 8), 0.5, dtype=torch.float64)
    regions = region.repeat(3, 1, 1)
    indices = torch.tensor([5, 2, 9])
    change = noised(images, regions, 0.01, indices=indices) - images
    assert (change[:, :, ~region] == 0).all()
    draw = torch.randn(3, 8, 8, generator=generator(0, 2, "noise"))
    torch.testing.assert_close(change[1][:, region], 0.01 * draw.double()[:, region])
    torch.testing.assert_close(noised(images, regions, 0.02, indices=indices) - images, 2 * change)
    other = noised(images, regions, 0.01, seed=1, indices=indices) - images
    assert not torch.equal(other, change)
    unit = noised(images, regions, 0.7, "l2", indices=indices) - images
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.full((3,), 0.7, dtype=torch.float64))
    loud = noised(images, regions, 50.0)
    assert (loud.min(), loud.max()) == (0, 1)
    nowhere = noised(images, torch.zeros_like(regions), 1.0, "l2")
    assert torch.equal(nowhere, images)


def test_values_equal_the_literal_study(region: Tensor) -> None:
    model = RegionClassifier(region, slope=40, offset=-20)  # class 0 above a mean of 0.5, which all are near
    images, labels = torch.rand(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 2
    masks = (torch.rand(6, 8, 8) > 0.5).to(torch.uint8)
    masks[:, 0, 0] = 255
    levels, spec = (0.2, 0.9), sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (8, 8))
    accuracy = torch.zeros(2, 2, 6)
    for place, region in enumerate((masks == 1, masks == 0)):
        for number, level in enumerate(levels):
            for i in range(6):
                noise = torch.randn(3, 8, 8, generator=generator(3, 10 + i, "noise")).double()
                image = (images[i] + level * noise * region[i]).clamp(0, 1)
                hit = model(spec.normalize(image[None])).argmax(1) == labels[i]
                accuracy[place, number, i] = hit.float()
    foreground, background = accuracy.mean(2)  # at each level
    rfs = (background - foreground).mean()
    mean = accuracy.mean()
    expected = [foreground.mean(), background.mean(), rfs, rfs / (2 * min(mean, 1 - mean))]
    for metric_class, value in zip(NOISE, expected):
        metric = metric_class(model, levels=levels, seed=3, input_spec=spec)
        metric.update(images[:4], labels[:4], masks[:4], indices=torch.arange(10, 14))
        metric.update(images[4:], labels[4:], masks[4:], indices=torch.arange(14, 16))
        torch.testing.assert_close(metric.compute(), value)
    torch.testing.assert_close(metric.curve, normalized_rfs(background - foreground, accuracy.mean((0, 2))))
    every = torch.arange(6)
    draws = torch.stack([every, every.flip(0)])
    torch.testing.assert_close(metric.resample(draws), expected[-1].expand(2))
    one = accuracy[..., 0].mean(1)
    torch.testing.assert_close(metric.resample(draws[:, :1] * 0)[0], normalized_rfs(one[1] - one[0], one.mean()))


def test_the_four_metrics_share_their_images(region: Tensor) -> None:
    model = Untouched(region)
    observation = Observation(**batch(region), scorer=Scorer(model))
    for metric_class in NOISE:
        metric_class(model).update_batch(observation)
    assert model.images_seen == 4 * 2 * 7


def test_images_that_lack_a_region_are_skipped(region: Tensor) -> None:
    some = batch(region, 6)
    some["masks"][1], some["masks"][2], some["masks"][3, ~region] = 0, 1, 255
    some["has_mask"] = torch.tensor([True, True, True, True, True, False])
    for metric_class, value in zip(NOISE, [0, 1, 1, 1]):
        metric = metric_class(Untouched(region))
        metric.update(**some)
        assert metric.compute() == value
        assert (metric.n, metric.skipped) == (2, 4)
        assert metric.curve.tolist() == [value] * 7
    empty = RFS(Untouched(region))
    empty.update(**(batch(region) | {"has_mask": torch.zeros(4, dtype=torch.bool)}))
    with pytest.raises(sl.SightlineError, match="no image"):
        empty.compute()


def test_a_mask_of_each_class_is_that_of_the_label(region: Tensor) -> None:
    masks = torch.stack([region, ~region]).to(torch.uint8).repeat(2, 1, 1, 1)
    metric = RFS(Untouched(region))
    metric.update(torch.zeros(2, 3, 8, 8), torch.tensor([0, 0]), masks)
    assert metric.compute() == 1
    soft = RFS(Untouched(region))
    soft.update(torch.zeros(2, 3, 8, 8), torch.tensor([0, 0]), masks[:, 0] * 0.7)
    assert soft.compute() == 1


def test_a_model_that_always_says_one_class_has_no_rfs(region: Tensor) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model[2].bias.data = torch.tensor([200.0, 0.0])
    for metric_class, value in zip(NOISE, [1, 1, 0, 0]):
        metric = metric_class(model)
        metric.update(**batch(region))
        assert metric.compute() == value


def test_noise_metrics_invalid_arguments_raise(region: Tensor) -> None:
    images, regions = torch.rand(2, 3, 8, 8), region.repeat(2, 1, 1)
    with pytest.raises(sl.SightlineError, match=r"expected \[0, 1\] because noise"):
        noised(images * 4, regions, 0.1)
    with pytest.raises(sl.SightlineError, match="kind is 'salt'"):
        noised(images, regions, 0.1, "salt")
    with pytest.raises(sl.SightlineError, match="region has shape"):
        noised(images, regions.float(), 0.1)
    with pytest.raises(sl.SightlineError, match="levels are"):
        RFS(Untouched(region), levels=())
    with pytest.raises(sl.SightlineError, match="kind is 'salt'"):
        RFS(Untouched(region), kind="salt")
    with pytest.raises(sl.SightlineError, match="masks have shape"):
        RFS(Untouched(region)).update(images, torch.zeros(2, dtype=torch.int64), torch.zeros(2, 4, 4))
