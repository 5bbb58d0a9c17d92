"""ROAD and ARCC against a dense solution by hand, and against pytorch-grad-cam."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.faithfulness.explanation_image import complexity
from sightline.metrics import ARCC, METRICS, ROAD, Coherency, arcc, imputed

SPEC = sl.InputSpec((0.5,) * 3, (0.25,) * 3, (8, 8))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = TinyCNN().double().eval()
    with torch.no_grad():
        for layer in (net.features[0], net.features[2], net.head[2], net.classifier):  # probabilities that differ
            layer.weight *= 4
    return net


def images() -> Tensor:
    return torch.rand(3, 3, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def maps() -> Tensor:
    return torch.rand(3, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def by_hand(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """One channel: the equations of all removed pixels, written out and solved."""
    height, width = image.shape
    matrix, right = np.eye(height * width), image.flatten().copy()
    for y, x in np.argwhere(removed):
        row = np.zeros(height * width)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if (dy or dx) and 0 <= y + dy < height and 0 <= x + dx < width:
                    row[(y + dy) * width + x + dx] = 1 / 12 if dy and dx else 1 / 6
        matrix[y * width + x] -= row / row.sum()
        right[y * width + x] = 0
    return np.linalg.solve(matrix, right).reshape(height, width)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_removed_pixels_are_the_means_of_their_neighbors(share: float) -> None:
    removed = torch.rand(3, 8, 10, generator=torch.Generator().manual_seed(3)) < share
    found = imputed(images(), removed)
    expected = [[by_hand(channel, hole) for channel in image] for image, hole in zip(images().numpy(), removed.numpy())]
    np.testing.assert_allclose(found, np.array(expected), atol=1e-8)
    assert torch.equal(found.movedim(1, 3)[~removed], images().movedim(1, 3)[~removed])
    none = torch.zeros_like(removed)
    assert torch.equal(imputed(images(), none), images())
    assert imputed(images(), ~none).isfinite().all()
    torch.testing.assert_close(imputed(images().float(), removed), found.float())


def peer_metrics(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.metrics import arcc

    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # its noise has no seed
    return arcc


def test_road_equals_that_of_pytorch_grad_cam(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = peer_metrics(monkeypatch)
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    targets = torch.tensor([0, 2, 1])
    theirs = peers.ROADCombined(percentiles=[20, 40, 60, 80])
    net = model.float()
    expected = theirs(images().float(), maps().numpy(), [ClassifierOutputSoftmaxTarget(int(t)) for t in targets], net)
    metric = ROAD(net, noise=0.0)
    metric.update(images().float(), maps().float(), targets)
    torch.testing.assert_close(metric.per_image(), 2 * torch.as_tensor(expected), atol=1e-4, rtol=0)
    assert metric.per_image().abs().amax() > 0.01


def test_arcc_equals_that_of_pytorch_grad_cam(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = peer_metrics(monkeypatch)
    from pytorch_grad_cam import LayerCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    net, targets = model.float(), torch.tensor([0, 2, 1])
    wanted = [ClassifierOutputSoftmaxTarget(int(t)) for t in targets]
    base = LayerCAM(net, [net.features[2]])

    def explain(inputs: Tensor) -> Tensor:
        return sl.explain(net, inputs, "layercam", lambda z: z.softmax(1)[torch.arange(3), targets], "features.2")

    found = 0.99 * explain(images().float()) + 0.01 * maps().float()  # without ties, which it breaks by a threshold
    expected = peers.ARCC(base)(images().float(), found.numpy(), wanted, net)
    base.activations_and_grads.release()

    again = explain(images().float() * found[:, None])
    road = ROAD(net, noise=0.0)
    road.update(images().float(), found, targets)
    coherent = sl.metrics.coherency(found, again)
    total = arcc(coherent, complexity(found), road.per_image())
    torch.testing.assert_close(total, torch.as_tensor(expected).float(), atol=1e-4, rtol=0)
    assert total.amax() > 0.01


def test_arcc_is_the_harmonic_mean_of_its_terms(model: nn.Module) -> None:
    pictures = torch.rand(4, 3, 8, 8)
    net = model.float()
    options: dict[str, Any] = {"layer": "features.2", "input_spec": SPEC}
    found = sl.explain(net, pictures, "gradcam", **options)
    whole, road = ARCC(net, "gradcam", **options), ROAD(net, input_spec=SPEC)
    coherent = Coherency(net, "gradcam", **options)
    for metric in (whole, road, coherent):
        metric.update(pictures, found)
    terms = [coherent.per_image(), 1 - complexity(found), road.per_image().clamp(0, 1)]
    expected = [0.0 if min(t) <= 0 else 3 / sum(1 / float(x) for x in t) for t in zip(*terms)]
    torch.testing.assert_close(whole.per_image(), torch.tensor(expected))
    zero = torch.zeros(1)
    assert arcc(torch.ones(1), zero, torch.tensor([2.0])).item() == 1
    assert arcc(torch.ones(1), zero, torch.tensor([-0.3])).item() == 0


def test_the_noise_is_that_of_the_image(model: nn.Module) -> None:
    pictures, some = torch.rand(4, 3, 8, 8, dtype=torch.float64), torch.rand(4, 8, 8, dtype=torch.float64)
    whole = ROAD(model, noise=0.3)
    whole.update(pictures, some, 1)
    alone = ROAD(model, noise=0.3)
    for picture, map_ in zip(pictures, some):
        alone.update(picture[None], map_[None], 1)
    torch.testing.assert_close(alone.per_image(), whole.per_image())
    other = ROAD(model, noise=0.3, seed=1)
    other.update(pictures, some, 1)
    assert not torch.allclose(other.per_image(), whole.per_image())


@pytest.mark.parametrize("options", [{"shares": ()}, {"shares": (0.0,)}, {"shares": (0.5, 1.0)}, {"noise": -1.0}])
@pytest.mark.parametrize("name", ["road", "arcc"])
def test_road_and_arcc_options_out_of_range_raise(name: str, options: dict[str, Any], model: nn.Module) -> None:
    given = {"explainer": "gradcam"} if name == "arcc" else {}
    with pytest.raises(SightlineError, match=next(iter(options))):
        METRICS.create(name, model=model, **given, **options)
