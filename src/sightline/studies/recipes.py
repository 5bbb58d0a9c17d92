"""Recipe keys that a study changes, and what studies share that train from a recipe."""

from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field

from sightline._core.strict import override_text
from sightline.errors import SightlineError
from sightline.runs import read_recipe
from sightline.studies.study import Study, scale_count

Keys = dict[str, Any]
"""Recipe keys, dotted as on the command line, with their values."""


class RecipeStudy(Study):
    """A study that trains from a recipe.

    Attributes:
        recipe: a recipe that sightline ships, or a file.
        keys: recipe keys that every run changes.
        scaled_keys: recipe keys, whole numbers or shares, that `--scale` takes a share of, such as `data.per_class`.
    """

    recipe: str
    keys: Keys = Field(default_factory=dict)
    scaled_keys: list[str] = Field(default_factory=lambda: ["train_fraction"])

    def scaled(self, scale: float) -> Self:
        """Less of what `scaled_keys` names."""
        if scale == 1:
            return self
        return self.model_copy(update={"keys": scale_keys(self.recipe, self.keys, self.scaled_keys, scale)})


def overrides(keys: Keys) -> list[str]:
    """Write keys as the command line gives them."""
    return [override_text(key, value) for key, value in keys.items()]


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
