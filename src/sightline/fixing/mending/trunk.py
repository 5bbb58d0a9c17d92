"""A frozen network whose head is fitted again."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.errors import SightlineError
from sightline.models.gates import PoolingGate, attention_place, insert_pooling_gate
from sightline.network.cutting import cut_after
from sightline.network.head import head_name
from sightline.network.input_spec import InputSpec
from sightline.network.logits import returned_logits
from sightline.network.modes import evaluating, in_this_thread
from sightline.network.tap import unwrap

CHUNK = 64  # images of one forward pass


@dataclass(frozen=True)
class Features:
    """What a frozen network makes of images; one row per image.

    Attributes:
        fine: (N, C, h, w) at a sixteenth of the input's side, in which objects are found; None = the network has no such layer,
            or nobody asked.
        last: (N, C, h, w) before global average pooling; None = the network does not end in it.
        inputs: (N, D) of the head.
        logits: (N, K) of the unchanged head.
    """

    fine: Tensor | None
    last: Tensor | None
    inputs: Tensor
    logits: Tensor

    def __getitem__(self, rows: Tensor) -> "Features":
        fine, last = (None if each is None else each[rows] for each in (self.fine, self.last))
        return Features(fine, last, self.inputs[rows], self.logits[rows])

    @staticmethod
    def join(parts: "Sequence[Features]") -> "Features":
        """Return the rows of several, one after the other."""

        def maps(each: Sequence[Tensor | None]) -> Tensor | None:
            known = [part for part in each if part is not None]
            return torch.cat(known) if known else None

        fine, last = maps([part.fine for part in parts]), maps([part.last for part in parts])
        return Features(fine, last, torch.cat([p.inputs for p in parts]), torch.cat([p.logits for p in parts]))


class Trunk:
    """A copy of a classifier whose trunk stays and whose head is fitted.

    Args:
        name: for the report.
        model: a classifier with a linear head; it does not change.
        input_spec: the normalization and the size of its input.

    Attributes:
        model: the copy, in eval mode.

    Raises:
        SightlineError: the model has no single linear head.
    """

    def __init__(self, name: str, model: nn.Module, input_spec: InputSpec) -> None:
        self.name, self.input_spec = name, input_spec
        self.model = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)  # a quarter less time on a CPU
        self.head_name = linear_head(self.model)
        self._fine: tuple[str, int] | None = None
        self._last: tuple[str, int] | None = None
        self._tail: nn.Module | None = None
        self._grid: tuple[int, ...] | None = None
        with suppress(SightlineError):
            place, _, dimension = attention_place(self.model)
            self._fine = place, dimension
        with suppress(SightlineError):
            place, gate = insert_pooling_gate(self.model)
            if gate.carried is None:  # an attention that reads an earlier layer is not fitted again
                self._last, self._gate = (place, gate.dimension), gate
                self._tail = cut_after(self.model, place)[1]

    @property
    def head(self) -> nn.Linear:
        """The layer that classifies."""
        return self.model.get_submodule(self.head_name)  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.head.weight.device

    @property
    def can_find(self) -> bool:
        """Whether the network has a layer in which objects can be found."""
        return self._fine is not None

    @property
    def can_attend(self) -> bool:
        """Whether an attention before global average pooling is possible."""
        return self._last is not None

    @property
    def grid(self) -> tuple[int, ...]:
        """The height and width of the last feature map; (1, 1) where the network does not end in pooling."""
        if self._grid is None:
            last = self.features(torch.zeros(1, 3, *self.input_spec.size)).last
            self._grid = (1, 1) if last is None else tuple(last.shape[-2:])
        return self._grid

    @torch.no_grad()
    def features(self, images: Tensor, fine: bool = False) -> Features:
        """Return the features of images (N, 3, H, W) in [0, 1].

        Args:
            images: any number.
            fine: whether those in which objects are found are wanted too.
        """
        parts = []
        places = {"last": self._last, "fine": self._fine if fine else None}
        for chunk in images.split(CHUNK):
            kept: dict[str, Tensor] = {}
            with evaluating(self.model), ExitStack() as stack:
                for key, place in places.items():
                    if place is not None:
                        stack.callback(self._keep(kept, key, *place).remove)
                stack.enter_context(self._keep_inputs(kept))
                normal = self.input_spec.normalize(chunk.to(self.device)).to(memory_format=torch.channels_last)
                logits = returned_logits(self.model(normal))
            parts.append(Features(kept.get("fine"), kept.get("last"), kept["inputs"], logits.float().cpu()))
        return Features.join(parts)

    @torch.no_grad()
    def attended(self, features: Features, weight: Tensor, bias: Tensor) -> Tensor:
        """Return what the head gets (N, D) if the last feature map is averaged by an attention, (1, C) and (1,)."""
        if self._tail is None or features.last is None:
            raise SightlineError(f"{self.name} does not end in global average pooling")
        _set(self._gate, weight, bias)
        rows = []
        for chunk in features.last.split(CHUNK):
            kept: dict[str, Tensor] = {}
            with self._keep_inputs(kept):
                spatial = at_least_float32(chunk.to(self.device))
                # The gate is a hook of the layer, which the tail begins behind.
                dimension = self._gate.dimension
                self._tail(self._gate.change(spatial if dimension == 1 else spatial.movedim(1, -1)))
            rows.append(kept["inputs"])
        _set(self._gate, torch.zeros_like(self._gate.weight), torch.zeros_like(self._gate.bias))
        return torch.cat(rows)

    def with_head(self, weight: Tensor, bias: Tensor, attention: tuple[Tensor, Tensor] | None = None) -> nn.Module:
        """Return a copy of the network with a fitted head (K, D) and (K,), and an attention (1, C) and (1,) before pooling.

        Where the given head had a single logit for two classes, the copy has one too: the difference of the two.
        """
        if self.head.out_features == 1:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        model = copy.deepcopy(self.model)
        head: nn.Linear = model.get_submodule(self.head_name)  # type: ignore[assignment]
        fitted = nn.Linear(weight.shape[1], weight.shape[0], device=head.weight.device, dtype=head.weight.dtype)
        fitted.weight.data.copy_(weight)
        fitted.bias.data.copy_(bias)
        owner, _, name = self.head_name.rpartition(".")
        setattr(model.get_submodule(owner), name, fitted)
        gate = next((each for each in model.modules() if isinstance(each, PoolingGate)), None)
        if gate is not None and attention is not None:
            _set(gate, *attention)
        elif gate is not None and self.can_attend:
            _set(gate, torch.zeros_like(gate.weight), torch.zeros_like(gate.bias))
        return model.to(memory_format=torch.contiguous_format).requires_grad_(True).eval()

    def _keep(self, kept: dict[str, Tensor], key: str, place: str, dimension: int) -> Any:
        """Record the output of a layer, channels first, in half precision."""

        def record(module: nn.Module, args: Any, output: Tensor) -> None:
            spatial = output if dimension == 1 else output.movedim(-1, 1)
            kept[key] = spatial.to("cpu", torch.float16).contiguous()

        return self.model.get_submodule(place).register_forward_hook(in_this_thread(record))

    def _keep_inputs(self, kept: dict[str, Tensor]) -> Any:
        def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            kept["inputs"] = args[0].float().flatten(1).cpu()

        return self.head.register_forward_pre_hook(in_this_thread(record))


def linear_head(model: nn.Module) -> str:
    """Return the name of the one linear layer that classifies.

    Raises:
        SightlineError: the model has another kind of head.
    """
    names = head_name(model)
    if len(names) != 1 or not isinstance(model.get_submodule(names[0]), nn.Linear):
        kinds = ", ".join(f"{name} ({type(model.get_submodule(name)).__name__})" for name in names)
        raise SightlineError(f"{type(model).__name__} classifies by {kinds}; `fix` refits a head of one nn.Linear")
    return names[0]


@torch.no_grad()
def _set(gate: PoolingGate, weight: Tensor, bias: Tensor) -> None:
    gate.weight.copy_(weight)
    gate.bias.copy_(bias)
