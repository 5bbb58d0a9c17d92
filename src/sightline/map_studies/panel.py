"""Panels: images next to their maps by several methods or several models."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from sightline._core.strict import Positive, name_or_mapping
from sightline.errors import NotDefinedError
from sightline.explainers import create_explainer
from sightline.faithfulness.explanation_image import explanation_images
from sightline.metrics import average_drop
from sightline.network.features import ClassFeatures, class_features
from sightline.reporting.markdown import markdown
from sightline.reporting.overlay import Overlay, show
from sightline.reporting.plots.drawing import draw_overlay, new_figure
from sightline.studies.image_selection import ImageChoice
from sightline.studies.image_study import ImageStudy
from sightline.studies.study import (
    KINDS,
    AnyModel,
    Done,
    Method,
    Part,
    SizedModel,
    check_labels,
    check_methods,
    scale_count,
)
from sightline.studies.subject import load_subject
from sightline.studies.tables import caption, in_brackets, to_bytes

TOGETHER = 5  # images of one part: what an interrupted study can lose
LONGEST = 6  # tiles of one image in one line
PICTURES = "pictures"  # the part with the images and the models' predictions


class Column(Method):
    """A method, and what it explains.

    Attributes:
        model: null takes the panel's.
        features: the target of LOTS where it comes from images: `reference`: the panel's reference image; `class`: one training
            image of the class; `mean`: the mean of its training images. Null leaves the target to the options.
    """

    features: Literal["reference", "class", "mean"] | None = None
    model: Annotated[SizedModel | None, BeforeValidator(name_or_mapping)] = None


@KINDS.register("panel")
class Panel(ImageStudy):
    """Images next to their maps: rows of images, columns of methods.

    Attributes:
        images: places, classes (their first image) or files; null draws `num_images` of them.
        num_images: how many are drawn where `images` is null.
        reference: another image of what the images show, told likewise; null draws one of each image's class.
        model: what is explained, for the class that it predicts.
        columns: methods.
        abreast: how many images stand side by side.
        paper_values: the paper's values of the first image: `image` -> `probability`, and column -> `drop`, the share of the
            probability that is lost when the image is seen through the map. Those of columns that do not exist are left out.
    """

    kind: Literal["panel"]
    images: list[ImageChoice] | None = None
    num_images: Positive = 5
    reference: ImageChoice | None = None
    model: AnyModel
    columns: Annotated[list[Column], Field(min_length=1)]
    abreast: Positive = 1
    paper_values: dict[str, dict[Literal["probability", "drop"], float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_labels("columns", [column.label for column in self.columns], taken=("image", "reference"))
        for label, printed in self.paper_values.items():
            if [*printed] != ["probability" if label == "image" else "drop"]:
                raise ValueError(
                    f"paper_values.{label} is {printed}; expected image: {{probability: ...}} or COLUMN: {{drop: ...}}"
                )
        return self

    def parts(self) -> list[str]:
        """Return the parts: the images, then every column, some images at a time."""
        starts = range(0, self._number(), TOGETHER)
        return [PICTURES, *(f"{column.label}/{start}" for column in self.columns for start in starts)]

    def scaled(self, scale: float) -> Self:
        """Return the study with the first of the images, or fewer drawn ones."""
        number = scale_count(self._number(), scale)
        return self.model_copy(update={"images": self.images and self.images[:number], "num_images": number})

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Open the data and load the models."""
        worker = _Worker(self, device)
        return lambda part: worker.pictures() if part == PICTURES else worker.maps(*_split(part))

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return one row per image and column: what was explained."""
        if PICTURES not in done:
            return []
        return [
            {"image": place, "label": label, "method": column.label, "model": self._model(column).name}
            | dict(zip(("predicted", "probability"), done[PICTURES].values["said"][self._model(column).name][row]))
            | {"drop": self._drop(column, row, done)}
            for row, (place, label) in enumerate(zip(done[PICTURES].values["paths"], done[PICTURES].values["labels"]))
            for column in self.columns
        ]

    def summary(self, done: Done) -> str:
        """Return the panel, the models, and the methods that are not defined for them."""
        models = {self._model(column).name: self._model(column) for column in self.columns}
        told = [f"`{model.name}` (weights: {model.weights or 'random'})" for model in models.values()]
        missing = {
            _split(name)[0]: part.values["not_defined"] for name, part in done.items() if "not_defined" in part.values
        }
        return "\n\n".join(
            [
                *([f"![{self.title}](figure.png)"] if set(self.parts()) <= set(done) else []),
                f"{self._number()} images, explained for the class that the model predicts: {', '.join(told)}.",
                *(f"{label} is not defined for this model: {why}" for label, why in missing.items()),
                *self._beside_the_paper(done),
            ]
        )

    def figures(self, done: Done) -> dict[str, Figure]:
        """Draw the panel."""
        images = done[PICTURES].tensors["images"].float() / 255
        starts = range(0, len(images), TOGETHER)
        maps: dict[str, Tensor | None] = {}
        for column in self.columns:
            parts = [done[f"{column.label}/{start}"] for start in starts]
            if any("not_defined" in part.values for part in parts):
                maps[column.label] = None
            else:
                maps[column.label] = torch.cat([part.tensors["maps"] for part in parts]).float() / 255
        overlay = show(images, maps)
        if "references" in done[PICTURES].tensors:
            references = done[PICTURES].tensors["references"].float() / 255
            overlay = replace(overlay, overlays={"reference": references, **overlay.overlays})
        columns = list(overlay.overlays)
        said = done[PICTURES].values["said"]
        captions = {0: said[self.model.name]} | {
            1 + columns.index(column.label): said[column.model.name]
            for column in self.columns
            if column.model is not None
        }
        texts = {place: [caption(*each) for each in saying] for place, saying in captions.items()}
        return {"figure.png": draw(overlay, texts, self.abreast)}

    def _drop(self, column: Column, row: int, done: Done) -> float | None:
        """Return the drop of an image's probability under a column's map; None if the map is not made yet, or not defined."""
        start = row // TOGETHER * TOGETHER
        part = done.get(f"{column.label}/{start}")
        return None if part is None or "drops" not in part.values else part.values["drops"][row - start]

    def _beside_the_paper(self, done: Done) -> list[str]:
        """Our values of the first image next to the paper's."""
        if not self.paper_values or PICTURES not in done:
            return []
        columns = {column.label: column for column in self.columns}
        rows = []
        for label, printed in self.paper_values.items():
            ((what, figure),) = printed.items()
            if label == "image":
                ours: float | None = done[PICTURES].values["said"][self.model.name][0][1]
            elif label in columns:
                ours = self._drop(columns[label], 0, done)
            else:
                continue
            rows.append([label, what, ("…" if ours is None else f"{ours:.4f}") + in_brackets(figure)])
        return ["The first image; in square brackets the paper's figures.", markdown(["", "", "value"], rows)]

    def _number(self) -> int:
        return self.num_images if self.images is None else len(self.images)

    def _model(self, column: Column) -> SizedModel:
        return column.model or self.model


def draw(overlay: Overlay, captions: dict[int, list[str]], abreast: int) -> Figure:
    """Draw an overlay's rows, several of them side by side; a single long row is folded in two.

    Args:
        overlay: images and maps.
        captions: column -> a text under each of its images.
        abreast: images in a line.
    """
    count, width = len(overlay.images), 1 + len(overlay.overlays)
    if count == 1:
        lines = 1 if width <= LONGEST else 2
        across = math.ceil(width / lines)
        figure = new_figure(lines, across)
        _fill(figure.subplots(lines, across, squeeze=False).reshape(1, -1), overlay, captions)
        return figure
    lines = math.ceil(count / abreast)
    figure = new_figure(lines, width * abreast)
    for block, part in enumerate(figure.subfigures(1, abreast, squeeze=False, wspace=0.03)[0]):
        rows = slice(block * lines, (block + 1) * lines)
        overlays = {name: None if each is None else each[rows] for name, each in overlay.overlays.items()}
        some = Overlay(overlay.images[rows], overlays, [])
        texts = {column: each[rows] for column, each in captions.items()}
        _fill(part.subplots(lines, width, squeeze=False), some, texts)
    return figure


def _fill(axes: NDArray[np.object_], overlay: Overlay, captions: dict[int, list[str]]) -> None:
    """Draw an overlay onto a grid of at least its size, and leave the rest empty."""
    count, width = len(overlay.images), 1 + len(overlay.overlays)
    if count:
        draw_overlay(overlay, axes)
    for row in range(count):
        for column, texts in captions.items():
            axes[row, column].set_xlabel(texts[row], fontsize=7)
    for empty in [*axes[count:].flat, *axes[:, width:].flat]:
        empty.set_axis_off()


class _Worker:
    """A panel's images and models, loaded once."""

    def __init__(self, panel: Panel, device: torch.device) -> None:
        check_methods(panel.columns)
        self.panel, self.device = panel, device
        self.selection = panel.selection()
        if panel.images is None:
            self.places = self.selection.draw(panel.num_images, panel.seed)
        else:
            self.places = [self.selection.find(choice) for choice in panel.images]
        self.labels: Tensor | None = None
        if self._wants("class", "mean"):
            self.labels = torch.tensor([self.selection.class_of(place) for place in self.places])
            self.selection.check_training()
        self.subjects = {panel.model.name: load_subject(panel.model, device, panel.seed)}
        for place, column in enumerate(panel.columns):
            if column.model is not None and column.model.name not in self.subjects:
                subject = load_subject(column.model, device, panel.seed, f"columns.{place}.model")
                self.subjects[column.model.name] = subject
        self.columns = {column.label: column for column in panel.columns}
        side = self.subjects[panel.model.name].input_spec.size[0]
        self.images = self.selection.read(self.places, side)
        self.references: Tensor | None = None
        if self._wants("reference"):
            if panel.reference is None:
                others = [self.selection.another(place, panel.seed) for place in self.places]
            else:
                others = [self.selection.find(panel.reference)] * len(self.places)
            self.references = self.selection.read(others, side)
        self.known: dict[str, ClassFeatures] = {}

    def pictures(self) -> Part:
        """Return the images, their sources, and each model's answers."""
        images = self.images.to(self.device)
        values = {
            "paths": [self.selection.path(place) for place in self.places],
            "labels": [self.selection.label(place) for place in self.places],
            "said": {name: subject.say(images) for name, subject in self.subjects.items()},
        }
        tensors = {"images": to_bytes(self.images)}
        return Part(values, tensors if self.references is None else tensors | {"references": to_bytes(self.references)})

    def maps(self, label: str, start: int) -> Part:
        """Return the maps of some images by one column's method."""
        column = self.columns[label]
        name = (column.model or self.panel.model).name
        subject = self.subjects[name]
        rows = slice(start, start + TOGETHER)
        images = self.images[rows].to(self.device)
        options, targets = dict(column.options), None
        if column.features == "reference" and self.references is not None:
            options["target"] = self.references[rows].to(self.device)
        elif column.features is not None and self.labels is not None:
            options |= {"target": column.features, "class_features": self._class_features(name, self.labels)}
            targets = self.labels[rows].to(self.device)
        explainer = create_explainer(column.name, **options)
        try:
            maps = explainer(subject.model, images, targets, subject.layer_for(column.name), subject.input_spec)
        except NotDefinedError as error:
            return Part({"not_defined": str(error)})
        clean, explained = (subject.probabilities(each) for each in (images, explanation_images(images, maps)))
        predicted = clean.argmax(1, keepdim=True)
        drops = average_drop(*(each.gather(1, predicted)[:, 0] for each in (clean, explained)))
        return Part({"drops": drops.tolist()}, {"maps": to_bytes(maps)})

    def _wants(self, *features: str) -> bool:
        return any(column.features in features for column in self.panel.columns)

    def _class_features(self, name: str, labels: Tensor) -> ClassFeatures:
        """Return the model's features of the classes that the panel shows, from their training images."""
        if name not in self.known:
            subject = self.subjects[name]
            batches = self.selection.training(labels, subject.input_spec.size[0])
            self.known[name] = class_features(
                subject.model, batches, input_spec=subject.input_spec, seed=self.panel.seed
            )
        return self.known[name]


def _split(part: str) -> tuple[str, int]:
    label, _, start = part.rpartition("/")
    return label, int(start)
