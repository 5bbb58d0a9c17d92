"""What only a GPU can show: the same results as on the CPU, half precision, compilation, several devices."""

import pytest
import torch

import sightline as sl
from explainer_names import ELSEWHERE
from sightline.evaluation.measuring import evaluate_model
from sightline.guides import GUIDES
from sightline.inference.fastest import Form, measure
from test_stand_in_device import FEW, METRICS, SPEC, WITH_OPTIONS, Classifier, batch, network

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _exact() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("name", sorted(set(sl.explainers.list_explainers()) - ELSEWHERE))
def test_an_explainer_gives_the_maps_of_the_cpu(name: str) -> None:
    model, images = network(), torch.rand(2, 3, 16, 16)
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    layer = "4" if sl.explainers.list_explainers()[name]["needs_layer"] else None
    expected = explainer(model, images, layer=layer, input_spec=SPEC)
    maps = explainer(model.cuda(), images.cuda(), layer=layer, input_spec=SPEC)
    torch.testing.assert_close(maps.cpu(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["gradcam", "scorecam", "rise", "occlusion", "smoothgrad", "partition_shap"])
def test_an_explainer_runs_in_bfloat16(name: str) -> None:
    model, images = network().cuda(), torch.rand(2, 3, 16, 16).cuda()
    formats = set()
    model[3].register_forward_hook(lambda module, args, output: formats.add(output.dtype))
    layer = "4" if sl.explainers.list_explainers()[name]["needs_layer"] else None
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    maps = sl.explain(model, images, explainer, layer=layer, input_spec=SPEC, precision="bf16")
    assert formats == {torch.bfloat16}
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted({entry.name for entry in GUIDES} - set(WITH_OPTIONS)))
def test_a_training_step_gives_the_loss_of_the_cpu(name: str, precision: torch.dtype) -> None:
    layer = None if name in ("attention_branch", "attention_gate", "attention_pooling") else "body.4"
    objective = sl.Objective(Classifier(), GUIDES.create(name), input_spec=SPEC, layer=layer)
    given = batch()
    expected = objective(given)["loss"]
    objective.cuda()
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        loss = objective(given.pin_memory().to("cuda", non_blocking=True))["loss"]
    loss.backward()
    tolerance = 1e-3 if precision == torch.float32 else 0.1
    torch.testing.assert_close(loss.cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_evaluation_gives_the_values_of_the_cpu(compiled: bool) -> None:
    model, given = Classifier().eval(), batch()
    options = {name: {"steps": 4} if name in ("insertion", "deletion", "morf") else {} for name in METRICS}

    def evaluate() -> dict[str, float]:
        found = evaluate_model(model, [given], ["gradcam"], options, input_spec=SPEC, layer="body.4", compiled=compiled)
        return {result.column: result.value for result in found.results}

    expected = evaluate()
    model.cuda()
    assert evaluate() == pytest.approx(expected, abs=2e-3)


def test_a_form_is_measured() -> None:
    assert isinstance(measure(Classifier().eval().cuda(), torch.rand(4, 3, 128, 128, device="cuda")), Form)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_maps_of_a_model_on_the_second_device_equal_those_of_the_cpu() -> None:
    model, images = network(), torch.rand(2, 3, 16, 16)
    expected = sl.explain(model, images, layer="4")
    torch.testing.assert_close(
        sl.explain(model.to("cuda:1"), images.to("cuda:1"), layer="4").cpu(), expected, rtol=0, atol=1e-3
    )
