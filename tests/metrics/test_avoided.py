"""Energy in the region to avoid, and accuracy with marks removed, pasted and swapped."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from sightline.data import create_dataset
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.evaluation import evaluate_model
from sightline.metrics import (
    METRICS,
    EnergyInAvoid,
    MarkPastedAccuracy,
    MarkRemovedAccuracy,
    MarkSwappedAccuracy,
    Observation,
    changed_marks,
    energy_in_avoid,
)

SIZE = 20
COLORS = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])  # of the marks of three classes


class ReadsMarks(nn.Module):
    """Answers by the color that exceeds gray anywhere; class 0 where none does, by a bias."""

    def forward(self, images: Tensor) -> Tensor:
        return 10 * (images - 0.5).clamp_min(0).sum((2, 3)) + torch.tensor([1.0, 0, 0])


def images_of(labels: list[int], marks: list[int | None]) -> tuple[Tensor, Tensor, Tensor]:
    """Gray images with a mark of a class, or none, in the upper left corner."""
    images = torch.full((len(labels), 3, SIZE, SIZE), 0.5)
    avoid = torch.zeros(len(labels), SIZE, SIZE, dtype=torch.uint8)
    for row, mark in enumerate(marks):
        if mark is not None:
            images[row, :, :4, :5] = COLORS[mark][:, None, None]
            avoid[row, :4, :5] = 1
    return images, torch.tensor(labels), avoid


def test_energy_in_avoid_is_the_share_in_the_region() -> None:
    maps, avoid = torch.zeros(5, 4, 4), torch.zeros(5, 4, 4, dtype=torch.uint8)
    maps[:, 0, 0], maps[:, 3, 3], maps[4] = 1, 3, 0
    avoid[:2, 3, 3], avoid[1, 0, 0], avoid[4, 0, 0] = 1, 255, 1
    known = torch.tensor([True, True, True, False, True])
    found = energy_in_avoid(maps, avoid, known)
    torch.testing.assert_close(found, torch.tensor([0.75, 1, torch.nan, torch.nan, 0]), equal_nan=True)
    soft = energy_in_avoid(maps[:1], torch.full((1, 4, 4), 0.5))
    torch.testing.assert_close(soft, torch.tensor([0.5]))
    metric = EnergyInAvoid()
    metric.update(maps[:3], avoid[:3], known[:3])
    metric.update(maps[3:], avoid[3:], known[3:])
    assert float(metric.compute()) == pytest.approx(1.75 / 3)
    assert (metric.n, metric.skipped) == (3, 2)
    with pytest.raises(SightlineError, match="avoid has shape"):
        energy_in_avoid(maps, avoid[:, None])


def test_a_model_that_reads_marks_alone() -> None:
    labels, marks = [0, 1, 2, 1, 2, 0], [0, 1, 2, None, 2, 0]
    images, targets, avoid = images_of(labels, marks)
    known = torch.tensor([True, True, True, True, True, False])
    values = {}
    for metric in (
        MarkRemovedAccuracy(ReadsMarks()),
        MarkPastedAccuracy(ReadsMarks()),
        MarkSwappedAccuracy(ReadsMarks()),
    ):
        metric.update(images, targets, avoid, known)
        values[metric.change] = metric.per_image()
    nan = torch.nan
    torch.testing.assert_close(values["removed"], torch.tensor([1.0, 0, 0, nan, 0, nan]), equal_nan=True)
    torch.testing.assert_close(values["pasted"], torch.tensor([0.0, 0, 0, 0, 0, nan]), equal_nan=True)
    torch.testing.assert_close(values["swapped"], torch.tensor([0.0, 0, 0, nan, 0, nan]), equal_nan=True)


def test_changed_pixels_are_those_of_the_marks() -> None:
    images, labels, avoid = images_of([0, 1, 1], [0, 1, None])
    avoid[1] = avoid[1].roll(10, 0)
    images[1] = images[1].roll(10, 1)
    for change in ("removed", "pasted", "swapped"):
        seen = Observation(images=images, labels=labels, avoid=avoid)
        changed, known = changed_marks(seen, change)
        assert known.tolist() == [True, True, change == "pasted"]
        if change == "removed":
            assert (changed == 0.5).all()
            continue
        assert torch.equal(changed[0, :, 10:14, :5], images[1, :, 10:14, :5])  # the mark stays at its place
        assert torch.equal(changed[1, :, :4, :5], images[0, :, :4, :5])
        assert torch.equal(changed[0, :, :4, :5], images[0, :, :4, :5]) == (change == "pasted")
    alone = Observation(images=images[1:], labels=labels[1:], avoid=avoid[1:])
    assert not changed_marks(alone, "pasted")[1].any()  # no other class has one


def test_a_region_without_pixels_next_to_it_cannot_be_removed_or_lent() -> None:
    images, labels, avoid = images_of([0, 1], [0, 1])
    avoid[0] = 1
    seen = Observation(images=images, labels=labels, avoid=avoid)
    assert changed_marks(seen, "removed")[1].tolist() == [False, True]
    assert changed_marks(seen, "pasted")[1].tolist() == [True, False]


def test_evaluation_draws_marks_from_the_whole_data_set_and_does_not_depend_on_batches() -> None:
    source = {"name": "digits", "copies": 1, "size": 32}
    images = create_dataset("marked", source=source, mark={"kind": "patch"})["test_same"]
    model = sl.load_model("sightline/small_cnn", None, len(images.classes))[0].eval()
    names = [name for name in METRICS.names() if METRICS[name].capabilities["needs_avoid"]]
    assert names == ["energy_in_avoid", "mark_pasted_accuracy", "mark_removed_accuracy", "mark_swapped_accuracy"]

    def measure(size: int) -> dict[str, Any]:
        loader = create_loader(images, size=32, batch_size=size, train=False, indices=range(0, 60, 2))
        found = evaluate_model(model, loader, ["gradcam"], names)
        assert not found.facts["left_out"]
        assert all(result.low <= result.value <= result.high for result in found.results)
        return found.samples

    one, other = measure(30), measure(1)
    for name in ("mark_pasted_accuracy", "mark_removed_accuracy", "mark_swapped_accuracy", "energy_in_avoid@gradcam"):
        torch.testing.assert_close(one[name], other[name], equal_nan=True, rtol=1e-3, atol=1e-4)
        assert not one[name].isnan().any()
    plain = create_dataset(**source)["test_iid"]
    loader = create_loader(plain, size=32, batch_size=30, train=False, indices=range(30))
    left_out = evaluate_model(model, loader, ["gradcam"], names).facts["left_out"]
    assert left_out["mark_removed_accuracy"] == "no image has avoid"
