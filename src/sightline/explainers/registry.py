"""The explainers, by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sightline._core.registry import Registry
from sightline.explainers.base import Explainer

L = TypeVar("L")

EXPLAINERS: Registry[Explainer] = Registry(
    "explainer",
    modules=("sightline.explainers", "sightline.explainers.attention", "sightline.attributions"),
    differentiable=False,
    needs_gradient=False,
    pixel_space=False,
)


def with_options(function: Callable[..., Any], options: Mapping[str, str]) -> str:
    """Return the docstring of a function, with more options and their meanings in its section `Args:`."""
    text = inspect.getdoc(function) or ""
    lines = "\n".join(f"    {name}: {meaning}" for name, meaning in options.items())
    before, args, after = text.partition("Args:\n")
    return f"{before}{args}{lines}\n{after}" if args else f"{text}\n\nArgs:\n{lines}\n"


def needs_layer(name: str) -> bool:
    """Return whether the explainer of that name makes its maps from the target layer; True where nothing is declared."""
    return name not in EXPLAINERS or EXPLAINERS[name].capabilities.get("needs_layer", True)


def layer_for(name: str, layer: L) -> L | None:
    """Return the target layer to pass to the explainer of that name: None where it has none, or uses one differently."""
    return layer if needs_layer(name) else None
