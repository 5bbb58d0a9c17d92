"""Target layers with too few places to show where a score comes from."""

import warnings
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.network.branch import own_modules
from sightline.network.layers import LayerSelection, resolve_layers
from sightline.network.layout import Layer, to_spatial
from sightline.network.modes import evaluating, in_this_thread
from sightline.network.tap import Tap, Tapped, first_of

FEWEST = 2  # places in each direction: a map of one place is constant
Grid = tuple[int, int]
_problems: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], list[str]]] = WeakKeyDictionary()


def tap_layers(model: nn.Module, layer: LayerSelection, inputs: Tensor) -> Tapped:
    """Return one forward pass through a model opened at its target layers; warn of a layer with too few places."""
    tapped = Tap(model, layer)(inputs)
    warn_of_few_places(model, inputs, tapped.layers, tapped.activations)
    return tapped


def warn_of_few_places(model: nn.Module, inputs: Tensor, layers: list[Layer], activations: list[Tensor]) -> None:
    """Warn of each layer whose activations (B, C, h, w) have fewer than 2 x 2 places, and name an earlier one with more.

    The earlier layer is looked for once for a model and a size: it takes a pass through the model, and longer than small maps.
    """
    sizes = [tuple(spatial.shape[-2:]) for spatial in activations]
    if all(min(size) >= FEWEST for size in sizes):
        return
    key = (tuple(inputs.shape[-2:]), *((layer.name, size) for layer, size in zip(layers, sizes)))
    known = _problems.setdefault(model, {})
    if key not in known:
        known[key] = _few_places(model, inputs, layers, activations)
    for problem in known[key]:
        warnings.warn(problem, stacklevel=2)


def refuse_few_places(tap: Tap, inputs: Tensor, tapped: Tapped | None = None) -> None:
    """Raise if a layer has fewer than 2 x 2 places: a loss on its maps says nothing about places.

    Args:
        tap: the model opened at the layer.
        inputs: (B, C, H, W), as the model takes them.
        tapped: a pass of such inputs through the tap; None = run one.

    Raises:
        SightlineError: the message names an earlier layer that has more.
    """
    if tapped is None:
        with evaluating(tap.model), torch.no_grad():
            tapped = tap(inputs[:1])
    for problem in _few_places(tap.model, inputs, tapped.layers, tapped.activations):
        raise SightlineError(problem)


def _few_places(model: nn.Module, inputs: Tensor, layers: list[Layer], activations: list[Tensor]) -> list[str]:
    """Return a warning for each layer with too few places."""
    problems = []
    for layer, spatial in zip(layers, activations):
        height, width = spatial.shape[-2:]
        if min(height, width) < FEWEST:
            earlier = _earlier_layer(model, layer, inputs[:1])
            advice = f"choose an earlier layer, such as {earlier}, or" if earlier else "use"
            problems.append(
                f"layer {layer.name!r} has {height} x {width} places for images of {inputs.shape[-2]} x {inputs.shape[-1]} "
                f"pixels, too few to show where a score comes from; {advice} larger images"
            )
    return problems


def _earlier_layer(model: nn.Module, layer: Layer, inputs: Tensor) -> str | None:
    """Return the last stage or block that ends before a layer does and has enough places, with these; None without one."""
    usable = [(name, grid) for name, grid in _stages_before(model, layer, inputs).items() if min(grid) >= FEWEST]
    return "{0!r} ({1[0]} x {1[1]})".format(*usable[-1]) if usable else None


def finer_stages(model: nn.Module, layer: Layer, inputs: Tensor, count: int) -> list[str]:
    """Return the last stage of each of the `count` next finer grids before a layer, in the order in which they run.

    Args:
        model: holds the layer.
        layer: the target layer.
        inputs: (B, C, H, W), as the model takes them.
        count: how many grids at most.
    """
    found: list[str] = []
    grid = Tap(model, layer)(inputs[:1]).activations[0].shape[-2:]
    for name, (height, width) in reversed(_stages_before(model, layer, inputs[:1]).items()):
        if len(found) < count and height > grid[0] and width > grid[1]:
            found, grid = [name, *found], torch.Size((height, width))
    return found


def _stages_before(model: nn.Module, layer: Layer, inputs: Tensor) -> dict[str, Grid]:
    """Return the stages that end before a layer does, or blocks where there are no stages, with their places, in order."""
    grids: dict[str, Grid | None] = {}  # in the order in which the modules end; None = not usable
    reached = False

    def note(name: str, output: Any) -> None:
        nonlocal reached
        reached = reached or name == layer.name
        if reached and name in grids:
            grids[name] = None  # it runs again after the layer
        elif not reached:
            grid = None if name in grids else _grid(model, name, output, (inputs.shape[-2], inputs.shape[-1]))
            grids.pop(name, None)
            grids[name] = grid

    with ExitStack() as hooks, evaluating(model), torch.inference_mode(False), torch.no_grad():
        for name, module in own_modules(model).items():
            if name and not isinstance(module, torch.jit.ScriptModule):  # hooks do not act there
                hook = in_this_thread(lambda module, args, output, name=name: note(name, output))
                hooks.enter_context(module.register_forward_hook(hook))
        model(inputs)
    usable = {name: grid for name, grid in grids.items() if grid is not None}
    stages = {
        n: g for n, g in usable.items() if all(type(m) in (nn.Sequential, nn.ModuleList) for m in _around(model, n))
    }
    return stages or usable


def _around(model: nn.Module, name: str) -> list[nn.Module]:
    """Return the modules that a module is part of, without the model itself: a block among them means it is an inner part."""
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:depth])) for depth in range(1, len(parts))]


def _grid(model: nn.Module, name: str, output: Any, image_size: Grid) -> Grid | None:
    """Return the places (h, w) of a layer's output; None where it is not a grid of places."""
    tensor = first_of(output)
    if not isinstance(tensor, Tensor):
        return None
    try:
        (layer,) = resolve_layers(model, name)
        spatial = to_spatial(layer, tensor, image_size)
    except SightlineError:
        return None
    return spatial.shape[-2], spatial.shape[-1]
