"""What changes in a sweep: a key of the recipe, and the values that it takes."""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self

from optuna import Trial
from pydantic import Field, model_validator

from sightline._core.strict import Real, StrictDocument


class Range(StrictDocument):
    """Numbers from `low` to `high`, both ends included.

    Attributes:
        low: the smallest value.
        high: the largest value; with a step that does not lead there, the last one below it.
        step: from one value to the next, which makes them a list; null takes every number between the ends.
        log: draw as often from each order of magnitude.
    """

    noun: ClassVar[str] = "range"

    low: Real
    high: Real
    step: Annotated[Real, Field(gt=0)] | None = None
    log: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}; low must be smaller than high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log takes a low above 0 and no step")
        return self

    @property
    def points(self) -> list[float] | None:
        """The values of a range with a step, in decimal arithmetic and whole where all are; None where there is no step."""
        if self.step is None:
            return None
        low, high, step = (Decimal(repr(number)) for number in (self.low, self.high, self.step))
        values = [low + i * step for i in range(int((high - low) / step) + 1)]
        whole = all(value == value.to_integral_value() for value in values)
        return [int(value) if whole else float(value) for value in values]


@dataclass(frozen=True)
class Axis:
    """A key of the recipe with what it can be.

    Attributes:
        key: dotted, as for `sightline train`.
        values: all it can be; None = every number of the range.
        range: where it is one.
    """

    key: str
    values: list[Any] | None
    range: Range | None

    @classmethod
    def read(cls, key: str, given: Any) -> Self:
        """From a list of values, or a mapping with `low` and `high`; a ValueError names the key."""
        if isinstance(given, dict):
            found = Range(**given)
            return cls(key, found.points, found)
        if not isinstance(given, list) or not given:
            raise ValueError(f"it is {given!r}; expected a list of values, or a mapping with low and high")
        for number, value in enumerate(given):
            if value in given[:number]:
                raise ValueError(f"{value!r} is given twice")
        return cls(key, given, None)

    @property
    def ends(self) -> list[Any]:
        """What stands for everything it can be: all values, or the ends of the range."""
        if self.values is None and self.range is not None:
            return [self.range.low, self.range.high]
        return self.values or []

    @property
    def stored(self) -> list[Any]:
        """The values as a database holds them: lists and mappings as JSON."""
        return [_stored(value) for value in self.values or []]

    def suggest(self, trial: Trial) -> Any:
        """Suggest a trial's value of the key."""
        if self.range is None:
            return self.value(trial.suggest_categorical(self.key, self.stored))
        if self.values is None:
            return trial.suggest_float(self.key, self.range.low, self.range.high, log=self.range.log)
        if isinstance(self.values[0], int):
            return trial.suggest_int(self.key, self.values[0], self.values[-1], step=self.values[1] - self.values[0])
        found = trial.suggest_float(self.key, self.values[0], self.values[-1], step=self.range.step)
        return self.value(found)

    def value(self, stored: Any) -> Any:
        """Return what a stored value stands for; in a range with a step, undo the effect of rounding."""
        if self.values is None:
            return stored
        if self.range is not None:
            return min(self.values, key=lambda value: abs(value - stored))
        return self.values[self.stored.index(stored)]


def _stored(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)
