"""One pass through the model gives what a pass for the answer and one for each explainer give."""

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from sightline._core import internal_batches
from sightline.evaluation import evaluate_model
from sightline.evaluation.map_sources import make_sources
from sightline.evaluation.one_pass import OnePass
from sightline.explainers import create_explainer
from sightline.explainers.cam import CAM, gradcam
from sightline.metrics import Scorer

SPEC = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (16, 16))
CAMS = ("gradcam", "eigencam", "layercam", "finercam", "randomcam")


class Net(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, classes)
        self.images_seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images_seen += len(images)
        return self.head(self.last(self.first(images)).mean((2, 3)))


class Inverted(CAM):
    """An explainer that makes its maps in its own way."""

    def explain(self, model: nn.Module, inputs: Tensor, targets: object, layer: object) -> Tensor:
        return 1 - super().explain(model, inputs, targets, layer)


def predicted(probabilities: Tensor, rows: slice) -> Tensor:
    return probabilities.argmax(1)


@pytest.mark.parametrize("layer", ["last", ["first", "last"]])
@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("images_a_call", [3, 100])
def test_maps_and_answers_are_those_of_separate_passes(
    layer: object, contrast: bool, images_a_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(internal_batches.PIXELS_A_CALL, "cpu", images_a_call * 16 * 16)
    model, images, indices = Net(), torch.rand(8, 3, 16, 16), torch.arange(40, 48)
    names = [name for name in CAMS if not (contrast and name == "finercam")]  # it has its own contrast
    sources = make_sources(names, model, layer, SPEC, contrast)
    scorer = Scorer(model, SPEC)

    probabilities, maps = OnePass(scorer, sources)(images, indices, predicted)
    assert model.images_seen == 8
    torch.testing.assert_close(probabilities, scorer(images), rtol=0, atol=1e-6)
    assert list(maps) == names
    for source in sources:
        alone = source.explain.for_images(images, indices)(images, probabilities.argmax(1))
        torch.testing.assert_close(maps[source.name], alone, rtol=0, atol=1e-6)


def test_a_single_logit_and_other_options_give_the_same_too() -> None:
    model, images, indices = Net(classes=1), torch.rand(6, 3, 16, 16), torch.arange(6)
    explainers = {
        "smooth": create_explainer("gradcam", smooth="eigen"),
        "plus": create_explainer("gradcam++", eps=1e-8),
    }
    sources = make_sources(explainers, model, "last", None, False)
    probabilities, maps = OnePass(Scorer(model), sources)(images, indices, predicted)
    assert probabilities.shape == (6, 2)
    for source in sources:
        alone = source.explain(images, probabilities.argmax(1))
        torch.testing.assert_close(maps[source.name], alone, rtol=0, atol=1e-6)


def test_an_evaluation_runs_the_model_once_for_its_answer_and_all_cams() -> None:
    model = Net()
    batches = [sl.Batch(torch.rand(4, 3, 16, 16), torch.arange(4)) for _ in range(3)]
    evaluate_model(model, batches, CAMS, ("accuracy", "complexity"), input_spec=SPEC, layer="last")
    assert model.images_seen == 12


def test_the_default_layer_of_an_unknown_model_is_told_once() -> None:
    model = Net()
    batches = [sl.Batch(torch.rand(4, 3, 16, 16), torch.arange(4)) for _ in range(3)]
    evaluate_model(model, batches, ("gradcam", "eigencam"), ("accuracy", "complexity"), input_spec=SPEC)
    assert model.images_seen == 12 + 1


def test_other_explainers_and_compiled_models_have_passes_of_their_own() -> None:
    model, images, indices = Net(), torch.rand(4, 3, 16, 16), torch.arange(4)
    others = make_sources(
        {"own": Inverted(gradcam), "saliency": create_explainer("saliency")}, model, "last", SPEC, False
    )
    probabilities, maps = OnePass(Scorer(model, SPEC), others)(images, indices, predicted)
    assert not maps
    assert probabilities.shape == (4, 4)

    cams = make_sources(["gradcam"], model, "last", SPEC, False)
    compiled = OnePass(Scorer(model, SPEC, compiled=True), cams)
    assert not compiled._cams


def test_bad_answers_are_named_by_their_place_in_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(internal_batches.PIXELS_A_CALL, "cpu", 2 * 16 * 16)

    class Fails(Net):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return torch.where(images.mean((1, 2, 3))[:, None] > 2, torch.nan, logits)

    images = torch.rand(6, 3, 16, 16)
    images[5] = 3
    sources = make_sources(["gradcam"], (model := Fails()), "last", None, False)
    with pytest.raises(sl.SightlineError, match=r"the model's probabilities \(images \[5\] of the batch\)"):
        OnePass(Scorer(model), sources)(images, torch.arange(6), predicted)
