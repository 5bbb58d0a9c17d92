"""One logit z is explained and measured as two logits are whose difference is z."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from explainer_names import ELSEWHERE
from networks import TinyCNN
from sightline.attacks import fgsm, fgv, hot_cold
from sightline.errors import SightlineError
from sightline.evaluation import evaluate_model
from sightline.explainers import EXPLAINERS, create_explainer
from sightline.metrics import METRICS, Accuracy

SPEC = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (12, 12))
FEW: dict[str, dict[str, Any]] = {
    "kernel_shap": {"samples": 10}, "lime": {"samples": 10}, "rise": {"masks": 10}, "smoothgrad": {"samples": 2},
    "partition_shap": {"evaluations": 20}, "weighted_shap": {"evaluations": 2}, "augmented": {}, "occlusion": {"window": 4},
}  # fmt: skip
OF_PROBABILITIES = ("partition_shap", "weighted_shap")
SMALL: dict[str, dict[str, Any]] = {
    "insertion": {"steps": 6}, "deletion": {"steps": 6}, "morf": {"repeats": 2}, "lerf": {"repeats": 2},
    "lerf_minus_morf": {"repeats": 2},
}  # fmt: skip


def models(scale: float) -> tuple[TinyCNN, TinyCNN]:
    """A model of one logit z, and one of the two logits (-scale z, scale z)."""
    torch.manual_seed(5)
    one = TinyCNN(1).double().eval()
    one.features[1], one.features[3], one.head[3] = (
        nn.ReLU(),
        nn.ReLU(),
        nn.ReLU(),
    )  # guided backprop and LRP know these
    with torch.no_grad():
        one.classifier.weight *= 20
        one.classifier.bias -= one(SPEC.normalize(images())).median()  # some images of each side
    two = copy.deepcopy(one)
    two.classifier = nn.Linear(4, 2).double()
    signs = torch.tensor([-scale, scale], dtype=torch.float64)
    two.classifier.weight.data = signs[:, None] * one.classifier.weight.data
    two.classifier.bias.data = signs * one.classifier.bias.data
    return one, two.eval()


def images() -> Tensor:
    return torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", [n for n in EXPLAINERS.names() if n not in ELSEWHERE | {"lots"}])
@pytest.mark.parametrize("targets", [None, 0])
def test_every_explainer_gives_one_logit_the_maps_of_two(name: str, targets: int | None) -> None:
    one, two = models(0.5 if name in OF_PROBABILITIES else 1.0)
    predicted = (one(SPEC.normalize(images()))[:, 0] > 0).long()
    assert 0 < predicted.sum() < 6
    layer = "features.3" if EXPLAINERS[name].capabilities["needs_layer"] else None
    maps = []
    for model in (one, two):
        torch.manual_seed(0)
        maps.append(create_explainer(name, **FEW.get(name, {}))(model, images(), targets, layer, SPEC))
    torch.testing.assert_close(maps[0], maps[1])
    if targets is None:
        torch.manual_seed(0)
        torch.testing.assert_close(
            create_explainer(name, **FEW.get(name, {}))(one, images(), predicted, layer, SPEC), maps[0]
        )


def test_every_metric_gives_one_logit_the_values_of_two() -> None:
    size = 6
    masks = torch.zeros(size, 12, 12, dtype=torch.uint8)
    masks[:, 3:8, 2:9] = 1
    labels = (models(0.5)[0](SPEC.normalize(images()))[:, 0] > 0).long()
    labels[0] = 1 - labels[0]
    batch = sl.Batch(
        images(), labels, masks=masks, indices=torch.arange(size),
        boxes=torch.tensor([[[1.0, 2, 8, 9]]]).repeat(size, 1, 1), groups=torch.arange(size) % 2,
        parts=torch.stack([masks, masks.roll(3, 1)], 1), avoid=masks.roll((3, 3), (1, 2)),
    )  # fmt: skip
    ours, theirs = (
        evaluate_model(
            model, [batch], ["gradcam"], {n: SMALL.get(n, {}) for n in METRICS.names()},
            layer="features.3", input_spec=SPEC,
        )
        for model in models(0.5)
    )  # fmt: skip
    assert ours.facts["left_out"] == {}
    assert set(ours.table) == set(METRICS.names())
    for name, column in ours.samples.items():
        torch.testing.assert_close(theirs.samples[name], column, equal_nan=True, atol=1e-4, rtol=1e-3)
    assert ours["accuracy"].value == pytest.approx(5 / 6)
    assert ours.samples["insertion@gradcam"].std() > 1e-3


def test_attacks_change_one_logit_as_two() -> None:
    one, two = models(0.5)
    labels = torch.tensor([0, 0, 1, 1, 0, 1])
    for attack in (fgsm, fgv):
        for classes in (None, labels):
            changed = [attack(model, images(), classes, eps=0.05, input_spec=SPEC) for model in (one, two)]
            torch.testing.assert_close(*changed, atol=1e-5, rtol=1e-4)
    # Its direction is that of the logit, away from the predicted side; the size is eps whatever the weights.
    changed = hot_cold(one, images(), eps=0.05, input_spec=SPEC)
    z, after = one(SPEC.normalize(images()))[:, 0], one(SPEC.normalize(changed))[:, 0]
    assert torch.equal((after - z).sign(), -z.sign())


def test_scores_of_one_column_are_rejected() -> None:
    with pytest.raises(SightlineError, match=r"scores have shape \(3, 1\)"):
        Accuracy().update(torch.rand(3, 1), torch.zeros(3, dtype=torch.int64))
