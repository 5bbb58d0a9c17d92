"""Explainers of compiled, scripted, traced and exported models: the maps of the plain model, or what to give instead."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_precision import FEW, LAYER, NAMES, images, network
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, Wrapper
from sightline.explainers import list_explainers, needs_layer
from sightline.metrics import Insertion
from sightline.network.features import DeepFeatures
from sightline.network.modes import evaluating
from sightline.network.tap import Tap

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore::DeprecationWarning")
# Look inside, though they have no layer.
INSIDE = {"attnlrp", "fullgrad", "deeplift", "guided_backprop", "lrp", "lots"}
COPIES = {"integrated_gradients", "kernel_shap", "lime", "occlusion", "partition_shap", "rise", "smoothgrad",
          "weighted_shap"}  # fmt: skip
OPEN = "hooks do not act there; give the module"


class Parts(nn.Module):
    """The network with a trunk, which a test may compile or script."""

    def __init__(self, change: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        net = network()
        self.trunk, self.tail = change(net[:7]), net[7:]  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.trunk(x))


class CompiledForward(Parts):
    forward = torch.compile(Parts.forward, backend="eager")  # type: ignore[assignment]


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")  # type: ignore[return-value]


def in_place() -> nn.Module:
    model = network()
    model.compile(backend="eager")
    return model


def own_forward() -> nn.Module:
    model = network()
    model.forward = torch.compile(model.forward, backend="eager")  # type: ignore[method-assign]
    return model


def exported(open_batch: bool = True) -> nn.Module:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if open_batch else None
    return torch.export.export(network(), (images(),), dynamic_shapes=shapes).module()


HOOKED: dict[str, tuple[Callable[[], nn.Module], str]] = {  # with the name of the layer
    "compiled": (lambda: compiled(network()), LAYER),
    "compiled in a wrapper": (lambda: Wrapper(compiled(network())), f"net.{LAYER}"),
    "compiled in place": (in_place, LAYER),
    "forward compiled": (own_forward, LAYER),
    "forward compiled in its class": (lambda: CompiledForward(lambda trunk: trunk).eval(), f"trunk.{LAYER}"),
    "trunk compiled": (lambda: Parts(compiled).eval(), f"trunk.{LAYER}"),
    "trunk compiled, the wrapper's name": (lambda: Parts(compiled).eval(), f"trunk._orig_mod.{LAYER}"),
    "traced by torch.fx": (lambda: torch.fx.symbolic_trace(network()), LAYER),
}
CLOSED: dict[str, Callable[[], nn.Module]] = {
    "scripted": lambda: torch.jit.script(network()),
    "traced": lambda: torch.jit.trace(network(), images()),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(network())),
    "exported": exported,
    "trunk scripted": lambda: Parts(torch.jit.script).eval(),
    "trunk traced": lambda: Parts(lambda trunk: torch.jit.trace(trunk, images())).eval(),
}


def maps_of(name: str, model: nn.Module, layer: str | None) -> Tensor:
    explainer = sl.create_explainer(name, **FEW.get(name, {}))
    return explainer(model, images(), 2, layer if needs_layer(name) else None)


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return {name: maps_of(name, network(), LAYER) for name in NAMES}


@pytest.mark.parametrize("form", HOOKED)
def test_forms_whose_modules_run_in_python_give_the_maps_of_the_plain_model(
    form: str, plain: dict[str, Tensor]
) -> None:
    make, layer = HOOKED[form]
    model = make()
    model(images())  # compiles it
    names = [name for name, _ in model.named_modules()]
    for name in NAMES:
        for given in (layer, None):
            assert torch.equal(maps_of(name, model, given), plain[name]), (name, given)
    assert [name for name, _ in model.named_modules()] == names


@pytest.mark.parametrize("form", CLOSED)
def test_forms_that_no_hook_enters_work_for_pixels_and_are_named_for_layers(
    form: str, plain: dict[str, Tensor]
) -> None:
    model = CLOSED[form]()
    for name in NAMES:
        if list_explainers()[name]["needs_layer"] or (
            name in INSIDE and not (form.startswith("trunk") and name == "lots")
        ):
            for layer in (f"trunk.{LAYER}" if form.startswith("trunk") else LAYER, None):
                with pytest.raises(sl.SightlineError, match=OPEN):
                    maps_of(name, model, layer)
        else:
            torch.testing.assert_close(maps_of(name, model, None), plain[name], rtol=1e-3, atol=1e-4)


def test_a_layer_after_a_closed_part_can_be_explained() -> None:
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Identity())), network()).eval()
    expected = sl.explain(network(), images(), targets=2, layer=LAYER)
    for layer in (f"1.{LAYER}", None):
        assert torch.equal(sl.explain(model, images(), targets=2, layer=layer), expected)


def test_an_exported_model_for_one_batch_size_is_named(plain: dict[str, Tensor]) -> None:
    model = exported(open_batch=False)
    torch.testing.assert_close(maps_of("saliency", model, None), plain["saliency"])
    for name in sorted(COPIES):
        with pytest.raises(sl.SightlineError, match="dynamic_shapes"):
            maps_of(name, model, None)


def test_threads_may_explain_one_compiled_model() -> None:
    for model, layer in ((in_place(), LAYER), (Parts(compiled).eval(), f"trunk.{LAYER}")):
        expected = {name: maps_of(name, model, layer) for name in ("gradcam", "lrp", "scorecam", "lots")}
        with ThreadPoolExecutor(4) as pool:
            found = [(n, pool.submit(maps_of, n, model, layer)) for _ in range(4) for n in expected]
            assert all(torch.equal(each.result(), expected[name]) for name, each in found)


def test_a_compiled_model_is_as_before_afterwards() -> None:
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        calls.append(1)
        return graph.forward

    model = Parts(lambda trunk: torch.compile(trunk, backend=backend)).eval()
    model.tail.compile(backend=backend)
    with evaluating(model):
        model(images())
        copied = copy.deepcopy(model)  # as explainers do that change modules
    copied(images())
    assert not calls
    model(images())
    assert len(calls) == 2


def test_guides_tap_a_model_that_holds_compiled_parts() -> None:
    def step(change: Callable[[TinyCNN], object]) -> list[Tensor | None]:
        torch.manual_seed(0)
        model = TinyCNN()
        change(model)
        masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
        masks[:, 4:12, 4:12] = 1
        batch = sl.Batch(images(), torch.tensor([0, 1]), masks=masks, indices=torch.arange(2))
        objective = sl.Objective(model, sl.SegmentOverlap(), layer="features.2")
        objective(batch)["loss"].backward()
        return [parameter.grad for parameter in model.parameters()]

    def trunk(model: TinyCNN) -> None:
        model.features = compiled(model.features)  # type: ignore[assignment]

    expected = step(lambda model: None)
    for change in (
        lambda model: model.compile(backend="eager"),
        trunk,
        lambda m: m.features[0].compile(backend="eager"),
    ):
        torch.testing.assert_close(step(change), expected)


def test_a_compiled_model_gives_equal_metrics_and_features() -> None:
    maps = torch.rand(2, 16, 16)
    for model in (network(), compiled(network()), in_place()):
        metric = Insertion(model, steps=4)
        metric.update(images(), maps, torch.tensor([2, 2]))
        values = metric.compute(), DeepFeatures(model)(images()), Tap(model, LAYER)(images()).activations[0]
        if "first" not in locals():
            first = values
        torch.testing.assert_close(values, first)
