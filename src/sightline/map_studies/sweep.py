"""Sweeps: what a method's options do to its time and to the metrics of its maps."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from matplotlib.figure import Figure
from pydantic import Field, model_validator
from torch import Tensor, nn

from sightline._core.strict import Positive
from sightline.data import Batch
from sightline.evaluation import evaluate_model
from sightline.explainers import Explainer, create_explainer
from sightline.metrics import METRICS
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.targets import Targets
from sightline.reporting.formatting import title
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.style import new_axes, tidy
from sightline.studies.image_study import DrawnImagesStudy
from sightline.studies.study import KINDS, AnyModel, Done, Method, Part, check_methods
from sightline.studies.subject import load_subject
from sightline.studies.tables import milliseconds, wait


@KINDS.register("sweep")
class Sweep(DrawnImagesStudy):
    """A method's options, changed one at a time, against time and metrics.

    Attributes:
        batch: images that are explained together.
        model: what is explained, for the class that it predicts.
        method: the method, with the options that stay while one of them changes.
        axes: option -> its values.
        metrics: metric -> its options.
    """

    kind: Literal["sweep"]
    batch: Positive = 8
    model: AnyModel
    method: Method
    axes: Annotated[dict[str, list[Any]], Field(min_length=1)]
    metrics: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for axis, values in self.axes.items():
            if axis not in self.method.options:
                raise ValueError(f"axes.{axis}: method.options has no {axis!r}, which it keeps while others change")
            if not values or not all(isinstance(value, int | float) for value in values):
                raise ValueError(f"axes.{axis} is {values!r}; expected numbers")
        return self

    def parts(self) -> list[str]:
        """Return the settings, each once."""
        return list(self._settings())

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Open the data and load the model."""
        for name in self.metrics:
            METRICS[name]
        settings = self._settings()
        check_methods(self.method.model_copy(update={"options": options}) for options in settings.values())
        selection = self.selection()
        places = selection.draw(self.num_images, self.seed)
        subject = load_subject(self.model, device, self.seed)
        images = selection.read(places, subject.input_spec.size[0])
        labels = selection.held_out.labels[torch.tensor(places)]
        batches = [Batch(i, k) for i, k in zip(images.split(self.batch), labels.split(self.batch))]
        subject.say(batches[0].images.to(device))  # the first call of a model is slower, and no setting's own

        def work(part: str) -> Part:
            timed = _Timed(create_explainer(self.method.name, **settings[part]))
            found = evaluate_model(
                subject.model,
                batches,
                {self.method.name: timed},
                self.metrics,
                input_spec=subject.input_spec,
                layer=subject.layer_for(self.method.name),
                seed=self.seed,
            )
            figures = {r.metric: {"value": r.value, "low": r.low, "high": r.high, "n": r.n} for r in found.results}
            return Part({"ms": 1000 * timed.seconds / timed.images, "metrics": figures})

        return work

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return one row per setting."""
        return [
            options
            | {"ms": done[name].values["ms"], "n": self.num_images}
            | {
                key if end == "value" else f"{key}_{end}": figure[end]
                for key, figure in done[name].values["metrics"].items()
                for end in ("value", "low", "high")
            }
            for name, options in self._settings().items()
            if name in done
        ]

    def summary(self, done: Done) -> str:
        """Return one table per changed option, with the other options at the method's values."""
        fixed = ", ".join(f"{key} = {_text(value)}" for key, value in self.method.options.items())
        sections = [
            f"{self.method.label} on {self.model.name}, {self.num_images} images, {self.batch} at a time; one option "
            f"changes, the others stay ({fixed}). "
            "Time is that of all maps made, those of explanation images included."
        ]
        if set(self.parts()) <= set(done):
            sections.append("![time and metrics by option](figure.png)")
        for axis, values in self.axes.items():
            rows = [
                [_text(value), milliseconds(part.values["ms"]), *(_figure(part, metric) for metric in self.metrics)]
                for value in values
                if (part := done.get(self._name({axis: value}))) is not None
            ]
            sections.append(markdown([axis, "ms an image", *map(title, self.metrics)], rows))
        return "\n\n".join(sections)

    def figures(self, done: Done) -> dict[str, Figure]:
        """Small multiples: a column an option, a row for the time and for each metric."""
        measures = ["ms", *self.metrics]
        width, height = 2.6 * len(self.axes) + 0.6, 1.35 * len(measures) + 0.4
        figure, grid = new_axes(width, height, rows=len(measures), columns=len(self.axes), sharex="col", sharey="row")
        for column, (axis, values) in enumerate(self.axes.items()):
            parts = [done[self._name({axis: value})] for value in values]
            numbers = [float(value) for value in values]
            spread = min(numbers) > 0 and max(numbers) / min(numbers) >= 8
            for row, measure in enumerate(measures):
                axes = grid[row, column]
                if measure == "ms":
                    axes.plot(numbers, [part.values["ms"] / 1000 for part in parts], "o-", color="#334155", ms=3, lw=1)
                    axes.set_ylim(bottom=0)
                elif all(measure in part.values["metrics"] for part in parts):
                    found = [part.values["metrics"][measure] for part in parts]
                    axes.fill_between(
                        numbers,
                        [f["low"] for f in found],
                        [f["high"] for f in found],
                        color="#c2410c",
                        alpha=0.15,
                        lw=0,
                    )
                    axes.plot(numbers, [f["value"] for f in found], "o-", color="#c2410c", ms=3, lw=1)
                if spread:
                    axes.set_xscale("log")
                    axes.minorticks_off()
                axes.set_xticks(numbers, [f"{number:.2g}" for number in numbers], rotation=45)
                tidy(axes)
                axes.axvline(float(self.method.options[axis]), color="#94a3b8", lw=0.6, ls=":", zorder=0)
                if column == 0:
                    axes.set_ylabel("seconds\nan image" if measure == "ms" else title(measure), fontsize=8)
            grid[-1, column].set_xlabel(axis, fontsize=8)
        figure.align_ylabels()
        return {"figure.png": figure}

    def _settings(self) -> dict[str, dict[str, Any]]:
        """Return the method's options by the name of the setting."""
        changes = [{axis: value} for axis, values in self.axes.items() for value in values]
        return {self._name(change): {**self.method.options, **change} for change in changes}

    def _name(self, change: dict[str, Any]) -> str:
        options = {**self.method.options, **change}
        return " ".join(f"{axis}={_text(options[axis])}" for axis in self.axes)


class _Timed(Explainer):
    """An explainer that counts its images and the seconds it takes."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer
        self.images = 0
        self.seconds = 0.0

    def explain_images(
        self, model: nn.Module, images: Tensor, targets: Targets, layer: LayerSelection, input_spec: InputSpec | None
    ) -> Tensor:
        """Return the maps of the explainer, and time them."""
        wait(images.device)
        start = time.perf_counter()
        maps = self.explainer(model, images, targets, layer, input_spec)
        wait(images.device)
        self.seconds += time.perf_counter() - start
        self.images += len(images)
        return maps

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return the maps of the explainer, for inputs as the model takes them."""
        return self.explain_images(model, inputs, targets, layer, None)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _figure(part: Part, metric: str) -> str:
    """Format a value with its interval; a dash if it is not defined."""
    found = part.values["metrics"].get(metric)
    if found is None or math.isnan(found["value"]):
        return "–"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
