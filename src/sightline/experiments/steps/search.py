"""Recipe keys that validation chooses, for the runs that follow."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sightline._core.files import write_atomically
from sightline._core.reading import read_json
from sightline._core.strict import Positive, parse_yaml
from sightline.experiments.steps.base import STEPS, Step, StepContext
from sightline.runs import read_recipe
from sightline.studies.recipes import Keys, overrides
from sightline.studies.study import Part

if TYPE_CHECKING:
    from sightline.sweeping import Sweep


@STEPS.register("search")
class Search(Step):
    """Search recipe keys as `sightline sweep` does; runs that use the step train with the best.

    Studies leave the step out unless their key `search` is true (`sightline reproduce ... --search`).

    Attributes:
        changes: recipe keys that every trial changes.
        space: keys of the recipe -> a list of values, or a mapping with `low`, `high` and, if wanted, `step` or `log`.
        metric: the validation metric that is best.
        sampler: `grid`, `random` or `tpe`.
        trials: how many; null = the whole grid.
    """

    label: str = "search"
    changes: Keys = Field(default_factory=dict)
    space: dict[str, Any] = Field(min_length=1)
    metric: str = "val/accuracy"
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: Positive | None = None

    def prepare(self, context: StepContext) -> Callable[[], Part]:
        """Search, or continue with the search; what the ranges contradict is reported now."""
        self._document(context)
        return partial(self._work, context)

    def keys(self, context: StepContext) -> Keys:
        """Return the best trial's keys, once they are known."""
        file = self._best(context)
        found: Keys = read_json(file, "remove the study's folder") if file.is_file() else {}
        return found

    def summary(self, part: Part) -> str:
        """Return the best keys, with their value."""
        chosen = ", ".join(f"{key} = {value}" for key, value in part.values["best"].items())
        found = f"{self.metric} is {part.values['value']:.4f} with {chosen}"
        return f"Search `{self.label}`: {part.values['trials']} trials; {found}."

    def _best(self, context: StepContext) -> Path:
        return context.folder / "searches" / self.label / "best.json"

    def _document(self, context: StepContext) -> "Sweep":
        from sightline.sweeping import Sweep

        recipe = read_recipe(context.recipe, overrides(self.changes | context.keys(self.uses)))
        return Sweep(
            name=self.label,
            recipe=recipe,
            space=self.space,
            metric=self.metric,
            sampler=self.sampler,
            trials=self.trials,
        )

    def _work(self, context: StepContext) -> Part:
        from sightline.sweeping import sweep

        found = sweep(self._document(context), self._best(context).parent / "sweep")
        best = found.best
        assert best is not None  # `sweep` raises where no trial has a result
        split = (override.partition("=") for override in best.overrides)
        keys: Keys = {key: parse_yaml(text, key) for key, _, text in split}
        write_atomically(self._best(context), json.dumps(keys).encode())
        return Part({"best": keys, "value": best.value, "trials": len(found.trials)})
