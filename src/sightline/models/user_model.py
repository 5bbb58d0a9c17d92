"""Models that the user's own code makes, named as `package.module:function` or `package.module:Class`."""

import inspect
from typing import Any

from torch import nn

from sightline._core.user_code import load_function
from sightline.errors import SightlineError
from sightline.models.made import Made, spec_of
from sightline.network.head import head_parameters
from sightline.network.input_spec import InputSpec

CLASSES = ("num_classes", "classes", "n_classes", "num_labels")
SIZES = ("image_size", "img_size", "size")


def make_user_model(name: str, pretrained: bool, classes: int | None, size: int | None) -> Made:
    """Call the function or class that a name stands for.

    A parameter `num_classes`, `classes`, `n_classes` or `num_labels` gets the number of logits, and `image_size`, `img_size`
    or `size` the side in pixels, where these are known.

    Args:
        name: `package.module:function`; a module in the current folder is found too.
        pretrained: with the weights of a library, which there are none of.
        classes: number of logits; None = as the function chooses.
        size: side of the input in pixels; None likewise.

    Raises:
        SightlineError: there is no such function, it fails, or it returns no model.
    """
    if pretrained:
        raise SightlineError(
            f"weights='default' was given, but {name} is your own; use None for its own weights, or a file"
        )
    function = load_function(name, "model")
    try:
        options = _options(function, name, classes, size)
        made = function(**options)
    except SightlineError:
        raise
    except Exception as error:  # the user's code fails in its own way
        raise SightlineError(f"model {name!r} failed: {type(error).__name__}: {error}") from error
    model, spec = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module) or not (spec is None or isinstance(spec, InputSpec)):
        raise SightlineError(
            f"model {name!r} returned {_kind(made)}; expected an nn.Module, or a pair (nn.Module, sightline.InputSpec)"
        )
    if classes is not None and (own := head_parameters(model)[0].shape[0]) != classes:
        raise SightlineError(
            f"model {name!r} returned a model of {own} logits and {classes} are needed; give the function a parameter "
            f"{CLASSES[0]}"
        )
    if spec is not None:
        return Made(model, spec if size is None else InputSpec(spec.mean, spec.std, (size, size)))
    spec, notes = spec_of(model, size)
    return Made(model, spec, notes=notes)


def _options(function: Any, name: str, classes: int | None, size: int | None) -> dict[str, Any]:
    """Return the options that the function is called with."""
    parameters = inspect.signature(function).parameters
    by_name = {each for each, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    options: dict[str, Any] = {}
    for value, names in ((classes, CLASSES), (size, SIZES)):
        if value is not None and (taken := next((each for each in names if each in by_name), None)):
            options[taken] = value
    required = [each for each in by_name if parameters[each].default is inspect.Parameter.empty and each not in options]
    if (count := next((each for each in required if each in CLASSES), None)) and classes is None:
        options[count] = 2  # only to see the names of its weights, or until the number is known
        required.remove(count)
    if required:
        raise SightlineError(
            f"model {name!r} needs {', '.join(sorted(required))}; expected a function that needs no more than the number of "
            f"classes ({CLASSES[0]}) and the side of the image ({SIZES[0]})"
        )
    return options


def _kind(made: Any) -> str:
    return f"({', '.join(type(each).__name__ for each in made)})" if isinstance(made, tuple) else type(made).__name__
