"""The last feature map before a model averages over its places and classifies."""

from collections import Counter
from contextlib import suppress

import torch
from torch import Tensor, nn

from sightline._core.seeding import generator
from sightline.errors import SightlineError
from sightline.network.branch import is_within, own_modules
from sightline.network.execution import main_output, record_blank
from sightline.network.head import head_name
from sightline.network.layers import resolve_layers
from sightline.network.modes import evaluating, in_this_thread

CLOSE = 1e-3  # of how much the logits differ between two feature maps: what rounding may add


def pooling_place(model: nn.Module) -> tuple[str, int, int]:
    """Return where a model's last feature map is: the module's name, its channels, and the dimension (1 or -1) they are in.

    It is told by what the model does, not by its modules: the last module before the head for which noise instead of its
    output gives the logits of the noise's mean over the places, or of the mean of its positive part, where a ReLU follows.

    Args:
        model: not changed.

    Raises:
        SightlineError: no module's output is averaged, such as in a transformer that classifies by a class token.
    """
    recorded = record_blank(model)
    heads, runs = head_name(model), Counter(call.name for call in recorded.calls)
    own = own_modules(model)
    first = min((n for n, call in enumerate(recorded.calls) if call.name in heads), default=len(recorded.calls))
    like = next(model.parameters())
    image = torch.zeros(recorded.image, device=like.device, dtype=like.dtype)
    fewest = None
    for call in reversed(recorded.calls[:first]):
        shape = call.returned[0] if call.alone else ()
        within_head = any(is_within(call.name, head) or is_within(head, call.name) for head in heads)
        if len(shape) != 4 or shape[0] != 1 or within_head or runs[call.name] > 1 or call.name not in own:
            continue
        with suppress(SightlineError):  # a layer whose layout is not known
            last = resolve_layers(model, call.name)[0].layout == "channels_last"
            places = (1, 2) if last else (2, 3)
            count = shape[places[0]] * shape[places[1]]
            if fewest is not None and count > fewest:
                break  # an earlier stage
            if count > 1:
                fewest = count
                if _is_averaged(model, image, call.name, shape, places):
                    return call.name, shape[-1 if last else 1], -1 if last else 1
    raise SightlineError(
        f"{type(model).__name__} does not classify by the mean of a feature map over its places, or this cannot be inferred; "
        "expected a network that ends in global average pooling for attention pooling and for prototypes. A linear head "
        "(`linear`) fits any model"
    )


def _is_averaged(model: nn.Module, image: Tensor, name: str, shape: tuple[int, ...], places: tuple[int, int]) -> bool:
    """Return whether the logits depend on a module's output by its mean over the places alone."""
    one, other = (torch.randn(shape, generator=generator(0, "pooling", n)).to(image) for n in range(2))

    def averaged(features: Tensor) -> Tensor:
        return features.mean(places, keepdim=True).expand(shape)

    with torch.no_grad(), evaluating(model):
        logits, expected, rectified, others = (
            _logits_from(model, image, name, features) for features in (one, averaged(one), averaged(one.relu()), other)
        )
    scale = CLOSE * (logits - others).abs().max()
    return bool(scale > 0) and any(bool((logits - each).abs().max() <= scale) for each in (expected, rectified))


def _logits_from(model: nn.Module, image: Tensor, name: str, features: Tensor) -> Tensor:
    """Return the main output of a model for an image, a module's output being replaced."""
    replace = in_this_thread(lambda module, args, output: features.clone())
    with model.get_submodule(name).register_forward_hook(replace):
        output = main_output(model(image))
    if output is None:
        raise SightlineError(f"{type(model).__name__} returned no tensor; expected logits")
    return output.float()
