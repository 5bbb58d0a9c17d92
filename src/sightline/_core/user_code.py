"""Functions of the user's own code, named in options and YAML files."""

import sys
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any

from sightline.errors import SightlineError


def load_function(name: str, argument: str) -> Callable[..., Any]:
    """Import the function that `package.module:function` names.

    A module in the folder where the command runs is found too.

    Args:
        name: The name, such as `my_segmenters:sam` or `captum_maps:Maps.saliency`.
        argument: Whose value the name is, for messages.

    Raises:
        SightlineError: The name has another form, nothing has that name, or it is not a function.
    """
    module, separator, function = name.partition(":")
    if not (module and separator and function):
        raise SightlineError(f"{argument} is {name!r}; expected 'package.module:function'")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = attrgetter(function)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise SightlineError(f"{argument} {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise SightlineError(f"{argument} {name!r} is a {type(found).__name__}; expected a function")
    return found
