"""What holds of every metric, whatever it measures."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.evaluation import evaluate_model
from sightline.explainers import create_explainer
from sightline.metric_base.bound_explainer import BoundExplainer
from sightline.metrics import METRICS, Observation, PerImageMetric, Scorer

SPEC = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (12, 12))
SMALL: dict[str, dict[str, Any]] = {
    "insertion": {"steps": 6}, "deletion": {"steps": 6}, "morf": {"repeats": 2}, "lerf": {"repeats": 2},
    "lerf_minus_morf": {"repeats": 2},
}  # fmt: skip
OPTIONS = {name: SMALL.get(name, {}) for name in METRICS.names()}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return TinyCNN().eval()


def batch(images: Tensor) -> sl.Batch:
    """A batch of two classes in which two images have masks, one of each, then two have boxes, and so on."""
    size = len(images)
    masks = torch.zeros(size, 12, 12, dtype=torch.uint8)
    masks[:, 3:8, 2:9] = 1
    return sl.Batch(
        images,
        torch.arange(size) % 2,
        masks=masks,
        has_mask=torch.arange(size) % 4 < 2,
        boxes=torch.tensor([[[1.0, 2, 8, 9]]]).repeat(size, 1, 1),
        has_box=(torch.arange(size) % 4 >= 2)[:, None],
        indices=torch.arange(size) + 20,
        groups=torch.arange(size) % 2,
        parts=torch.stack([masks, masks.roll(3, 1)], 1),
        avoid=masks.roll((3, 3), (1, 2)),
    )


def test_evaluation_takes_all_metrics_at_once(model: nn.Module) -> None:
    whole = batch(torch.rand(6, 3, 12, 12))
    known = {name: value for name, value in vars(whole).items() if value is not None}
    halves = (slice(0, 4), slice(4, 6))
    parts = [sl.Batch(**{name: value[rows] for name, value in known.items()}) for rows in halves]
    options = {"layer": "features.3", "input_spec": SPEC}
    evaluation = evaluate_model(model, parts, ["gradcam", "gaussian"], OPTIONS, **options)
    assert evaluation.facts["left_out"] == {}
    assert set(evaluation.table) == set(METRICS.names())
    again = evaluate_model(model, [whole], ["gradcam", "gaussian"], OPTIONS, **options, internal_batch_size=3)
    for result, other in zip(evaluation.results, again.results):
        assert result.low - 1e-5 <= result.value <= result.high + 1e-5
        assert (result.column, result.n) == (other.column, other.n)
        assert result.value == pytest.approx(other.value, abs=1e-5)
    for name, column in evaluation.samples.items():
        torch.testing.assert_close(again.samples[name], column, equal_nan=True, atol=1e-5, rtol=1e-4)


def test_a_compiled_model_has_the_values_of_the_plain_one(model: nn.Module) -> None:
    images, options = batch(torch.rand(4, 3, 12, 12)), {"layer": "features.3", "input_spec": SPEC}
    plain = evaluate_model(model, [images], ["gradcam"], OPTIONS, **options)
    in_place, part = copy.deepcopy(model), copy.deepcopy(model)
    in_place.compile(backend="eager")
    part.features = torch.compile(part.features, backend="eager")  # type: ignore[assignment]
    for form in (in_place, part, torch.compile(model, backend="eager")):
        form(images.images)
        found = evaluate_model(form, [images], ["gradcam"], OPTIONS, **options)
        for result, other in zip(plain.results, found.results):
            assert (result.column, result.value) == (other.column, pytest.approx(other.value, abs=1e-6))


def test_metrics_of_annotations_are_left_out_without_them(model: nn.Module) -> None:
    bare = sl.Batch(torch.rand(4, 3, 12, 12), torch.arange(4) % 3)
    evaluation = evaluate_model(model, [bare], ["gaussian"], OPTIONS, input_spec=SPEC)
    needing = {
        entry.name
        for entry in METRICS
        if any(entry.capabilities[f"needs_{what}"] for what in ("masks", "boxes", "groups", "parts", "avoid"))
    }
    assert set(evaluation.facts["left_out"]) == needing
    assert set(evaluation.table) == set(METRICS.names()) - needing


def observe(model: nn.Module, images: Tensor, maps: Tensor) -> Observation:
    some, scorer = batch(images), Scorer(model, SPEC)
    probabilities = scorer(images)
    return Observation(
        images=images, maps=maps, targets=probabilities.argmax(1), labels=some.labels, masks=some.masks,
        has_mask=some.has_mask, boxes=some.boxes, has_box=some.has_box, indices=some.indices, groups=some.groups,
        parts=some.parts, avoid=some.avoid, has_avoid=some.has_avoid, probabilities=probabilities, scorer=scorer,
        explain=BoundExplainer(create_explainer("gaussian"), model, None, SPEC),
    )  # fmt: skip


def make(name: str, model: nn.Module, **more: Any) -> PerImageMetric:
    needs = METRICS[name].capabilities
    options = OPTIONS[name] | more
    if needs["needs_model"]:
        options |= {"model": model, "input_spec": SPEC}
    if needs["needs_explainer"]:
        options["explainer"] = "gaussian"
    return METRICS.create(name, **options)


@pytest.mark.parametrize("name", METRICS.names())
@pytest.mark.parametrize("what", ["zero maps", "constant maps", "constant images", "one logit", "no object"])
def test_degenerate_cases_have_a_value_or_none(name: str, what: str, model: nn.Module) -> None:
    images, maps = torch.rand(4, 3, 12, 12), torch.rand(4, 12, 12)
    if what == "zero maps":
        maps = torch.zeros_like(maps)
    elif what == "constant maps":
        maps = torch.full_like(maps, 0.5)
    elif what == "constant images":
        images = torch.full_like(images, 0.5)
    elif what == "one logit":
        model = TinyCNN(classes=1).eval()
    observation = observe(model, images, maps)
    if what == "one logit":
        observation.labels = torch.zeros_like(observation.require("labels"))
    if what == "no object":
        observation.masks, observation.has_box = torch.zeros_like(observation.require("masks")), None
        observation.boxes = None
    values = make(name, model).compute_per_image(observation)
    assert values.shape == (4,)
    needs = METRICS[name].capabilities
    assert not values.isinf().any()
    if what == "no object" and (needs["needs_masks"] or needs["needs_boxes"]):
        assert values.isnan().all()
    elif not (needs["needs_masks"] or needs["needs_avoid"] or name == "fgsm_accuracy"):
        assert not values.isnan().any()


@pytest.mark.parametrize("name", [n for n in METRICS.names() if METRICS[n].capabilities["needs_maps"]])
def test_maps_with_nan_are_rejected(name: str, model: nn.Module) -> None:
    observation = observe(model, torch.rand(2, 3, 12, 12), torch.full((2, 12, 12), torch.nan))
    with pytest.raises(sl.SightlineError, match="NaN"):
        make(name, model).compute_per_image(observation)


ASKED = {n for n in METRICS.names() if METRICS[n].capabilities["needs_model"]}


# Coherency and stability ask the explainer, which refuses such a model itself; part interpretability looks at no logits.
@pytest.mark.parametrize("name", sorted(ASKED - {"coherency", "view_stability", "part_interpretability"}))
def test_a_model_with_nan_is_rejected(name: str, model: nn.Module) -> None:
    observation = observe(model, torch.rand(4, 3, 12, 12), torch.rand(4, 12, 12))
    if name == "fgsm_accuracy":  # which asks about right predictions alone
        observation.labels = observation.require("targets")
    observation.has_mask = None
    model.classifier.weight.data.fill_(torch.nan)
    with pytest.raises(sl.SightlineError, match="NaN"):
        make(name, model).compute_per_image(observation)


@pytest.mark.parametrize("name", METRICS.names())
def test_values_of_threads_equal_those_of_one_thread(name: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), TinyCNN()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, maps = torch.rand(6, 4, 3, 12, 12), torch.rand(6, 4, 12, 12)
    layer = {"layer": "2.features.3"} if METRICS[name].capabilities["needs_layer"] else {}

    def measure(index: int) -> Tensor:
        metric = make(name, model, **layer)
        return metric.compute_per_image(observe(model, images[index], maps[index]))

    expected = [measure(index) for index in range(6)]
    with ThreadPoolExecutor(4) as pool:
        for value, wanted in zip(pool.map(measure, range(6)), expected):
            torch.testing.assert_close(value, wanted, rtol=0, atol=0, equal_nan=True)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
