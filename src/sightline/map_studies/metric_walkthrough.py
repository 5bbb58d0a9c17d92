"""One image taken through a metric, step by step."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import model_validator
from torch import Tensor

from sightline._core.fills import filled
from sightline.explainers import create_explainer
from sightline.faithfulness.explanation_image import explanation_images
from sightline.faithfulness.perturbation import Curve, area_under_curve, ranks_of
from sightline.metrics import coherency, perturbation_curves
from sightline.reporting.formatting import title
from sightline.reporting.overlay import blend
from sightline.studies.image_study import Images, Maker, OneImageStudy
from sightline.studies.lines import tidy
from sightline.studies.study import KINDS, Done, Method, check_methods
from sightline.studies.subject import Subject

VALUES = {"confidence": ("before", "after"), "coherency": ("coherency",), "insertion": ("area",), "deletion": ("area",)}
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)  # of the pixels, where insertion and deletion are shown


@KINDS.register("metric_walkthrough")
class MetricWalkthrough(OneImageStudy):
    """What a metric does with one image and its map.

    Attributes:
        method: whose map is measured.
        metric: the drop or increase of the confidence, `coherency`, `insertion` or `deletion`.
    """

    part: ClassVar[str] = "walk"

    kind: Literal["metric_walkthrough"]
    method: Method
    metric: Literal["confidence", "coherency", "insertion", "deletion"]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in self.paper_values:
            if key not in VALUES[self.metric]:
                raise ValueError(
                    f"paper_values: {key} is not a value of {self.metric}; expected {', '.join(VALUES[self.metric])}"
                )
        return self

    def maker(self) -> Maker:
        """Explain the image, and follow the metric."""
        check_methods([self.method])
        explainer = create_explainer(self.method.name, **self.method.options)
        follow = {"confidence": _confidence, "coherency": _coherency}.get(self.metric, _curve)

        def make(subject: Subject, image: Tensor, path: str) -> tuple[Images, dict[str, Any]]:
            target = subject.probabilities(image).argmax(1)
            layer = subject.layer_for(self.method.name)

            def explain(images: Tensor) -> Tensor:
                return explainer(subject.model, images, target, layer, subject.input_spec)

            images, values = follow(self.metric, subject, image, explain)
            return images, values | {"image": path, "class": subject.names[int(target)], "pictures": list(images)}

        return make

    def words(self, values: dict[str, Any]) -> str:
        """Return the method, the class and the value in words."""
        return f", {self.method.label} for the class {values['class']!r}. {values['words']}"

    def figures(self, done: Done) -> dict[str, Figure]:
        """Draw the images, four in a line, and the curve if there is one."""
        part = done[self.part]
        curve = part.values.get("curve")
        titles = {name: name for name in part.values["pictures"]}
        figure, axes = self.draw(part, titles, 1 if curve is None else 2)
        if curve is not None:
            _draw_curve(axes[-1], curve, self.metric)
        return {"figure.png": figure}


def _confidence(
    metric: str, subject: Subject, image: Tensor, explain: Callable[[Tensor], Tensor]
) -> tuple[Images, dict[str, Any]]:
    """Thesis, section 3.3: the class's probability on the image and on its explanation image."""
    maps = explain(image)
    explanation = explanation_images(image, maps)
    likely = subject.probabilities(image)
    target = likely.argmax(1)
    before, after = float(likely[0, target]), float(subject.probabilities(explanation)[0, target])
    words = f"The class's probability goes from {before:.2%} to {after:.2%} on the explanation image: "
    words += f"a drop of {(before - after) / before:.2%}." if after <= before else "an increase in confidence."
    name = subject.names[int(target)]
    images = {
        "image": image, "activation map": maps[:, None], "heat map": blend(image, maps), "explanation image": explanation,
    }  # fmt: skip
    said = {"image": (name, before), "explanation image": (name, after)}
    return images, {"before": before, "after": after, "said": said, "words": words}


def _coherency(
    metric: str, subject: Subject, image: Tensor, explain: Callable[[Tensor], Tensor]
) -> tuple[Images, dict[str, Any]]:
    """Thesis, section 3.3: the map of the image and the map of its explanation image."""
    maps = explain(image)
    explanation = explanation_images(image, maps)
    again = explain(explanation)
    value = float(coherency(maps, again))
    images = {
        "image": image, "activation map": maps[:, None], "explanation image": explanation, "its activation map": again[:, None],
    }  # fmt: skip
    said = {"image": subject.say(image)[0], "explanation image": subject.say(explanation)[0]}
    return images, {"coherency": value, "said": said, "words": f"Coherency is {value:.2%}."}


def _curve(
    metric: str, subject: Subject, image: Tensor, explain: Callable[[Tensor], Tensor]
) -> tuple[Images, dict[str, Any]]:
    """Thesis, section 3.3: the highest probability while pixels are put in, or taken out, from the highest value down."""
    maps = explain(image)
    kinds: tuple[Curve, ...] = ("insertion",) if metric == "insertion" else ("deletion",)
    curves = perturbation_curves(subject.model, image, maps, score="max", curves=kinds, input_spec=subject.input_spec)
    curve = curves[metric]
    ranks, nothing = ranks_of(maps)[:, None], filled(image, "blur")
    first, second = (image, nothing) if metric == "insertion" else (nothing, image)
    frames = {f"{share:.0%}": torch.where(ranks < share * ranks[0].numel(), first, second) for share in SHARES}
    area = float(area_under_curve(curve))
    words = f"The area under the curve of the highest probability is {area:.2%}."
    said = {name: subject.say(frame)[0] for name, frame in frames.items()}
    images = {"image": image, "activation map": maps[:, None], **frames}
    return images, {"area": area, "curve": curve[0].tolist(), "said": said, "words": words}


def _draw_curve(axes: Axes, curve: list[float], metric: str) -> None:
    shares = [step / (len(curve) - 1) for step in range(len(curve))]
    axes.plot(shares, curve, color="#c2410c", lw=1.2)
    axes.fill_between(shares, curve, color="#c2410c", alpha=0.15, lw=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1)
    tidy(axes, title=title(metric), ticks=6)
    axes.set_xlabel("share of pixels put in" if metric == "insertion" else "share of pixels taken out", fontsize=7)
