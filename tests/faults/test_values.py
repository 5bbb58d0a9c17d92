"""Numbers that are none, or out of range, are refused by name at every door, and no NaN comes out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sightline as sl
from explainer_names import ELSEWHERE
from networks import TinyCNN
from sightline._core.checks import check_count, check_fraction, check_non_negative, check_number, check_positive
from sightline.acquisition import QUERY_STRATEGIES
from sightline.attacks import fgsm, fgv, hot_cold, lots
from sightline.data.map_store import MapStore
from sightline.errors import SightlineError
from sightline.explainers import EXPLAINERS, create_explainer
from sightline.metrics import METRICS, Accuracy
from sightline.metrics.boxes import box_localization, energy_in_box
from sightline.metrics.corloc import corloc
from sightline.metrics.localization import energy_in_mask, foreground_iou, pointing_game
from sightline.models.weights import load_weights

NAN, INF = math.nan, math.inf
IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
MAPS = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(1))
MASKS = torch.ones(2, 12, 12, dtype=torch.uint8)
FEW: dict[str, dict[str, Any]] = {
    "kernel_shap": {"samples": 10}, "lime": {"samples": 10}, "rise": {"masks": 10}, "partition_shap": {"evaluations": 20},
    "weighted_shap": {"evaluations": 20}, "smoothgrad": {"samples": 2}, "lots": {"iterations": 2},
}  # fmt: skip


@pytest.mark.parametrize("check", [check_number, check_non_negative, check_positive, check_fraction, check_count])
@pytest.mark.parametrize("value", [NAN, INF, -INF, "1", None, True, [1]])
def test_check_of_a_non_number_raises(check: Callable[..., None], value: Any) -> None:
    with pytest.raises(SightlineError, match=r"eps is .*; expected a"):
        check(eps=value)


@pytest.mark.parametrize("eps", [NAN, INF, -0.1, 1.5])
@pytest.mark.parametrize("attack", [fgsm, fgv, hot_cold])
def test_attacks_eps_outside_the_unit_interval_raises(attack: Callable[..., Any], eps: float) -> None:
    with pytest.raises(SightlineError, match=r"eps is .*; expected a number in \[0, 1\]"):
        attack(TinyCNN(), IMAGES, eps=eps)


def test_attacks_weights_and_steps_that_are_not_finite_raise() -> None:
    with pytest.raises(SightlineError, match="NaN or infinity in weights"):
        fgsm(TinyCNN(), IMAGES, eps=0.1, weights=torch.full((2, 12, 12), NAN))
    for option in ("tau", "alpha"):
        with pytest.raises(SightlineError, match=f"{option} is nan"):
            lots(TinyCNN(), IMAGES, **{option: NAN})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (((0.5,), (NAN,), (4, 4)), "std is .nan,.; every value must be positive"),
        (((0.5,), (INF,), (4, 4)), "std is"),
        (((NAN,), (1.0,), (4, 4)), "mean 0 is nan"),
        (((0.5,), (1.0,), (-8, 8)), "size is -8; expected a whole number"),
        (((0.5,), (1.0,), (8, 8.5)), "size is 8.5"),
        (((0.5,), (1.0,), (8,)), "size is .8,.; expected .height, width."),
        (((), (), (8, 8)), "expected one per channel"),
    ],
)
def test_input_spec_invalid_values_raise(spec: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        sl.InputSpec(*spec)


@pytest.mark.parametrize("name", [n for n in EXPLAINERS.names() if n not in ELSEWHERE | {"gaussian"}])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_model_that_is_not_finite(name: str, value: float) -> None:
    model = TinyCNN()
    model.features[1], model.features[3], model.head[3] = nn.ReLU(), nn.ReLU(), nn.ReLU()
    with torch.no_grad():
        model.features[0].weight[0] = value
    layer = "features.2" if EXPLAINERS[name].capabilities["needs_layer"] else None
    with pytest.raises(SightlineError, match="NaN or infinity in"):
        create_explainer(name, **FEW.get(name, {}))(model, IMAGES, layer=layer)


def test_weights_that_are_nan_are_not_loaded() -> None:
    state = TinyCNN().state_dict()
    state["classifier.bias"][1] = NAN
    with pytest.raises(SightlineError, match=r"weights: here does not fit TinyCNN: classifier.bias holds NaN"):
        load_weights(TinyCNN(), state, head=(), source="here")


@pytest.mark.parametrize("metric", [foreground_iou, pointing_game, energy_in_mask])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"masks": MASKS * 7}, "masks hold the value 7"),
        ({"masks": MASKS.float() * NAN}, "masks range over"),
        ({"has_mask": torch.ones(1, dtype=torch.bool)}, r"has_mask has shape \(1,\)"),
        ({"masks": MASKS[:, None].repeat(1, 3, 1, 1), "targets": torch.tensor([0, -1])}, "targets hold -1"),
        ({"masks": MASKS[:, None].repeat(1, 3, 1, 1), "targets": torch.tensor([0, 3])}, "masks have 3 classes and"),
    ],
)
def test_localization_metrics_invalid_masks_raise(
    metric: Callable[..., Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(SightlineError, match=message):
        metric(MAPS, **{"masks": MASKS, **given})


@pytest.mark.parametrize("box", [[5.0, 1, 1, 5], [1.0, NAN, 5, 5], [0.0, 0, INF, 5]])
def test_box_metrics_invalid_boxes_raise(box: list[float]) -> None:
    boxes = torch.tensor([[box], [[0.0, 0, 5, 5]]])
    for call in (
        lambda: box_localization(MAPS, boxes),
        lambda: energy_in_box(MAPS, boxes),
        lambda: corloc(torch.rand(2, 4), boxes),
    ):
        with pytest.raises(SightlineError, match="boxes hold"):
            call()


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, -100]), torch.tensor([0, 99]), torch.tensor([[0, 1, 0], [0, 3, 0]])]
)
def test_accuracy_labels_outside_the_classes_raise(labels: torch.Tensor) -> None:
    with pytest.raises(SightlineError, match="labels range over"):
        Accuracy().update(torch.rand(2, 3), labels)


@pytest.mark.parametrize(
    ("registry", "name", "options"),
    [
        (METRICS, "miou", {"threshold": NAN}),
        (METRICS, "pointing_game", {"tolerance": -1}),
        (METRICS, "box_localization", {"share": NAN}),
        (METRICS, "box_localization", {"threshold": NAN}),
        (METRICS, "corloc", {"iou": NAN}),
        (METRICS, "corloc", {"threshold": -1.0}),
        (METRICS, "insertion", {"internal_batch_size": NAN}),
        (METRICS, "fgsm_accuracy", {"eps": [INF]}),
        (METRICS, "rfs", {"levels": [0.1, NAN]}),
        (METRICS, "explanation_consistency", {"eps": NAN, "explainer": "gradcam"}),
        (EXPLAINERS, "gaussian", {"sigma": INF}),
        (EXPLAINERS, "smoothgradcam++", {"noise": INF}),
        (EXPLAINERS, "scorecam", {"top": 0}),
        (QUERY_STRATEGIES, "ceal", {"threshold": NAN}),
        (QUERY_STRATEGIES, "ceal", {"decay": INF}),
    ],
)
def test_options_of_named_things(registry: Any, name: str, options: dict[str, Any]) -> None:
    if registry is METRICS and METRICS[name].capabilities["needs_model"]:
        options = {"model": TinyCNN(), **options}
    with pytest.raises(SightlineError, match=r" (is|are) "):
        registry.create(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smoothgrad", {"noise": NAN}, "noise is nan"),
        ("integrated_gradients", {"baseline": NAN}, "baseline is nan"),
        ("integrated_gradients", {"steps": 0}, "steps is 0"),
        ("occlusion", {"baseline": INF}, "baseline is inf"),
        ("lime", {"samples": 1}, "samples is 1"),
        ("gradcam++", {"eps": NAN}, "eps is nan"),
        ("partition_shap", {"masker": NAN}, "masker is nan"),
    ],
)
def test_options_that_a_map_needs(name: str, options: dict[str, Any], message: str) -> None:
    layer = "features.2" if name == "gradcam++" else None
    with pytest.raises(SightlineError, match=message):
        create_explainer(name, **options)(TinyCNN(), IMAGES, layer=layer)


@pytest.mark.parametrize("fill", [NAN, INF])
def test_perturbation_curves_fill_that_is_not_finite_raises(fill: float) -> None:
    with pytest.raises(SightlineError, match="fill is"):
        sl.metrics.perturbation_curves(TinyCNN(), IMAGES, MAPS, fill=fill)


@pytest.mark.parametrize("start", [-1, 2, 3, 4])
def test_a_store_of_maps_has_an_end(tmp_path: Path, start: int) -> None:
    pytest.importorskip("zarr")
    store = MapStore.create(tmp_path / "maps", {}, (3, 4, 4), "float16", chunk_size=1)
    with pytest.raises(SightlineError, match=f"start is {start} for 2 maps; .* holds the samples 0 .. 2"):
        store.write(start, torch.rand(2, 4, 4))
    assert not store.finished.any()
