"""The layers of a model in order of depth, as a learning rate that decays by layer counts them."""

from collections import defaultdict

from torch import Tensor, nn

from sightline.network.branch import Branch
from sightline.network.execution import record, record_blank
from sightline.network.head import head_parameters
from sightline.network.structure import NORMS

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def parameters_by_depth(model: nn.Module, inputs: Tensor | None = None) -> list[list[nn.Parameter]]:
    """Return the parameters of a model in groups, from the layer that runs first to the classifier.

    A group is a block, such as a residual block or a block of a transformer, or a layer outside of blocks. A norm outside of
    blocks belongs to the layer before it. Parameters that no layer holds, such as a class token and positions, belong to the
    first group, as in BEiT and MAE. What a guide adds belongs to the last group, that of the classifier.

    Args:
        model: an unwrapped model.
        inputs: images that it takes; None = a black image of a usual size.

    Raises:
        SightlineError: the model takes no blank image, or has no classifier.
    """
    first_call: dict[nn.Module, int] = {}
    recorded = record_blank(model) if inputs is None else record(model, inputs)
    for place, call in enumerate(recorded.calls):
        first_call.setdefault(call.module, place)
    head = set(head_parameters(model)) | {p for m in model.modules() if isinstance(m, Branch) for p in m.parameters()}
    starts: dict[int, nn.Module] = {}
    for block in _blocks(model, _layers(model) / 2):
        if places := [first_call[module] for module in block.modules() if module in first_call]:
            starts[min(places)] = block
    norms = {p for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    groups: list[list[nn.Parameter]] = [[]]
    taken = set(head)
    for _, block in sorted(starts.items()):
        own = [parameter for parameter in block.parameters() if parameter not in taken]
        if groups[-1] and not norms.issuperset(own):
            groups.append([])
        groups[-1] += own
        taken.update(own)
    unowned = [parameter for parameter in model.parameters() if parameter not in taken]
    return [unowned + groups[0], *groups[1:], [parameter for parameter in model.parameters() if parameter in head]]


def _blocks(module: nn.Module, most: float) -> list[nn.Module]:
    """Return the blocks and single layers in a module that is none of these itself; a block has at most so many layers."""
    found = []
    for child in module.children():
        divided = _holds_blocks(child) or (_layers(child) > most and next(child.children(), None) is not None)
        found += _blocks(child, most) if divided else [child]
    return found


def _holds_blocks(module: nn.Module) -> bool:
    """Return whether a module is a container, or holds a container with several blocks of one kind."""
    return type(module) in CONTAINERS or any(
        _lists_blocks(part) for part in module.modules() if isinstance(part, CONTAINERS)
    )


def _lists_blocks(container: nn.Module) -> bool:
    """Return whether two parts of a container are of one class that holds two or more layers with weights."""
    kinds: defaultdict[type, int] = defaultdict(int)
    for part in container.children():
        if not type(part).__module__.startswith("torch.nn.") and _layers(part) > 1:
            kinds[type(part)] += 1
    return any(count > 1 for count in kinds.values())


def _layers(module: nn.Module) -> int:
    """Return how many layers with weights a module holds, without norms."""
    return sum(
        next(part.parameters(recurse=False), None) is not None and not isinstance(part, NORMS)
        for part in module.modules()
        if next(part.children(), None) is None
    )
