"""Explaining from several threads, as a web service does."""

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from explainer_names import ELSEWHERE
from networks import Wrapper
from sightline.explainers import EXPLAINERS
from sightline.network.modes import evaluating
from sightline.network.tap import Tap

THREADS = 4
FEW: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 4},
    "kernel_shap": {"samples": 24},
    "lime": {"samples": 24},
    "lots": {"iterations": 3},
    "occlusion": {"window": 6, "stride": 6},
    "partition_shap": {"evaluations": 24},
    "rise": {"masks": 16},
    "smoothgrad": {"samples": 4},
    "weighted_shap": {"evaluations": 24},
}
NAMES = [name for name in EXPLAINERS.names() if name not in ELSEWHERE]


class Normed(nn.Module):
    """A network that eval mode changes: batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def model() -> nn.Module:
    net = Normed()
    net(torch.rand(8, 3, 12, 12))  # statistics of its own
    return net.train()


def in_threads(work: Callable[[int], Tensor], count: int = 8) -> list[Tensor]:
    start = threading.Barrier(THREADS)

    def begin(index: int) -> Tensor:
        if index < THREADS:
            start.wait()
        return work(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(count)))


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_threads_equal_those_of_one_thread(name: str, model: nn.Module) -> None:
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    images = torch.rand(8, 1, 3, 12, 12)
    called, state = nn.Module.__call__, copy.deepcopy(model.state_dict())
    shared = [model, Wrapper(model)]
    copies = [copy.deepcopy(model).eval() for _ in range(THREADS)]

    def explain(nets: list[nn.Module], index: int) -> Tensor:
        net = nets[index % len(nets)]
        layer = "net.features.2" if isinstance(net, Wrapper) else "features.2"
        return explainer(net, images[index], targets=1, layer=layer)

    for nets in (shared, copies):
        expected = [explain(nets, index) for index in range(8)]
        assert all(map(torch.equal, in_threads(partial(explain, nets)), expected))
    assert all(module.training for module in model.modules())
    assert all(map(torch.equal, model.state_dict().values(), state.values()))
    assert nn.Module.__call__ is called


def test_calls_of_other_threads_are_neither_seen_nor_changed(model: nn.Module) -> None:
    model.eval()
    images = torch.rand(2, 3, 12, 12)
    logits = model(images)
    expected = {name: sl.create_explainer(name)(model, images, layer="features.2") for name in ("gradcam", "fullgrad")}
    stop = threading.Event()

    def predict() -> bool:
        same = True
        while not stop.is_set():
            answer = model(images)
            same &= torch.equal(answer, logits) and answer.requires_grad
        return same

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(predict)
        for _ in range(20):
            for name, maps in expected.items():
                assert torch.equal(sl.create_explainer(name)(model, images, layer="features.2"), maps)
            assert Tap(model, "features.2").tail(images).is_cut  # traced by torch.fx
        stop.set()
        assert served.result()


def test_an_error_gives_the_model_back(model: nn.Module) -> None:
    with pytest.raises(sl.SightlineError):
        sl.create_explainer("gradcam")(model, torch.rand(1, 3, 12, 12), layer="features.2", targets=7)
    assert model.training
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(sl.create_explainer("gradcam"), model, torch.rand(1, 3, 12, 12), layer="features.2").result(
            timeout=20
        ).shape == (1, 12, 12)


def test_models_without_a_common_module_do_not_wait_for_each_other(model: nn.Module) -> None:
    entered = threading.Event()

    def enter(net: nn.Module) -> None:
        with evaluating(net):
            entered.set()

    with ThreadPoolExecutor(1) as pool, evaluating(model):
        pool.submit(enter, copy.deepcopy(model)).result(timeout=20)
        assert entered.is_set()
        entered.clear()
        waiting = pool.submit(enter, Wrapper(model))
        assert not entered.wait(0.1)
        with evaluating(model):  # the thread that has it may enter again
            pass
        assert not entered.wait(0.1)
        assert not waiting.done()
