import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

import sightline as sl
from sightline.metrics import ECE, expected_calibration_error


def test_expected_calibration_error_has_the_expected_value() -> None:
    # Bins of a half: (0.4, wrong), (0.2, right) and (0.9, right), (0.8, wrong), (0.7, right).
    confidences, hits = torch.tensor([0.4, 0.9, 0.2, 0.8, 0.7]), torch.tensor([0.0, 1, 1, 0, 1])
    expected = (abs(0.6 - 1) + abs(2.4 - 2)) / 5
    torch.testing.assert_close(expected_calibration_error(confidences, hits, 2), torch.tensor(expected))
    torch.testing.assert_close(expected_calibration_error(confidences, hits, 1), torch.tensor(0.0))


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_equals_torchmetrics(bins: int) -> None:
    probabilities, labels = (torch.randn(200, 4) * 2).softmax(1), torch.randint(4, (200,))
    metric = ECE(bins)
    metric.update(probabilities[:90], labels[:90])
    metric.update(probabilities[90:], labels[90:])
    expected = multiclass_calibration_error(probabilities, labels, 4, n_bins=bins)
    torch.testing.assert_close(metric.compute(), expected)
    assert (metric.n, metric.skipped) == (200, 0)

    draws = torch.randint(200, (3, 150))
    some = [multiclass_calibration_error(probabilities[d], labels[d], 4, n_bins=bins) for d in draws]
    torch.testing.assert_close(metric.resample(draws), torch.stack(some))


def test_an_image_has_its_overconfidence() -> None:
    metric = ECE()
    metric.update(torch.tensor([[0.7, 0.3], [0.4, 0.6]]), torch.tensor([0, 0]))
    torch.testing.assert_close(metric.per_image(), torch.tensor([-0.3, 0.6]))


def test_a_certain_model_is_off_by_its_errors() -> None:
    metric = ECE()
    metric.update(torch.eye(4), torch.tensor([0, 1, 0, 0]))
    assert metric.compute() == 0.5


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_ece_invalid_arguments_raise() -> None:
    with pytest.raises(sl.SightlineError, match="bins is 0"):
        ECE(0)
    with pytest.raises(sl.SightlineError, match=r"expected \[0, 1\]"):
        ECE().update(torch.tensor([[3.0, -1.0]]), torch.tensor([0]))
    with pytest.raises(sl.SightlineError, match="NaN"):
        ECE().update(torch.tensor([[torch.nan, 0.5]]), torch.tensor([0]))
    with pytest.raises(sl.SightlineError, match="no image"):
        ECE().compute()


def test_ece_is_that_of_torchmetrics_and_weights_stand_for_repeated_images() -> None:
    draw = torch.Generator().manual_seed(0)
    probabilities = torch.rand(50, 3, generator=draw).softmax(1)
    labels = torch.randint(3, (50,), generator=draw)
    confidences, hits = probabilities.amax(1), (probabilities.argmax(1) == labels).float()
    theirs = multiclass_calibration_error(probabilities, labels, 3, n_bins=15)
    torch.testing.assert_close(expected_calibration_error(confidences, hits), theirs)
    times = torch.randint(4, (2, 50), generator=draw)
    repeated = [expected_calibration_error(confidences.repeat_interleave(t), hits.repeat_interleave(t)) for t in times]
    torch.testing.assert_close(
        expected_calibration_error(confidences, hits, weights=times.float()), torch.stack(repeated)
    )
