"""What studies share that explain images by given models, and what those share that draw figures of one image."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import BeforeValidator, Field
from torch import Tensor

from sightline._core.strict import Positive, name_or_mapping
from sightline.reporting.plots.drawing import draw_image, new_figure
from sightline.runs.recipe_parts import Data
from sightline.studies.image_selection import ImageChoice, ImageSelection, Place
from sightline.studies.study import AnyModel, Done, LabelledModel, Part, Study, scale_count
from sightline.studies.subject import Subject, load_subject
from sightline.studies.tables import caption, in_brackets, to_bytes

Images = dict[str, Tensor]
Maker = Callable[[Subject, Tensor, str], tuple[Images, dict[str, Any]]]
"""From a subject, an image (1, 3, H, W) and its path to further images and to values."""


class ImageStudy(Study):
    """A study of images from a dataset.

    Attributes:
        data: where the images come from; null where only files are named.
        split: which of its splits; null = the test images.
    """

    data: Annotated[Data | None, BeforeValidator(name_or_mapping)] = None
    split: str | None = None

    def selection(self) -> ImageSelection:
        """Return the images to choose from; the dataset opens at the first look-up."""
        return ImageSelection(self.data, self.called, self.split)


class DrawnImagesStudy(ImageStudy):
    """A study of drawn images.

    Attributes:
        num_images: how many images are drawn.
    """

    num_images: Positive

    def scaled(self, scale: float) -> Self:
        """Fewer images."""
        return self.model_copy(update={"num_images": scale_count(self.num_images, scale)})


class OneImageStudy(ImageStudy):
    """A study that makes further images from one image, and draws all of them.

    Attributes:
        image: its place, its class (the first image of it) or its file; null draws one.
        model: what is explained, for the class that it predicts.
        paper_values: value -> the paper's figure.
    """

    part: ClassVar[str]

    image: ImageChoice | None = None
    model: AnyModel
    paper_values: dict[str, float] = Field(default_factory=dict)

    def parts(self) -> list[str]:
        """All images at once."""
        return [self.part]

    def scaled(self, scale: float) -> Self:
        """Return the study unchanged: it has one image."""
        return self

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read the image and load the model."""
        make = self.maker()
        selection = self.selection()
        place: Place = selection.draw(1, self.seed)[0] if self.image is None else selection.find(self.image)
        subject = load_subject(self.model, device, self.seed)
        image = selection.read([place], subject.input_spec.size[0]).to(device)

        def work(part: str) -> Part:
            images, values = make(subject, image, selection.path(place))
            return Part(values, {name: to_bytes(each[0]) for name, each in images.items()})

        return work

    @abstractmethod
    def maker(self) -> Maker:
        """Check the study's keys, and return what makes the images and values."""

    @abstractmethod
    def words(self, values: dict[str, Any]) -> str:
        """Return what the report says under the figure."""

    def table(self, done: Done) -> list[dict[str, Any]]:
        """One row: the image and its values."""
        printed = {f"printed_{key}": value for key, value in self.paper_values.items()}
        return [
            {key: value for key, value in part.values.items() if key not in ("curve", "said", "pictures")} | printed
            for part in done.values()
        ]

    def summary(self, done: Done) -> str:
        """Return the figure, and what it shows."""
        if self.part not in done:
            return ""
        model = f"`{self.model.name}` (weights: {self.model.weights or 'random'})"
        values = done[self.part].values
        values_of_paper = [
            f"{key} {values[key]:.4f}{in_brackets(printed)}" for key, printed in self.paper_values.items()
        ]
        told = f"\n\nIn square brackets the paper's figures: {', '.join(values_of_paper)}." if values_of_paper else ""
        return f"![{self.figure_text()}](figure.png)\n\n{model}{self.words(values)}{told}"

    def figure_text(self) -> str:
        """Return the alternative text of the figure."""
        return self.title

    def draw(self, part: Part, titles: dict[str, str], lines: int) -> tuple[Figure, Sequence[Axes]]:
        """Draw images under their titles, four in a line, with what the model says about them."""
        figure = new_figure(lines, 4)
        axes = figure.subplots(lines, 4).flatten()
        for (name, title), place in zip(titles.items(), axes):
            draw_image(place, part.tensors[name].float() / 255)
            place.set_title(title, fontsize=9)
            if name in part.values["said"]:
                place.set_xlabel(caption(*part.values["said"][name]), fontsize=7)
        return figure, list(axes)


def load_subjects(models: Sequence[LabelledModel], device: torch.device, seed: int) -> dict[str, Subject]:
    """Load a study's models, by label."""
    return {model.label: load_subject(model, device, seed, f"models.{place}") for place, model in enumerate(models)}
