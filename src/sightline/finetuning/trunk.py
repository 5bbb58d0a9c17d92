"""The frozen part of a model cut off by torch.fx, so what it computes can be kept and the rest trained from it.

A model is cut where frozen values flow into what is trained or tapped. Several values may cross, such as a residual.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from sightline._core.fingerprint import fingerprint
from sightline.errors import SightlineError
from sightline.finetuning.trunk_tracing import Whole, WholeTracer, inner_modules
from sightline.network.cutting import descendants, halves
from sightline.network.logits import returned_logits
from sightline.network.modes import evaluating

TOLERANCE = 1e-4  # of logits, between the model and its two parts


class Trunk:
    """What comes before anything that is trained or tapped.

    A parameter is trained if it requires a gradient, and so is a module in training mode. The model must be in the mode of the
    stage that it is cut for, and on the device: `sightline.training.portion.Portion` sees to it.

    ```python
    trunk = Trunk(objective.unwrap_model(), objective.layer, inputs)
    values = trunk(inputs)              # what crosses the cut, one row per image
    with trunk.replaying(values):
        objective(batch)                # the model runs from the values; it does not look at the pixels
    ```

    Args:
        model: an unwrapped model, which does not change. The trunk refers to its modules.
        tapped: the name of a layer whose output is read, so the cut comes before hooks on it; None = none.
        inputs: (B, C, H, W) as the model takes them, 3 images at least, to try the cut on.

    Attributes:
        names: of the layers that give what crosses the cut; a value that no layer gives has the name of torch.fx.

    Raises:
        SightlineError: the model cannot be cut, or nothing is frozen before the first trained layer.
    """

    def __init__(self, model: nn.Module, tapped: str | None, inputs: Tensor) -> None:
        self._model, whole = model, Whole(model, tapped)
        tapped = None if tapped is None else f"model.{tapped}"
        tracer = WholeTracer(inner_modules(whole, tapped), inputs)
        try:
            with evaluating(model):
                graph = tracer.trace(whole)
                taps = [node for node in graph.nodes if node.op == "call_module" and node.target == tapped]
                # What is no tensor cannot be kept: then the layer runs in every step.
                taps += [
                    body
                    for (body,) in [tap.args for tap in taps]
                    if isinstance(body, fx.Node) and not isinstance(tracer.value_of(body), Tensor)
                ]
        except Exception as error:  # tracing runs the user's code, which may fail in any way
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise SightlineError(
                f"{type(model).__name__} cannot be cut before what is trained ({reason}); train without cache_features"
            ) from error
        (image,) = (node for node in graph.nodes if node.op == "placeholder")
        live = descendants(graph, {*taps, *(node for node in graph.nodes if _is_trained(whole, node))})
        crossing = [n for n in graph.nodes if n not in live and n.op != "get_attr" and not live.isdisjoint(n.users)]
        self._tapped = model.get_submodule(cast(str, tapped).removeprefix("model.")) if taps else None
        if image in crossing or not crossing:
            raise SightlineError(
                f"no layer of {type(model).__name__} is frozen before what is trained or tapped, so there is nothing to "
                "keep; train without cache_features, or from a later layer"
            )
        self.names = [_name(node, tapped) for node in crossing]
        self._before, self._after = (_module(whole, part) for part in halves(graph, live, crossing, crossing))
        self._constants: dict[int, Any] = {}
        self._try(inputs)

    @property
    def identity(self) -> str:
        """What tells the trunk from others: its weights, its modules and the code between them."""
        return f"{fingerprint(self._before)} {self._before} {self._before.code}"

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> list[Tensor]:
        """Return the tensors that cross the cut for inputs (B, C, H, W), with one row for each image."""
        values = self._before(inputs)
        return [value for number, value in enumerate(values) if number not in self._constants]

    @contextmanager
    def replaying(self, values: Sequence[Tensor]) -> Iterator[None]:
        """While entered, the model runs once from the values (B, ...), for any images (B, C, H, W)."""
        pending = [list(values)]

        def forward(images: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not pending or len(images) != len(values[0]):
                raise SightlineError(
                    "something runs the model on images other than those of the batch, and cache_features keeps no pixels; "
                    "train without cache_features"
                )
            rows = iter(pending.pop())
            return self._after(
                *[self._constants[n] if n in self._constants else next(rows) for n in range(len(self.names))]
            )

        with _forward_of(self._model, forward):
            if self._tapped is None:
                yield
                return
            with _forward_of(self._tapped, lambda output: output):
                yield

    def _try(self, inputs: Tensor) -> None:
        """Tell rows from constants by batches of 2 and of 1, and compare what the parts give with what the model gives."""
        with evaluating(self._model), torch.no_grad():
            try:
                expected = returned_logits(self._model(inputs[:3]))
                pair, single = self._before(inputs[:2]), self._before(inputs[2:3])
                for number, (two, one) in enumerate(zip(pair, single)):
                    if not (isinstance(two, Tensor) and two.ndim and len(two) == 2 and len(one) == 1):
                        if not _equal(two, one):
                            raise RuntimeError(f"{self.names[number]} has no row for each image")
                        self._constants[number] = two
                rows = [torch.cat(both)[[2, 0, 1]] for both in zip(self(inputs[:2]), self(inputs[2:3]))]
                with self.replaying(rows):
                    found = returned_logits(self._model(inputs[:3]))
                if not torch.allclose(found, expected[[2, 0, 1]], rtol=TOLERANCE, atol=TOLERANCE):
                    raise RuntimeError("the two parts give other logits than the model")
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                raise SightlineError(
                    f"{type(self._model).__name__} cannot be cut at {', '.join(self.names)} ({reason}); train without "
                    "cache_features, or from another layer"
                ) from error


def _is_trained(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "get_attr":
        owner, _, name = cast(str, node.target).rpartition(".")
        return bool(getattr(getattr(model.get_submodule(owner), name), "requires_grad", False))
    if node.op != "call_module":
        return False
    module = model.get_submodule(cast(str, node.target))
    return any(p.requires_grad for p in module.parameters()) or any(m.training for m in module.modules())


def _module(model: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Return a graph as a module that holds what it calls."""
    module = fx.GraphModule(model, graph)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else; its hooks act as before."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _name(node: fx.Node, tapped: str | None) -> str:
    target = tapped if node.target == "tapped" else node.target
    return str(target).removeprefix("model.") if node.op == "call_module" else node.name


def _equal(one: Any, other: Any) -> bool:
    """Whether two values that are no rows are one constant."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return not isinstance(one, Tensor | tuple | list | dict) and bool(one == other)
