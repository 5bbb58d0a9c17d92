"""The fastest form of a model changes the time and not the answer."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from explainer_names import ELSEWHERE
from sightline._core.internal_batches import InternalBatches
from sightline.inference import fastest as module
from sightline.inference.fastest import PLAIN, Form, fastest, measure, pinned
from sightline.metric_base.registry import METRICS


class Network(nn.Module):
    """A small network that notes how its inputs lie in memory and how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.head = nn.Linear(16 * 9, 5)
        self.seen: list[tuple[bool, int]] = []
        self.body[0].register_forward_pre_hook(lambda module, args: self.note(*args))

    def note(self, images: Tensor) -> None:
        self.seen.append((images.is_contiguous(memory_format=torch.channels_last), len(images)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(images)).flatten(1))


@pytest.fixture(autouse=True)
def _no_measurements() -> Iterator[None]:
    module._measured.clear()
    yield
    module._measured.clear()


FEW = {
    "integrated_gradients": {"steps": 4},
    "kernel_shap": {"samples": 24, "patch": 16},
    "lime": {"samples": 24, "patch": 16},
    "lots": {"iterations": 3},
    "occlusion": {"window": 16, "stride": 16},
    "partition_shap": {"evaluations": 24},
    "rise": {"masks": 24},
    "smoothgrad": {"samples": 3},
    "weighted_shap": {"evaluations": 24},
}


@pytest.mark.parametrize("name", sorted(set(sl.explainers.list_explainers()) - ELSEWHERE))
def test_an_explainer_gives_the_same_map_in_another_form(name: str) -> None:
    model, images = Network().eval(), torch.rand(3, 3, 32, 32)
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    needs_layer = sl.explainers.list_explainers()[name]["needs_layer"]
    layer = "body.4" if needs_layer else None
    maps = {}
    for form in (PLAIN, Form(channels_last=True, rows=2)):
        model.seen.clear()
        with pinned(form):
            maps[form] = explainer(model, images, layer=layer)
    # Rounding decides which of two parts Partition SHAP divides next, where their values are nearly equal.
    tolerance = 1e-3 if name in ("partition_shap", "weighted_shap") else 1e-5
    torch.testing.assert_close(maps[PLAIN], maps[form], rtol=0, atol=tolerance)
    if model.seen:  # rules for gradients run a traced copy of the model, in the plain order
        assert any(last for last, _ in model.seen)


@pytest.mark.parametrize("name", ["insertion", "morf", "road", "fgsm_accuracy"])
def test_a_metric_gives_the_same_value_in_another_form(name: str) -> None:
    model, images = Network().eval(), torch.rand(3, 3, 32, 32)
    values = []
    for form in (PLAIN, Form(channels_last=True, rows=2)):
        model.seen.clear()
        with pinned(form):
            metric = METRICS.create(name, model=model)
            if name == "fgsm_accuracy":
                metric.update(images, torch.arange(3))
            else:
                metric.update(images, images.mean(1))
            values.append(metric.compute())
    assert all(last for last, _ in model.seen)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-5)


def test_small_work_is_not_measured_and_large_work_is_measured_once() -> None:
    model, images = Network().eval(), torch.rand(2, 3, 64, 64)
    sl.explain(model, images, layer="body.4")
    assert len(model.seen) == 1
    assert not module._measured
    explainer = sl.create_explainer("rise", masks=32)
    explainer(model, images)
    (form,) = module._measured.values()
    assert form.rows in (MANY_ROWS // 8, MANY_ROWS // 2)
    model.seen.clear()
    explainer(model, images)
    assert max(count for _, count in model.seen) <= form.rows
    assert sum(count for _, count in model.seen) == 2 + 2 * 32  # nothing but the prediction and the masked images


MANY_ROWS = 32 * 224**2 // 64**2


def test_a_model_that_cannot_run_in_channels_last_order_keeps_the_plain_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Viewed(), nn.Linear(4 * 62 * 62, 3)).eval()
    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(RuntimeError, match="view"):
        model(images.contiguous(memory_format=torch.channels_last))
    assert not measure(model, images).channels_last
    assert sl.create_explainer("rise", masks=40)(model, images).isfinite().all()


def test_a_model_whose_answer_depends_on_the_order_keeps_the_plain_order() -> None:
    class Ordered(Network):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + float(images.is_contiguous())

    assert not measure(Ordered().eval(), torch.rand(2, 3, 64, 64)).channels_last


def test_the_faster_of_two_orders_is_chosen() -> None:
    class Slow(Network):
        def forward(self, images: Tensor) -> Tensor:
            for _ in range(1 if images.is_contiguous(memory_format=torch.channels_last) else 6):
                answer = super().forward(images)
            return answer

    assert measure(Slow().eval(), torch.rand(2, 3, 128, 128)).channels_last


def test_maps_of_a_batch_in_parts_belong_to_their_images() -> None:
    model, images, targets = Network().eval(), torch.rand(5, 3, 32, 32), torch.tensor([0, 1, 2, 3, 4])
    for name in ("gradcam", "randomcam", "finercam"):
        whole = sl.explain(model, images, name, targets, "body.4")
        with pinned(Form(rows=2)):
            torch.testing.assert_close(sl.explain(model, images, name, targets, "body.4"), whole, rtol=0, atol=1e-5)


def test_fastest_leaves_nothing_on_the_model() -> None:
    model, images = Network().eval(), torch.rand(2, 3, 64, 64)
    with fastest(model, images):
        assert model._forward_pre_hooks
    assert not model._forward_pre_hooks
    assert InternalBatches().size(images) == MANY_ROWS


class Viewed(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.view(len(values), -1)
