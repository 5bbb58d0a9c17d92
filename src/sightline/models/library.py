"""Models of sightline, torchvision and timm by name, as their library made them."""

from collections.abc import Callable
from typing import Any, TypeVar

from sightline._core.optional import requires_extra
from sightline.errors import MissingFileError, SightlineError
from sightline.models.made import Made
from sightline.models.registry import MODELS
from sightline.models.weights import load_weights
from sightline.network.head import head_name
from sightline.network.input_spec import InputSpec

T = TypeVar("T")


def library_options(name: str, classes: int | None, size: int | None) -> dict[str, Any]:
    """Return the options with which timm or torchvision makes a model for this number of classes and this image side."""
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


def make_timm_model(name: str, pretrained: bool, classes: int | None, size: int | None) -> Made:
    """Make a model of timm, with the weights of the hub or without."""
    with requires_extra("timm", "a timm model"):
        import timm

    options = library_options(f"timm/{name}", classes, size)
    model = _download(f"timm/{name}", lambda: timm.create_model(name, pretrained=pretrained, **options))
    data = timm.data.resolve_model_data_config(model)
    return Made(model, InputSpec(tuple(data["mean"]), tuple(data["std"]), _square(size or data["input_size"][-1])))


def make_torchvision_model(name: str, pretrained: bool, classes: int | None, size: int | None) -> Made:
    """Make a model of torchvision, with its default weights or without."""
    from torchvision import models

    default = models.get_model_weights(name).DEFAULT
    preset = default.transforms()
    options = library_options(f"torchvision/{name}", classes, size)
    model = models.get_model(name, weights=None, **options)
    if pretrained:
        state = _download(f"torchvision/{name}", lambda: default.get_state_dict(progress=True, check_hash=True))
        load_weights(model, state, head=head_name(model), source=str(default))
    return Made(model, InputSpec(tuple(preset.mean), tuple(preset.std), _square(size or preset.crop_size[0])))


def make_own_model(name: str, pretrained: bool, classes: int | None, size: int | None) -> Made:
    """Make one of sightline's own models, which ship without weights."""
    if pretrained:
        raise SightlineError(f"weights='default' was given, but sightline/{name} has none; use None or a file")
    entry = MODELS[name]
    model = entry() if classes is None else entry(classes=classes)
    return Made(model, InputSpec((0.5,) * 3, (0.5,) * 3, _square(size or entry.capabilities["size"])))


def library_names(source: str) -> list[str]:
    """Return the names of a library's models."""
    if source == "timm":
        with requires_extra("timm", "a timm model"):
            import timm

        return timm.list_models()
    if source == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    return MODELS.names()


def _square(side: int) -> tuple[int, int]:
    return (side, side)


def _download(name: str, fetch: Callable[[], T]) -> T:
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise MissingFileError(
            f"weights='default' of {name} could not be downloaded ({reason}); "
            "pass a local file with weights=, or None for random weights"
        ) from error
