"""The labels of a user's data as class indices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sightline.errors import SightlineError
from sightline.formats.table import sort_names


def as_labels(
    values: Sequence[Any], names: Sequence[str] | None, numbered: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    """Return a class index for each label, and the names of the classes.

    Args:
        values: class indices or class names, of one kind.
        names: of the classes that indices count, as the data says; None = it does not say.
        numbered: of the classes that indices count otherwise; None = "0", "1", ...

    Raises:
        SightlineError: a label is missing, of another kind, or of no class.
    """
    plain = [_plain(value, place) for place, value in enumerate(values)]
    texts = [value for value in plain if isinstance(value, str)]
    if texts and len(texts) < len(plain):
        raise SightlineError(f"the labels are numbers and names such as {texts[0]!r}; expected one of the two")
    if texts:
        known = list(names) if names is not None and set(texts) <= set(names) else sort_names(set(texts))
        return [known.index(text) for text in texts], known
    numbers = [value for value in plain if isinstance(value, int)]
    known = list(names or numbered or map(str, range(max(1, *numbers) + 1)))
    wrong = [place for place, number in enumerate(numbers) if not 0 <= number < len(known)]
    if wrong:
        raise SightlineError(
            f"the label of item {wrong[0]} is {numbers[wrong[0]]}; expected a class index in 0 .. {len(known) - 1}. Leave out "
            "images without a label"
        )
    return numbers, known


def _plain(value: Any, place: int) -> int | str:
    """Return a label as a plain number or text."""
    if isinstance(value, Tensor | np.ndarray) and len(np.ravel(value)) == 1:
        value = value.item()
    if isinstance(value, str | np.str_) and value.strip():
        return str(value).strip()
    if isinstance(value, bool | int | np.integer | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    if value is None or isinstance(value, str) or (isinstance(value, float) and value != value):
        raise SightlineError(
            f"item {place} of the data has no label; expected (image, label), or a mapping with image and label"
        )
    raise SightlineError(f"the label of item {place} is {value!r:.80}; expected a class index or a class name")
