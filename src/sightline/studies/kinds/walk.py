"""Walks: one image taken through a metric, step by step."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import BeforeValidator
from torch import Tensor

from sightline._core.fills import filled
from sightline._core.strict import named
from sightline.explainers import create_explainer
from sightline.metrics import coherency, perturbation_curves
from sightline.metrics.explanation_image import explanation_images
from sightline.metrics.perturbation import area_under_curve, ranks_of
from sightline.reporting.formatting import title
from sightline.reporting.overlay import blend
from sightline.reporting.plots import draw_image, new_figure
from sightline.studies.image_selection import ImageChoice, ImageSelection
from sightline.studies.study import KINDS, AnyModel, Done, Method, Part, Study, check_methods
from sightline.studies.subject import Subject, load_subject
from sightline.studies.tables import caption, to_bytes
from sightline.training.recipe import Data

PART = "walk"
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)  # of the pixels, where insertion and deletion are pictured
Pictures = dict[str, Tensor]


@KINDS.register("walk")
class Walk(Study):
    """What a metric does with one image and its map.

    Attributes:
        data: where the image comes from; needed unless `image` names a file.
        image: its place, its class (the first one of it) or its file; null draws one.
        model: what is explained, for the class that it predicts.
        method: whose map is judged.
        metric: the drop or increase of the confidence, `coherency`, `insertion` or `deletion`.
    """

    kind: Literal["walk"]
    data: Annotated[Data | None, BeforeValidator(named)] = None
    image: ImageChoice | None = None
    model: AnyModel
    method: Method
    metric: Literal["confidence", "coherency", "insertion", "deletion"]

    def parts(self) -> list[str]:
        """All at once."""
        return [PART]

    def scaled(self, scale: float) -> Self:
        """The same: there is one image."""
        return self

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read the image and load the model."""
        check_methods([self.method])
        explainer = create_explainer(self.method.name, **self.method.options)
        selection = ImageSelection(self.data, self.called)
        place = selection.draw(1, self.seed)[0] if self.image is None else selection.find(self.image)
        subject = load_subject(self.model, device, self.seed)
        image = selection.read([place], subject.spec.size[0]).to(device)
        layer = subject.layer_for(self.method.name)
        walk = {"confidence": _confidence, "coherency": _coherency}.get(self.metric, _curve)

        def work(part: str) -> Part:
            target = subject.probabilities(image).argmax(1)

            def explain(images: Tensor) -> Tensor:
                return explainer(subject.model, images, target, layer, subject.spec)

            pictures, values = walk(self.metric, subject, image, explain)
            values |= {
                "image": selection.path(place),
                "class": subject.classes[int(target)],
                "pictures": list(pictures),
            }
            return Part(values, {name: to_bytes(picture[0]) for name, picture in pictures.items()})

        return work

    def table(self, done: Done) -> list[dict[str, Any]]:
        """One row: the image and its value."""
        return [
            {key: value for key, value in part.values.items() if key not in ("curve", "said", "pictures")}
            for part in done.values()
        ]

    def summary(self, done: Done) -> str:
        """The picture, and the value in words."""
        if PART not in done:
            return ""
        values = done[PART].values
        return (
            f"![{self.title}](figure.png)\n\n`{self.model.name}` (weights: {self.model.weights or 'random'}), "
            f"{self.method.label} for the class {values['class']!r}. {values['words']}"
        )

    def figures(self, done: Done) -> dict[str, Figure]:
        """The pictures, four in a line, and the curve where there is one."""
        part = done[PART]
        curve = part.values.get("curve")
        lines = 1 if curve is None else 2
        figure = new_figure(lines, 4)
        axes = figure.subplots(lines, 4).flatten()
        for name, place in zip(part.values["pictures"], axes):
            draw_image(place, part.tensors[name].float() / 255)
            place.set_title(name, fontsize=9)
            if name in part.values["said"]:
                place.set_xlabel(caption(*part.values["said"][name]), fontsize=7)
        if curve is not None:
            _draw_curve(axes[-1], curve, self.metric)
        return {"figure.png": figure}


def _confidence(
    metric: str, subject: Subject, image: Tensor, explain: Callable[[Tensor], Tensor]
) -> tuple[Pictures, dict[str, Any]]:
    """Thesis, section 3.3: the class's probability on the image and on its explanation image."""
    maps = explain(image)
    explanation = explanation_images(image, maps)
    likely = subject.probabilities(image)
    target = likely.argmax(1)
    before, after = float(likely[0, target]), float(subject.probabilities(explanation)[0, target])
    words = f"The class's probability goes from {before:.2%} to {after:.2%} on the explanation image: "
    words += f"a drop of {(before - after) / before:.2%}." if after <= before else "an increase in confidence."
    name = subject.classes[int(target)]
    pictures = {
        "image": image, "activation map": maps[:, None], "heat map": blend(image, maps), "explanation image": explanation,
    }  # fmt: skip
    said = {"image": (name, before), "explanation image": (name, after)}
    return pictures, {"before": before, "after": after, "said": said, "words": words}


def _coherency(
    metric: str, subject: Subject, image: Tensor, explain: Callable[[Tensor], Tensor]
) -> tuple[Pictures, dict[str, Any]]:
    """Thesis, section 3.3: the map of the image and the map of its explanation image."""
    maps = explain(image)
    explanation = explanation_images(image, maps)
    again = explain(explanation)
    value = float(coherency(maps, again))
    pictures = {
        "image": image, "activation map": maps[:, None], "explanation image": explanation, "its activation map": again[:, None],
    }  # fmt: skip
    said = {"image": subject.say(image)[0], "explanation image": subject.say(explanation)[0]}
    return pictures, {"coherency": value, "said": said, "words": f"Coherency is {value:.2%}."}


def _curve(
    metric: str, subject: Subject, image: Tensor, explain: Callable[[Tensor], Tensor]
) -> tuple[Pictures, dict[str, Any]]:
    """Thesis, section 3.3: the highest probability while pixels are put in, or taken out, from the highest value down."""
    maps = explain(image)
    kinds = ("insertion",) if metric == "insertion" else ("deletion",)
    curve = perturbation_curves(subject.model, image, maps, score="max", curves=kinds, input_spec=subject.spec)[metric]  # type: ignore[arg-type]
    ranks, nothing = ranks_of(maps)[:, None], filled(image, "blur")
    first, second = (image, nothing) if metric == "insertion" else (nothing, image)
    frames = {f"{share:.0%}": torch.where(ranks < share * ranks[0].numel(), first, second) for share in SHARES}
    area = float(area_under_curve(curve))
    words = f"The area under the curve of the highest probability is {area:.2%}."
    said = {name: subject.say(frame)[0] for name, frame in frames.items()}
    pictures = {"image": image, "activation map": maps[:, None], **frames}
    return pictures, {"area": area, "curve": curve[0].tolist(), "said": said, "words": words}


def _draw_curve(axes: Axes, curve: list[float], metric: str) -> None:
    shares = [step / (len(curve) - 1) for step in range(len(curve))]
    axes.plot(shares, curve, color="#c2410c", lw=1.2)
    axes.fill_between(shares, curve, color="#c2410c", alpha=0.15, lw=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1)
    axes.tick_params(labelsize=6)
    axes.set_title(title(metric), fontsize=9)
    axes.set_xlabel("share of pixels put in" if metric == "insertion" else "share of pixels taken out", fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
