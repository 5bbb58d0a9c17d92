import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sightline as sl
from sightline.evaluation import Evaluation, evaluate_model
from sightline.explainers import create_explainer
from sightline.metrics import (
    METRICS,
    Insertion,
    Observation,
    PerImageMetric,
    foreground_iou,
    register,
)

SPEC = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (16, 16))
LAYER = "features"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 3)
        self.images_seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images_seen += len(images)
        return self.head(self.features(images).mean((2, 3)))


@pytest.fixture
def model() -> Net:
    return Net()


@pytest.fixture
def batches() -> list[sl.Batch]:
    """Eleven images in three batches; some have no mask, one has no object."""
    masks = (F.avg_pool2d(torch.rand(11, 1, 16, 16), 5, 1, 2)[:, 0] > 0.5).to(torch.uint8)
    masks[3], masks[4, :2] = 0, 255
    has_mask = torch.arange(11) % 4 != 1
    images, labels, groups = torch.rand(11, 3, 16, 16), torch.arange(11) % 3, torch.arange(11) % 2
    parts = [slice(0, 4), slice(4, 8), slice(8, 11)]
    return [
        sl.Batch(
            images[p], labels[p], masks[p], has_mask[p], indices=torch.arange(100, 111)[p], groups=groups[p]
        )
        for p in parts
    ]  # fmt: skip


def whole(batches: list[sl.Batch]) -> sl.Batch:
    names = ("images", "labels", "masks", "has_mask", "indices", "groups")
    return sl.Batch(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names})


def evaluate(model: nn.Module, batches: list[sl.Batch], *args: object, **options: object) -> Evaluation:
    return evaluate_model(model, batches, *args, input_spec=SPEC, layer=LAYER, **options)


def test_values_are_those_of_the_metrics_alone(model: Net, batches: list[sl.Batch]) -> None:
    found = evaluate(model, batches, ("gradcam", "gaussian"), gallery=5)
    batch = whole(batches)
    logits = model(SPEC.normalize(batch.images))
    predicted = logits.argmax(1)
    maps = sl.explain(model, batch.images, "gradcam", layer=LAYER, input_spec=SPEC)

    assert found["accuracy"].value == pytest.approx((predicted == batch.labels).float().mean().item())
    worst = min((predicted == batch.labels)[batch.groups == g].float().mean().item() for g in (0, 1))
    assert found["worst_group_accuracy"].value == pytest.approx(worst)
    iou = foreground_iou(maps, batch.masks, batch.has_mask)
    assert found["miou@gradcam"].value == pytest.approx(iou.nanmean().item(), abs=1e-6)
    assert found["miou@gradcam"].n == int((~iou.isnan()).sum()) < 11
    torch.testing.assert_close(found.samples["miou@gradcam"], iou, equal_nan=True)
    torch.testing.assert_close(found.samples["predicted"], predicted)
    assert found.samples["index"].tolist() == list(range(100, 111))

    insertion = Insertion(model, input_spec=SPEC)
    insertion.update(batch.images, maps)
    assert found["insertion@gradcam"].value == pytest.approx(insertion.compute().item(), abs=1e-6)
    torch.testing.assert_close(found.curves["gradcam"]["insertion"].score, insertion.curve)
    assert found["coherency@gaussian"].value == pytest.approx(1)
    assert not found["deletion@gradcam"].higher_is_better
    assert all(r.low <= r.value <= r.high for r in found.results if r.metric != "worst_group_accuracy")


def test_work_is_shared(model: Net, batches: list[sl.Batch]) -> None:
    evaluate(model, batches, ("gaussian",))
    # One pass for the predictions; 447 more for both curves; one for drop and increase. The Gaussian asks nothing.
    assert model.images_seen == 11 * (1 + 447 + 1)


def test_batches_do_not_matter(model: Net, batches: list[sl.Batch]) -> None:
    metrics = ("miou", "average_drop", "adcc", "complexity")
    one, many = (evaluate(model, b, ("gradcam",), metrics, gallery=4) for b in ([whole(batches)], batches))
    assert list(one.samples) == list(many.samples)
    for name in one.samples:
        torch.testing.assert_close(one.samples[name], many.samples[name], equal_nan=True)
    torch.testing.assert_close(vars(one.gallery), vars(many.gallery))


def test_slow_metrics_see_a_nested_subset(model: Net, batches: list[sl.Batch]) -> None:
    seen = {}
    for n in (0, 2, 5, 100):
        found = evaluate(model, batches, ("gaussian",), ("insertion", "miou"), max_images_slow=n, subset_key="test")
        assert found.facts["slow_n"] == min(n, 11)
        if n == 0:
            assert found.facts["left_out"] == {"insertion": "it was shown no image"}
            continue
        seen[n] = {i for i, v in enumerate(found.samples["insertion@gaussian"].tolist()) if v == v}
        assert found["insertion@gaussian"].n == len(seen[n]) == min(n, 11)
        assert found["miou@gaussian"].n > 5
    assert seen[2] < seen[5] < seen[100]


def test_metrics_that_the_data_cannot_serve_are_left_out_and_named(model: Net, batches: list[sl.Batch]) -> None:
    bare = [sl.Batch(batch.images, batch.labels) for batch in batches]
    found = evaluate(model, bare, ("gaussian",), ("accuracy", "worst_group_accuracy", "miou"), gallery=3)
    assert [result.metric for result in found.results] == ["accuracy"]
    assert found.facts["left_out"] == {
        "worst_group_accuracy": "no image has groups", "miou": "no image has masks"
    }  # fmt: skip
    assert found.samples["index"].tolist() == list(range(11))
    assert found.gallery is not None
    assert found.gallery.masks is None
    assert not found.gallery.has_mask.any()


def test_labels_can_be_explained(model: Net, batches: list[sl.Batch]) -> None:
    found = evaluate(model, batches, ("gradcam",), ("average_drop",), target="label")
    batch = whole(batches)
    maps = sl.explain(model, batch.images, "gradcam", targets=batch.labels, layer=LAYER, input_spec=SPEC)
    p, q = (
        model(SPEC.normalize(x)).softmax(1)[torch.arange(11), batch.labels]
        for x in (batch.images, batch.images * maps[:, None])
    )
    torch.testing.assert_close(found.samples["average_drop@gradcam"], ((p - q).clamp(min=0) / p).detach())
    assert found.facts["target"] == "label"


def test_the_gallery_holds_the_same_images_for_every_model(batches: list[sl.Batch]) -> None:
    first, second = (evaluate(Net(), batches, ("gradcam",), (), gallery=6).gallery for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.index.tolist() == second.index.tolist() == sorted(first.index.tolist())
    place = first.index - 100
    batch = whole(batches)
    torch.testing.assert_close(first.images, (batch.images[place] * 255).round().to(torch.uint8))
    torch.testing.assert_close(first.masks, batch.masks[place])
    assert not torch.equal(first.maps["gradcam"], second.maps["gradcam"])


def test_metrics_and_explainers_take_options(model: Net, batches: list[sl.Batch]) -> None:
    explainers = {"narrow": create_explainer("gaussian", sigma=0.1), "wide": create_explainer("gaussian", sigma=1.0)}
    found = evaluate(model, batches, explainers, {"complexity": {}, "insertion": {"steps": 8, "score": "max"}})
    assert found["complexity@narrow"].value < found["complexity@wide"].value
    assert found.curves["wide"]["insertion"].score.shape == (9,)
    assert set(found.table["insertion"]) == {"narrow", "wide"}


def test_a_registered_metric_is_measured(model: Net, batches: list[sl.Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    METRICS.names()
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))

    @register("peak")
    class Peak(PerImageMetric):
        """The highest value of a map."""

        def compute_per_image(self, observation: Observation) -> Tensor:
            return observation.require("maps").amax((1, 2))

    assert evaluate(model, batches, ("gaussian",), ("peak",))["peak@gaussian"].value == 1


def test_the_model_and_its_mode_are_unchanged(model: Net, batches: list[sl.Batch]) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.features.eval()
    flags = [module.training for module in model.modules()]
    evaluate(model, batches, ("gradcam", "eigencam"), ("insertion", "coherency"))
    assert [module.training for module in model.modules()] == flags
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"explainers": ("gradcan",)}, "did you mean 'gradcam'"),
        ({"metrics": ("mIOU",)}, "unknown metric 'mIOU'"),
        ({"metrics": {"insertion": {"step": 3}}}, "did you mean 'steps'"),
        ({"target": "both"}, "'predicted' or 'label'"),
        ({"max_images_slow": -1}, "expected 0 or more"),
    ],
)
def test_evaluate_model_invalid_arguments_raise(
    model: Net, batches: list[sl.Batch], options: dict, message: str
) -> None:
    with pytest.raises(sl.SightlineError, match=message):
        evaluate(model, batches, **options)


def test_loaders_without_a_length_and_without_images_are_rejected(model: Net, batches: list[sl.Batch]) -> None:
    with pytest.raises(sl.SightlineError, match="DataLoader or a list"):
        evaluate(model, iter(batches))
    with pytest.raises(sl.SightlineError, match="no images"):
        evaluate(model, [])


def test_nan_is_rejected_not_averaged(model: Net, batches: list[sl.Batch]) -> None:
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    with pytest.raises(sl.SightlineError, match="NaN"):
        evaluate(model, batches, ("gaussian",), ("accuracy",))
