import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from region_classifier import RegionClassifier
from sightline.attacks import fgsm
from sightline.metrics import FGSMAccuracy, fgsm_hits


def test_a_linear_model_falls_where_its_margin_ends(region: Tensor) -> None:
    # Class 0 while the region's mean is above 0.5; FGSM takes eps off every pixel of it.
    model = RegionClassifier(region, slope=4, offset=-2)
    images = torch.tensor([0.55, 0.65, 0.95, 0.3, 0.48])[:, None, None, None].expand(5, 3, 8, 8)
    labels = torch.tensor([0, 0, 0, 0, 1])  # the fourth is wrong from the start
    hits = fgsm_hits(model, images, labels, (0.01, 0.1, 0.2))
    expected = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1], [torch.nan] * 3, [1, 0, 0]])
    torch.testing.assert_close(hits, expected, equal_nan=True)

    metric = FGSMAccuracy(model, eps=(0.01, 0.1, 0.2))
    metric.update(images[:2], labels[:2])
    metric.update(images[2:], labels[2:])
    torch.testing.assert_close(metric.compute(), torch.tensor(7 / 12))
    torch.testing.assert_close(metric.curve, torch.tensor([1, 0.5, 0.25]))
    torch.testing.assert_close(metric.per_image(), expected.mean(1), equal_nan=True)
    assert (metric.n, metric.skipped) == (4, 1)


@pytest.mark.parametrize("internal_batch_size", [None, 2])
def test_equals_the_attack_of_each_image_alone(network: nn.Module, internal_batch_size: int | None) -> None:
    spec = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (8, 8))
    images = torch.rand(6, 3, 8, 8, dtype=torch.float64)
    labels = network.eval()(spec.normalize(images)).argmax(1)
    labels[2] = (labels[2] + 1) % 5
    hits = fgsm_hits(
        network.train(), images, labels, (0.01, 0.3), input_spec=spec, internal_batch_size=internal_batch_size
    )
    assert network.training
    assert hits[2].isnan().all()
    network.eval()
    for i in (0, 1, 3, 4, 5):
        for number, eps in enumerate((0.01, 0.3)):
            attacked = fgsm(network, images[i : i + 1], labels[i : i + 1], eps=eps, input_spec=spec)
            right = network(spec.normalize(attacked)).argmax(1) == labels[i]
            assert hits[i, number] == right.float()
    assert all(p.grad is None for p in network.parameters())


def test_a_model_that_is_never_right_has_no_value(region: Tensor) -> None:
    metric = FGSMAccuracy(RegionClassifier(region))
    metric.update(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(sl.SightlineError, match="3 were skipped"):
        metric.compute()


def test_fgsm_accuracy_invalid_arguments_raise(region: Tensor) -> None:
    for eps in ((), (0.1, 0.0)):
        with pytest.raises(sl.SightlineError, match="eps is"):
            FGSMAccuracy(RegionClassifier(region), eps=eps)
    with pytest.raises(sl.SightlineError, match=r"\[0, 1\]"):
        fgsm_hits(RegionClassifier(region), torch.full((1, 3, 8, 8), 3.0), torch.zeros(1, dtype=torch.int64))
