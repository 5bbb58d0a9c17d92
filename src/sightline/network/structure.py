"""Where the features of a model end, told by what it runs."""

import re

import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.network.branch import is_within, own_modules
from sightline.network.execution import Call, Record, Shape, reached

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus)
POOLINGS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten)
PREFIX = 8  # tokens that stand for no place: a class token and a few registers


def last_stage(model: nn.Module, record: Record, within: str = "") -> str:
    """Return the name of a model's last convolutional stage, in the order in which it runs.

    The stage is the widest module that ends in the last convolution and still returns a feature map, with the norm and
    the activation that follow, but without a pooling behind it. It is not the layer that makes the output, unless a classifier
    only averages it and has no other convolution; nor one behind global pooling, nor one that the output does not depend on,
    such as an auxiliary head. In a dense model, such as one for segmentation, it is the last stage with the coarsest grid; a
    pyramid of poolings is no stage.

    Args:
        model: an unwrapped model.
        record: of a forward pass.
        within: name of the module to look in; "" = the whole model.

    Raises:
        SightlineError: there is none, or the convolutions only make the tokens of what follows or stand between tokens; the
            message lists layers to choose from.
    """
    steps = _Steps(model, record)
    places = [i for i in steps.convolutions() if is_within(steps.calls[i].name, within)]
    if not places and record.output is not None and record.output.ndim == 2:
        places = [i for i in steps.convolutions(of_output=True) if is_within(steps.calls[i].name, within)]
    if record.output is not None and record.output.ndim == 4 and places:
        places = [i for i in places if not steps.is_behind_pooling(i)] or places
        coarsest = min(_area(steps.calls[i]) for i in places)
        places = [i for i in places if _area(steps.calls[i]) == coarsest]
    if not places:
        raise _cannot_tell(model, steps)
    stage = steps.followed(steps.widened(places[-1]))
    if steps.weight_on_tokens(stage) > steps.weight_until(stage) or steps.is_inside_tokens(stage):
        raise _cannot_tell(model, steps)
    return steps.calls[stage].name


def last_used(model: nn.Module, record: Record, name: str) -> str | None:
    """Return the name of a layer if the output depends on it, else of the last layer of the same place in an earlier block.

    Args:
        model: an unwrapped model.
        record: of a forward pass.
        name: of the layer, such as "encoder.layer.11.norm1".

    Returns:
        A name, such as "encoder.layer.9.norm1"; None where the output depends on none of them.
    """
    runs = _Steps(model, record).runs
    like = re.compile(r"\d+".join(map(re.escape, re.split(r"\d+", name))))
    return name if name in runs else next((run for run in reversed(runs) if like.fullmatch(run)), None)


def output_layers(model: nn.Module, record: Record) -> tuple[str, ...]:
    """Return the names of the layers that make a model's output: the last with weights that runs, and those parallel to it.

    A distilled transformer has two, whose logits it averages.
    """
    steps = _Steps(model, record)
    weighted = [call for call in steps.calls if _weight(call.module) and not isinstance(call.module, NORMS)]
    found: list[Call] = []
    for call in reversed(weighted):
        if found and (call.returned != found[0].returned or any(call.node in reached(other.node) for other in found)):
            break
        found.append(call)
    return tuple(dict.fromkeys(call.name for call in reversed(found)))


class _Steps:
    """The calls of a forward pass that have a part in the output, without the model itself and branches of guides."""

    def __init__(self, model: nn.Module, record: Record) -> None:
        own = own_modules(model)
        part = reached(None if record.output is None else record.output.grad_fn)
        calls = [call for call in record.calls if call.name and call.name in own]
        parts = [call for call in calls if call.node in part]
        self.calls = parts or calls  # without a graph, as in a quantized model, every call counts
        self.output = record.output
        self.batch = record.image[0]
        self.runs = [call.name for call in self.calls]
        self.at = {name: i for i, name in enumerate(self.runs)}

    def convolutions(self, of_output: bool = False) -> list[int]:
        """Return which calls are convolutions of a feature map, without the one that makes the output unless asked for."""
        found: list[int] = []
        grid: Shape = ()
        for i, call in enumerate(self.calls):
            if not isinstance(call.module, CONVOLUTIONS) or len(call.taken) != 4:
                continue
            pooled = _one_place(call.taken[2:]) and not _one_place(grid)
            whole = call.taken[0] == self.batch  # an attention may convolve each head apart
            if whole and not pooled:
                grid = call.returned[0][2:]
                if self._once(call) and (of_output or not self._makes_output(i)):
                    found.append(i)
        return found

    def widened(self, place: int) -> int:
        """Return the widest module around a convolution that returns one feature map with the convolution's places."""
        stage, inner = place, self.calls[place]
        parts = inner.name.split(".")
        for depth in range(len(parts) - 1, 0, -1):
            i = self.at.get(".".join(parts[:depth]))
            if i is None:  # a list of modules does not run
                continue
            outer = self.calls[i]
            pools = any(isinstance(c.module, POOLINGS) and is_within(c.name, outer.name) for c in self.calls[place:i])
            if (
                not self._once(outer)
                or [len(shape) for shape in outer.returned] != [4]
                or _area(outer) != _area(inner)
                or (_area(outer) == 1 and pools)
                or any(is_within(self.calls[j].name, outer.name) for j in range(place, i) if self._makes_output(j))
            ):
                break
            stage = i
        return stage

    def is_behind_pooling(self, place: int) -> bool:
        """Return whether a convolution takes what was pooled to a fixed grid, as in a pyramid of poolings."""
        pending = [following for following, _ in self.calls[place].node.next_functions]
        while pending:
            node = pending.pop()
            name = "" if node is None else type(node).__name__
            if name.startswith("Adaptive"):
                return True
            if node is not None and not name.startswith(("Convolution", "Addmm")):
                pending.extend(following for following, _ in node.next_functions)
        return False

    def followed(self, stage: int) -> int:
        """Return the last of the norms and activations that come right after a stage."""
        for i in range(stage + 1, len(self.calls)):
            call = self.calls[i]
            if isinstance(call.module, nn.Identity | nn.Dropout):
                continue
            kind = isinstance(call.module, NORMS + ACTIVATIONS)
            if not kind or not self._once(call) or call.returned != self.calls[stage].returned:
                break
            stage = i
        return stage

    def weight_until(self, stage: int) -> int:
        """Return how many parameters act until a stage ends."""
        return sum(_weight(call.module) for call in self.calls[: stage + 1])

    def weight_on_tokens(self, stage: int) -> int:
        """Return how many parameters act on places one by one after a stage, as those of a transformer do."""
        return sum(
            _weight(call.module)
            for call in self.calls[stage + 1 :]
            if not isinstance(call.module, CONVOLUTIONS) and len(call.taken) > 2 and max(call.taken[1:-1]) > 1
        )

    def is_inside_tokens(self, stage: int) -> bool:
        """Return whether a stage is a detail of a module that takes and returns tokens, or channels-last features."""
        shape = self.calls[stage].returned[0]
        parts = self.calls[stage].name.split(".")
        around = (self.at.get(".".join(parts[:depth])) for depth in range(len(parts) - 1, 0, -1))
        outer = next((self.calls[i] for i in around if i is not None), None)
        return outer is not None and all(_lists_places(each, shape) for each in (outer.taken, *outer.returned[:1]))

    def token_layers(self) -> list[str]:
        """Return layers to choose from, as a user writes them: norms of tokens that the output depends on at most places.

        A model with a class token reads the other tokens in its last attention for the last time.
        """
        norms = [
            (i, call)
            for i, call in enumerate(self.calls)
            if isinstance(call.module, nn.LayerNorm) and self._once(call) and len(call.taken) > 2
        ]
        if not norms or self.output is None:
            return []
        tensors = [call.tensor for _, call in norms if call.tensor is not None]
        with torch.inference_mode(False), torch.enable_grad():
            slopes = torch.autograd.grad(self.output.sum(), tensors, allow_unused=True)
        shares = [0.0 if slope is None else (slope != 0).any(-1).float().mean().item() for slope in slopes]
        least = min(0.5, max(shares))  # the head may be all zeros, as torchvision initializes it
        grids = [shape[2] * shape[3] for call in self.calls for shape in call.returned if len(shape) == 4]
        found = []
        for (i, call), share in zip(norms, shares):
            shape = call.returned[0]
            if share < least or not self.weight_on_tokens(i):
                continue
            if len(shape) == 4:
                found.append(f"sightline.Layer({call.name!r}, 'channels_last')")
            else:
                prefix = min((shape[1] - n for n in grids if 0 <= shape[1] - n <= PREFIX), default=0)
                found.append(f"sightline.Layer({call.name!r}, 'tokens', prefix={prefix})")
        return found

    def feature_maps(self) -> list[str]:
        """Return layers with more than one place to choose from, as a user writes them, in the order of execution."""
        found = []
        for call in self.calls:
            if self._once(call) and call.returned and len(call.returned[0]) == 4:
                last = isinstance(call.module, nn.Linear | nn.LayerNorm)
                if not _one_place(call.returned[0][1:3] if last else call.returned[0][2:]):
                    found.append(f"sightline.Layer({call.name!r}, 'channels_last')" if last else repr(call.name))
        return found

    def _once(self, call: Call) -> bool:
        return self.runs.count(call.name) == 1

    def _makes_output(self, i: int) -> bool:
        """Return whether a convolution gives one channel for each of the output's, and only norms have weights after it."""
        call = self.calls[i]
        return (
            isinstance(call.module, CONVOLUTIONS)
            and self.output is not None
            and call.returned[0][1:2] == self.output.shape[1:2]
            and not any(_weight(c.module) and not isinstance(c.module, NORMS) for c in self.calls[i + 1 :])
        )


def _one_place(grid: tuple[int, ...]) -> bool:
    return tuple(grid) == (1, 1)


def _area(call: Call) -> int:
    """Return how many places a feature map (B, C, h, w) has."""
    return call.returned[0][2] * call.returned[0][3]


def _lists_places(shape: Shape, feature_map: Shape) -> bool:
    """Return whether a shape is that of tokens or of channels-last features with the places of a feature map (B, C, h, w)."""
    places = feature_map[2] * feature_map[3]
    return (len(shape) == 3 and 0 <= shape[1] - places <= PREFIX) or (len(shape) == 4 and shape[1:3] == feature_map[2:])


def _weight(module: nn.Module) -> int:
    """Return how many parameters a module without parts has; those of an attention's parts count, which do not run."""
    if isinstance(module, nn.MultiheadAttention) or next(module.children(), None) is None:
        return sum(parameter.numel() for parameter in module.parameters())
    return 0


def _cannot_tell(model: nn.Module, steps: _Steps) -> SightlineError:
    """Return the error for a model whose target layer is unknown, with layers to choose from."""
    candidates = steps.token_layers()[-3:] or steps.feature_maps()[-6:]
    if not candidates:
        return SightlineError(
            f"no layer of {type(model).__name__} returns feature maps (B, C, h, w) or tokens with more than one place; use an "
            "explainer of pixels, such as 'saliency', 'occlusion' or 'rise'"
        )
    return SightlineError(
        f"cannot tell the target layer of {type(model).__name__}; give layer=, such as {' or '.join(candidates)} "
        "(for tokens or channels-last outputs: sightline.Layer(name, layout=..., prefix=...))"
    )
