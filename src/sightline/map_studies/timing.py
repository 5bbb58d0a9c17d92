"""Timings: milliseconds that each method takes for an image, on several models."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from sightline._core.seeding import generator
from sightline._core.strict import Positive
from sightline.errors import NotDefinedError
from sightline.explainers import create_explainer
from sightline.reporting.markdown import markdown
from sightline.studies.image_study import load_subjects
from sightline.studies.study import (
    KINDS,
    Done,
    LabelledModel,
    Method,
    Part,
    Study,
    check_labels,
    check_methods,
    scale_count,
)
from sightline.studies.subject import Subject
from sightline.studies.tables import milliseconds, wait


class TimedMethod(Method):
    """A method, and how often it is timed.

    Attributes:
        rounds: null takes the study's; slow methods take fewer.
        warm_up: options that differ in the call that comes before the first one that counts.
    """

    rounds: Positive | None = None
    warm_up: dict[str, Any] = Field(default_factory=dict)


@KINDS.register("timing")
class Timing(Study):
    """Time of methods on models.

    In every round each method is called once on each model, the order shifted by one from round to round, so what
    else the machine does falls on all of them equally. The first call of a method on a model is not counted. A value is
    the median over the rounds, divided by the batch size. The images are seeded noise.

    Attributes:
        models: the columns.
        methods: the rows.
        rounds: how often a method is timed.
        batch: images in one call.
        paper_values: method -> model -> the paper's milliseconds per image.
    """

    kind: Literal["timing"]
    models: Annotated[list[LabelledModel], Field(min_length=1)]
    methods: Annotated[list[TimedMethod], Field(min_length=1)]
    rounds: Positive = 10
    batch: Positive = 1
    paper_values: dict[str, dict[str, float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_labels("models", [model.label for model in self.models])
        check_labels("methods", [method.label for method in self.methods])
        return self

    def parts(self) -> list[str]:
        """One round on one model each; the models take turns."""
        last = max(self._rounds(method) for method in self.methods)
        return [f"{model.label}/{number}" for number in range(last) for model in self.models]

    def scaled(self, scale: float) -> Self:
        """Fewer rounds."""
        methods = [m.model_copy(update={"rounds": scale_count(self._rounds(m), scale)}) for m in self.methods]
        return self.model_copy(update={"methods": methods, "rounds": scale_count(self.rounds, scale)})

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Load the models."""
        check_methods(self.methods)
        check_methods(m.model_copy(update={"options": m.options | m.warm_up}) for m in self.methods)
        subjects = load_subjects(self.models, device, self.seed)
        warm: set[tuple[str, str]] = set()

        def work(part: str) -> Part:
            label, _, number = part.rpartition("/")
            turn = int(number)
            methods = [m for m in self.methods if turn < self._rounds(m)]
            shift = turn % len(methods)
            values: dict[str, Any] = {}
            for method in [*methods[shift:], *methods[:shift]]:
                if (label, method.label) not in warm:
                    self._time(subjects[label], method, method.options | method.warm_up)
                    warm.add((label, method.label))
                values[method.label] = self._time(subjects[label], method, method.options)
            return Part(values)

        return work

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return one row per model and method: median, smallest and largest milliseconds per image, and the rounds."""
        rows = []
        for model in self.models:
            for method in self.methods:
                found = [part.values[method.label] for name, part in done.items() if _is(name, model, method, part)]
                times = [ms for ms in found if ms is not None]
                row: dict[str, Any] = {"model": model.label, "method": method.label, "rounds": len(found)}
                row |= {"ms": statistics.median(times) if times else None}
                row |= {"least": min(times, default=None), "greatest": max(times, default=None)}
                row |= {"printed": self.paper_values.get(method.label, {}).get(model.label), "defined": bool(times)}
                rows.append(row)
        return rows

    def summary(self, done: Done) -> str:
        """Return the paper's table with our value before each of the paper's."""
        rows = {(row["method"], row["model"]): row for row in self.table(done)}
        header = ["Method", *(model.label for model in self.models), "rounds"]
        lines = [
            [m.label, *(_cell(rows[m.label, n.label]) for n in self.models), str(self._rounds(m))] for m in self.methods
        ]
        return (
            f"Milliseconds an image at batch size {self.batch}: ours (in brackets: the paper's, on its own hardware). "
            "Median over the rounds; methods interleaved, after a call that is not counted.\n\n"
            + markdown(header, lines)
        )

    def _rounds(self, method: TimedMethod) -> int:
        return method.rounds or self.rounds

    def _time(self, subject: Subject, method: TimedMethod, options: dict[str, Any]) -> float | None:
        """Milliseconds an image of one call; None where the method is not defined for the model."""
        explainer = create_explainer(method.name, **options)
        height, width = subject.input_spec.size
        images = torch.rand(self.batch, 3, height, width, generator=generator(self.seed, "noise"))
        device = next(subject.model.parameters()).device
        images = images.to(device)
        wait(device)
        start = time.perf_counter()
        try:
            explainer(subject.model, images, layer=subject.layer_for(method.name), input_spec=subject.input_spec)
        except NotDefinedError:
            return None
        wait(device)
        return 1000 * (time.perf_counter() - start) / self.batch


def _is(name: str, model: LabelledModel, method: TimedMethod, part: Part) -> bool:
    return name.rpartition("/")[0] == model.label and method.label in part.values


def _cell(row: dict[str, Any]) -> str:
    printed = "" if row["printed"] is None else f" ({row['printed']:,.2f})"
    if row["ms"] is None:
        return ("not defined" if row["rounds"] else "…") + printed
    return milliseconds(row["ms"]) + printed
