"""`load_model`: one door to sightline's, torchvision's and timm's models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from sightline._core.optional import requires_extra
from sightline.data.files import locate
from sightline.errors import SightlineError, unknown_name
from sightline.models.attention_branch import restore_attention_branch
from sightline.models.gates import restore_gates
from sightline.models.registry import MODELS
from sightline.models.two_branch import restore_two_branch
from sightline.models.weights import load_weights, read_weights
from sightline.network.head import head_name
from sightline.network.input_spec import InputSpec

T = TypeVar("T")


def load_model(
    name: str, weights: str | Path | None = None, classes: int | None = None, size: int | None = None
) -> tuple[nn.Module, InputSpec]:
    """A model by name, kept as its library made it, and the input that it expects.

    Args:
        name: `timm/<any>`, `torchvision/<any>` or `sightline/<own>`.
        weights: None for random ones, "default" for those that the library downloads, or a local file, seen from here or
            else from the folder that SIGHTLINE_DATA names: `.safetensors`, or `.pth`, read without unpickling code.
        classes: number of logits, 1 for two classes told apart by a single one; None takes that of the weights file, else the
            library's. A head of another number of classes is left random; a linear one is never left at zero.
        size: side of the input in pixels; None takes that of the weights.

    Returns:
        The model in training mode, on the CPU, and its `InputSpec`.

    Raises:
        SightlineError: no such name or file, weights that cannot be had, or weights that do not fit the model.
    """
    source, plain = check_name(name)
    if classes is not None and classes < 1:
        raise SightlineError(f"classes is {classes}; a model needs at least 1")
    if weights is None or weights == "default":
        model, spec = SOURCES[source](plain, weights == "default", classes, size)
        _start_zero_head(model)
        return model, spec

    state = read_weights(locate(weights, "weights"))
    if classes is None:
        classes = _classes_of(state, SOURCES[source](plain, False, None, size)[0])
    model, spec = SOURCES[source](plain, False, classes, size)
    _start_zero_head(model)
    restore_gates(model, state)
    restore_attention_branch(model, state)
    restore_two_branch(model, state)  # last, because it copies the model with its gates
    load_weights(model, state, head=head_name(model), source=str(weights))
    return model, spec


def _start_zero_head(model: nn.Module) -> None:
    """Start a linear head that the library starts with zeros, such as that of torchvision's ViT, as `nn.Linear` starts.

    Behind a zero head, every class activation map is zero and has no gradient, so that a guide on maps never trains.
    """
    for name in head_name(model):
        head = model.get_submodule(name)
        if isinstance(head, nn.Linear) and not head.weight.any():
            head.reset_parameters()


def check_name(name: str) -> tuple[str, str]:
    """The library and the plain name in a model's name.

    Raises:
        SightlineError: there is no such model; the message names the nearest.
    """
    source, _, plain = name.partition("/")
    if source not in SOURCES or not plain:
        guess = [f"{s}/{name}" for s in SOURCES if name in _names(s)]
        hint = (
            f"did you mean {guess[0]!r}?" if guess else "expected timm/<name>, torchvision/<name> or sightline/<name>"
        )
        raise SightlineError(f"unknown model {name!r}; {hint}")
    base = plain.partition(".")[0] if source == "timm" else plain  # timm's names may end in a tag: resnet18.a1_in1k
    if base not in _names(source):
        raise unknown_name("model", name, [f"{source}/{n}" for n in _names(source)])
    return source, plain


def library_options(name: str, classes: int | None, size: int | None) -> dict[str, Any]:
    """What timm or torchvision is given, beside the name, to make a model with so many classes for images of such a side."""
    source, _, plain = name.partition("/")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if size is None:
        return options
    if source == "torchvision" and plain.startswith("vit_"):
        options["image_size"] = size
    if source == "timm":
        with requires_extra("timm", "a timm model"):
            import timm

        config = timm.get_pretrained_cfg(plain)
        if config is not None and config.fixed_input_size:
            options["img_size"] = size  # such as ViTs, whose position embedding has the size of the input
    return options


def _from_timm(name: str, pretrained: bool, classes: int | None, size: int | None) -> tuple[nn.Module, InputSpec]:
    with requires_extra("timm", "a timm model"):
        import timm

    options = library_options(f"timm/{name}", classes, size)
    model = _download(f"timm/{name}", lambda: timm.create_model(name, pretrained=pretrained, **options))
    data = timm.data.resolve_model_data_config(model)
    return model, InputSpec(tuple(data["mean"]), tuple(data["std"]), _square(size or data["input_size"][-1]))


def _from_torchvision(
    name: str, pretrained: bool, classes: int | None, size: int | None
) -> tuple[nn.Module, InputSpec]:
    from torchvision import models

    default = models.get_model_weights(name).DEFAULT
    preset = default.transforms()
    options = library_options(f"torchvision/{name}", classes, size)
    model = models.get_model(name, weights=None, **options)
    if pretrained:
        state = _download(f"torchvision/{name}", lambda: default.get_state_dict(progress=True, check_hash=True))
        load_weights(model, state, head=head_name(model), source=str(default))
    return model, InputSpec(tuple(preset.mean), tuple(preset.std), _square(size or preset.crop_size[0]))


def _own(name: str, pretrained: bool, classes: int | None, size: int | None) -> tuple[nn.Module, InputSpec]:
    if pretrained:
        raise SightlineError(f"weights='default' was given, but sightline/{name} has none; use None or a file")
    entry = MODELS[name]
    model = entry() if classes is None else entry(classes=classes)
    return model, InputSpec((0.5,) * 3, (0.5,) * 3, _square(size or entry.capabilities["size"]))


SOURCES: dict[str, Callable[[str, bool, int | None, int | None], tuple[nn.Module, InputSpec]]] = {
    "sightline": _own,
    "timm": _from_timm,
    "torchvision": _from_torchvision,
}


def _names(source: str) -> list[str]:
    if source == "timm":
        with requires_extra("timm", "a timm model"):
            import timm

        return timm.list_models()
    if source == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    return MODELS.names()


def _classes_of(state: dict[str, Tensor], model: nn.Module) -> int | None:
    weight = state.get(f"{head_name(model)[0]}.weight")
    return None if weight is None else weight.shape[0]


def _square(side: int) -> tuple[int, int]:
    return (side, side)


def _download(name: str, fetch: Callable[[], T]) -> T:
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SightlineError(
            f"weights='default' of {name} cannot be had ({reason}); give a local file, or None"
        ) from error
