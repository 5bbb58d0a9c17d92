"""Curves: images whose most relevant squares are replaced, by two maps of each; one by one, and on average."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field, model_validator
from torch import Tensor

from sightline._core.strict import Count, Positive, StrictModel
from sightline.explainers import create_explainer, normalize_maps
from sightline.faithfulness.perturbation import area_under_curve
from sightline.metrics import square_curves
from sightline.reporting.markdown import markdown
from sightline.reporting.overlay import blend
from sightline.reporting.plots.drawing import draw_image, new_figure
from sightline.reporting.plots.style import new_axes, tidy
from sightline.statistics.pairs import paired
from sightline.studies.image_study import DrawnImagesStudy, load_subjects
from sightline.studies.run import default_folder, run_study
from sightline.studies.study import (
    KINDS,
    Done,
    LabelledModel,
    Method,
    Part,
    check_labels,
    check_methods,
    read_study,
)
from sightline.studies.tables import caption, to_bytes

COLORS = ("#334155", "#c2410c")  # of the method that all models share, and of a model's own


class OwnMaps(LabelledModel):
    """A model with the method whose maps are its own.

    Attributes:
        method: The explainer that only this model has.
        part: The part of the study `trained` that makes the weights, which is done where their file is missing.
    """

    method: Method
    part: str | None = None


class TrainedBy(StrictModel):
    """A study whose runs give the models.

    Attributes:
        item: the table that trains them.
        changes: `key.sub=value` each.
    """

    item: str
    changes: list[str] = Field(default_factory=list)


@KINDS.register("curves")
class Curves(DrawnImagesStudy):
    """MoRF curves by the maps of one method and by those that a model makes itself, for the class that it predicts.

    Squares go by the values that a method returns, which are signed with the option `raw`; figures show the positive part.

    Attributes:
        shown: how many of them have a line in the figures.
        batch: images that are explained together.
        models: each with its own maps.
        method: what those are compared with, on every model.
        options: of `sightline.metrics.square_curves`, such as `square` and `repeats`.
        trained: the study of the same paper, and changes of it, whose parts make the models' weights in its own folder.
    """

    kind: Literal["curves"]
    num_images: Positive = 100
    shown: Count = 5
    batch: Positive = 16
    models: Annotated[list[OwnMaps], Field(min_length=1)]
    method: Method
    options: dict[str, Any] = Field(default_factory=dict)
    trained: TrainedBy | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_labels("models", [model.label for model in self.models])
        for model in self.models:
            check_labels("methods", [model.method.label], [self.method.label])
            if model.part is not None and (self.trained is None or model.weights is None):
                raise ValueError(
                    f"models: {model.label} has a part; expected `trained` and the weights that it makes too"
                )
        return self

    def parts(self) -> list[str]:
        """Each method on each model."""
        return [f"{model.label}/{method.label}" for model in self.models for method in self._methods(model)]

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read the images and load the models."""
        check_methods([self.method, *(model.method for model in self.models)])
        selection = self.selection()
        places = selection.draw(self.num_images, self.seed)
        self._train(device)
        subjects = load_subjects(self.models, device, self.seed)

        def work(part: str) -> Part:
            model, method = next(
                (m, way) for m in self.models for way in self._methods(m) if f"{m.label}/{way.label}" == part
            )
            subject = subjects[model.label]
            explainer = create_explainer(method.name, **method.options)
            found: list[tuple[Tensor, Tensor]] = []
            for some in torch.tensor(places).split(self.batch):
                images = selection.read(some.tolist(), subject.input_spec.size[0]).to(device)
                targets = subject.probabilities(images).argmax(1)
                maps = explainer(subject.model, images, targets, subject.layer_for(method.name), subject.input_spec)
                curves = square_curves(
                    subject.model, images, maps, targets, seed=self.seed, indices=some, input_spec=subject.input_spec,
                    **self.options,
                )  # fmt: skip
                found.append((maps.cpu(), curves.cpu()))
            maps, curves = (torch.cat(column) for column in zip(*found))
            pictures = selection.read(places[: self.shown], subject.input_spec.size[0])
            said = [(selection.classes[int(i)], p) for i, p in _say(subject.probabilities(pictures.to(device)))]
            values = {"paths": [selection.path(place) for place in places], "said": said}
            shown = normalize_maps(maps[: self.shown].relu())
            tensors = {"curves": curves, "maps": to_bytes(shown), "images": to_bytes(pictures)}
            return Part(values, tensors)

        return work

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return one row per model, method and image."""
        return [
            {"model": model.label, "method": method.label, "image": path, "area": float(area)}
            for model, method, part in self._done(done)
            for path, area in zip(part.values["paths"], area_under_curve(part.tensors["curves"]))
        ]

    def summary(self, done: Done) -> str:
        """Return the mean areas, and the difference between the two methods on each model."""
        rows = []
        for model in self.models:
            areas = {m.label: area_under_curve(part.tensors["curves"]) for o, m, part in self._done(done) if o is model}
            if len(areas) < 2:
                continue
            shared, own = areas[self.method.label], areas[model.method.label]
            test = paired(own.numpy(), shared.numpy(), self.seed)
            difference = f"{test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f})" if test else "…"
            below = f"{int((own < shared).sum())} of {len(own)}"
            rows.append([model.label, f"{shared.mean():.3f}", f"{own.mean():.3f}", difference, below])
        theirs = " or ".join(dict.fromkeys(model.method.label for model in self.models))
        sections = [
            f"Area under the MoRF curve, mean over {self.num_images} images: the lower, the sooner the predicted class's "
            "probability falls. Differences with their 95 % interval over images."
        ]
        header = ["Model", self.method.label, theirs, "Own minus the other", "Own is lower"]
        sections.append(markdown(header, rows))
        if len(rows) == len(self.models):
            sections.append("![mean curves](mean.png)")
            sections += [f"![{model.label}: images, maps and curves]({_file(model)})" for model in self.models]
        return "\n\n".join(sections)

    def figures(self, done: Done) -> dict[str, Figure]:
        """Draw the mean curves, and for each model some images with both maps and both curves."""
        figure, (panels,) = new_axes(3.2 * len(self.models), 2.8, columns=len(self.models))
        for model, axes in zip(self.models, panels):
            parts = self._pair(model, done)
            _draw(axes, {label: part.tensors["curves"].mean(0) for label, part in parts.items()})
            axes.set(title=model.label, xlabel="share of squares replaced", ylabel="probability")
            axes.legend(fontsize=7, frameon=False)
        pages = {_file(model): self._page(self._pair(model, done)) for model in self.models if self.shown}
        return {"mean.png": figure, **pages}

    def _page(self, parts: dict[str, Part]) -> Figure:
        """Draw one line per image: the image, both maps, both curves."""
        first = next(iter(parts.values()))
        images = first.tensors["images"].float() / 255
        figure = new_figure(len(images), 4)
        grid = figure.subplots(len(images), 4, squeeze=False)
        for number, row in enumerate(grid):
            draw_image(row[0], images[number])
            row[0].set_xlabel(caption(*first.values["said"][number]), fontsize=7)
            for (label, part), axes in zip(parts.items(), row[1:]):
                draw_image(axes, blend(images[number, None], part.tensors["maps"][number, None].float() / 255)[0])
                axes.set_xlabel(f"area {float(area_under_curve(part.tensors['curves'])[number]):.3f}", fontsize=7)
                if not number:
                    axes.set_title(label, fontsize=9)
            _draw(row[3], {label: part.tensors["curves"][number] for label, part in parts.items()})
        grid[0, 3].legend(fontsize=6, frameon=False)
        return figure

    def _train(self, device: torch.device) -> None:
        """Make the weights that are missing, in the folder of the study that has them."""
        parts = [model.part for model in self.models if model.part and not Path(model.weights or "").is_file()]
        if parts and self.trained is not None:
            study = read_study(self.paper, self.trained.item, self.trained.changes)
            run_study(study, default_folder(self.paper, self.trained.item), device=device, only=parts)

    def _methods(self, model: OwnMaps) -> list[Method]:
        return [self.method, model.method]

    def _pair(self, model: OwnMaps, done: Done) -> dict[str, Part]:
        return {method.label: done[f"{model.label}/{method.label}"] for method in self._methods(model)}

    def _done(self, done: Done) -> list[tuple[OwnMaps, Method, Part]]:
        every = [(model, method) for model in self.models for method in self._methods(model)]
        return [(m, way, done[name]) for m, way in every if (name := f"{m.label}/{way.label}") in done]


def _say(probabilities: Tensor) -> list[tuple[int, float]]:
    """Return the most likely class of each image, and its probability."""
    best = probabilities.max(1)
    return [(int(index), float(value)) for value, index in zip(best.values, best.indices)]


def _draw(axes: Axes, curves: dict[str, Tensor]) -> None:
    for (label, curve), color in zip(curves.items(), COLORS):
        axes.plot(torch.linspace(0, 1, len(curve)), curve, color=color, lw=1.2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1)
    tidy(axes, ticks=6)


def _file(model: OwnMaps) -> str:
    return f"{''.join(c if c.isalnum() else '-' for c in model.label).lower()}.png"
