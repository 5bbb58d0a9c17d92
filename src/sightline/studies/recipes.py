"""Recipe keys that a study changes."""

import json
from collections.abc import Iterable
from typing import Any

from sightline.errors import SightlineError
from sightline.studies.study import scale_count
from sightline.training import read_recipe

Keys = dict[str, Any]
"""Recipe keys, dotted as on the command line, with their values."""


def overrides(keys: Keys) -> list[str]:
    """Write keys as the command line gives them; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


def scale_keys(recipe: str, keys: Keys, scaled: Iterable[str], scale: float) -> Keys:
    """Return the keys with a share of the numbers that some recipe keys have; whole numbers are rounded up."""
    values = read_recipe(recipe, overrides(keys)).model_dump(mode="json")
    less: Keys = {}
    for key in scaled:
        full = _value(values, key)
        if isinstance(full, bool) or not isinstance(full, int | float):
            raise SightlineError(
                f"--scale takes a share of numbers; the recipe key {key!r} in `scaled_keys` is {full!r}"
            )
        less[key] = scale_count(full, scale) if isinstance(full, int) else full * scale
    return keys | less


def file_name(label: str) -> str:
    """Return a label as the name of a file."""
    return "".join(c if c.isalnum() or c in ".+-" else "_" for c in label)


def _value(values: Any, key: str) -> Any:
    for step in key.split("."):
        values = values[int(step)] if isinstance(values, list) else values[step]
    return values
