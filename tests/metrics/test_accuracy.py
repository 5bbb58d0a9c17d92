import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

import sightline as sl
from sightline.metrics import Accuracy, WorstGroupAccuracy, group_accuracies, worst_group_accuracy

LABELS = torch.tensor([0, 1, 1, 0, 1])
SCORES = torch.tensor([[2.0, 1], [0, 3], [3, 1], [1, 5], [-2, -1]])  # right, right, wrong, wrong, right
GROUPS = torch.tensor([4, 4, 7, 4, 7])


def test_accuracy_equals_torchmetrics() -> None:
    metric = Accuracy()
    metric.update(SCORES, LABELS)
    torch.testing.assert_close(metric.compute(), torch.tensor(0.6))
    scores, labels = torch.randn(50, 4), torch.randint(4, (50,))
    metric.reset()
    metric.update(scores, labels)
    torch.testing.assert_close(metric.compute(), multiclass_accuracy(scores, labels, 4, average="micro"))


def test_worst_group_accuracy_is_that_of_the_lowest_group() -> None:
    metric = WorstGroupAccuracy()
    metric.update(SCORES[:2], LABELS[:2], GROUPS[:2])
    metric.update(SCORES[2:], LABELS[2:], GROUPS[2:])
    assert metric.compute() == 0.5
    assert metric.table == {4: (pytest.approx(2 / 3), 3), 7: (0.5, 2)}
    assert (metric.n, metric.skipped) == (5, 0)


def test_images_without_a_group_are_skipped_and_counted() -> None:
    metric = WorstGroupAccuracy()
    metric.update(SCORES, LABELS, GROUPS.where(GROUPS == 4, -1))
    torch.testing.assert_close(metric.compute(), torch.tensor(2 / 3))
    assert (metric.n, metric.skipped) == (3, 2)
    metric.reset()
    metric.update(SCORES, LABELS, torch.full((5,), -1))
    with pytest.raises(sl.SightlineError, match="no image"):
        metric.compute()


def test_worst_group_accuracy_of_many_rows_equals_each_row() -> None:
    random = torch.Generator().manual_seed(0)
    hits, groups = torch.rand(6, 40, generator=random).round(), torch.randint(-1, 3, (6, 40), generator=random)
    groups[0, groups[0] == 2] = 1  # a group that is not drawn does not count
    rows = [min(a for a, _ in group_accuracies(h, g).values()) for h, g in zip(hits, groups)]
    torch.testing.assert_close(worst_group_accuracy(hits, groups), torch.tensor(rows))


def test_accuracy_invalid_arguments_raise() -> None:
    with pytest.raises(sl.SightlineError, match=r"scores hold NaN \(images \[2\]"):
        Accuracy().update(SCORES.masked_fill(torch.arange(5)[:, None] == 2, torch.nan), LABELS)
    with pytest.raises(sl.SightlineError, match=r"expected \(B, K\) with K >= 2"):
        Accuracy().update(SCORES, LABELS[:3])
