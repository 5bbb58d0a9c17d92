"""Checks of options, whose errors name the option, its value and what is expected.

Options are passed by name: `check_positive(slope=slope, softness=softness)`.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, get_args

from sightline.errors import SightlineError


def check_number(**options: float) -> None:
    """Raise if an option is not a finite number."""
    for name, value in options.items():
        if not is_number(value):
            raise SightlineError(f"{name} is {value!r}; expected a finite number")


def check_non_negative(**options: float) -> None:
    """Raise if an option is not a finite number of at least 0."""
    for name, value in options.items():
        if not is_number(value) or value < 0:
            raise SightlineError(f"{name} is {value!r}; expected a number >= 0")


def check_positive(**options: float) -> None:
    """Raise if an option is not a finite number above 0."""
    for name, value in options.items():
        if not is_number(value) or value <= 0:
            raise SightlineError(f"{name} is {value!r}; expected a number > 0")


def check_fraction(interval: str = "[0, 1]", **options: float) -> None:
    """Raise if an option is outside an interval, such as "(0, 1]": a round bracket leaves out its end."""
    low, high = map(float, interval[1:-1].split(","))
    for name, value in options.items():
        outside = not is_number(value) or not low <= value <= high
        if outside or (value == low and interval[0] == "(") or (value == high and interval[-1] == ")"):
            raise SightlineError(f"{name} is {value!r}; expected a number in {interval}")


def check_count(least: int = 1, **options: int) -> None:
    """Raise if an option is not a whole number of at least `least`."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SightlineError(f"{name} is {value!r}; expected a whole number >= {least}")


def check_choice(choices: Any, **options: object) -> None:
    """Raise if an option is none of the choices.

    Args:
        choices: A `Literal` type, or the accepted values.
        **options: The values that were given, by the option's name.
    """
    accepted: Iterable[Any] = get_args(choices) or tuple(choices)
    for name, value in options.items():
        if value not in accepted:
            raise SightlineError(f"{name} is {value!r}; expected {' or '.join(map(repr, accepted))}")


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
