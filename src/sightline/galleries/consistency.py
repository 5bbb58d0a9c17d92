"""The images with the most and the least consistent explanations of a trained model, and their attacked versions."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import torch
from matplotlib.figure import Figure
from pydantic import model_validator
from torch import Tensor

from sightline._core.strict import Positive, Real
from sightline.attacks.consistency import Distance, Perturbation, Psi
from sightline.data import Batch
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.explainers import create_explainer
from sightline.metrics import disturbed_images, explanation_consistency
from sightline.reporting.overlay import blend
from sightline.reporting.plots.drawing import draw_image, new_figure
from sightline.runs import read_recipe
from sightline.studies.recipes import RecipeStudy, overrides
from sightline.studies.study import KINDS, Done, Method, Part, check_methods
from sightline.studies.subject import Subject, run_subject
from sightline.studies.tables import to_bytes
from sightline.training import train

PART = "images"
COLUMNS = {"images": "image", "maps": "map", "attacked": "attacked image", "again": "its map"}


@KINDS.register("consistency")
class Consistency(RecipeStudy):
    """Explanation consistency of the images that a model is right about: the highest and the lowest, as images.

    "Improving Network Interpretability via Explanation Consistency Evaluation", Figure 4. The model is an ordinary run folder,
    under `runs/` in the study's; the study's seed is its seed. A run that was killed continues from its checkpoint.

    Attributes:
        method: explains the class that the model predicts for the unchanged image.
        perturbation: of what the map leaves out; see `sightline.metrics.disturbed_images`.
        eps: FGSM's change of a pixel, in [0, 1].
        psi: see `sightline.metrics.explanation_consistency`.
        distance: likewise.
        split: whose images; null takes the main test split.
        shown: how many of the most and of the least consistent images are shown.
        batch: images that are explained together.
    """

    kind: Literal["consistency"]
    method: Method = Method(label="Grad-CAM", name="gradcam")
    perturbation: Perturbation = "fgsm"
    eps: Real = 0.1
    psi: Psi = "tanh"
    distance: Distance = "mean"
    split: str | None = None
    shown: Positive = 4
    batch: Positive = 32

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_methods([self.method])
        return self

    def parts(self) -> list[str]:
        """All images at once."""
        return [PART]

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read the recipe and open the data."""
        recipe = read_recipe(self.recipe, [*overrides(self.keys), f"seed={self.seed}"])
        images = recipe.data.create().select(self.split)
        images.check_single_label("the study of explanation consistency")

        def work(part: str) -> Part:
            run = train(recipe, output=folder / "runs" / recipe.name, resume=True, device=device)
            subject = run_subject(run, device)
            side = subject.input_spec.size[0]
            found = torch.cat([
                self._compare(subject, batch.to(device))["consistency"]
                for batch in create_loader(
                    images, size=side, batch_size=self.batch, train=False, num_workers=recipe.num_workers
                )
            ])  # fmt: skip
            chosen = self._extremes(found)
            pages = create_loader(images, size=side, batch_size=len(chosen), train=False, indices=chosen)
            shown = self._compare(subject, next(iter(pages)).to(device))
            values = {
                "paths": [images.path(place) for place in chosen],
                "classes": [images.classes[int(images.labels[place])] for place in chosen],
                "said": [images.classes[index] for index in shown["said"].tolist()],
            }
            return Part(values, {"consistency": found} | {name: to_bytes(shown[name]) for name in COLUMNS})

        return work

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return one row per image that the model classifies correctly."""
        return [
            {"image": int(place), "consistency": float(part.tensors["consistency"][place])}
            for part in done.values()
            for place in (~part.tensors["consistency"].isnan()).nonzero()[:, 0]
        ]

    def summary(self, done: Done) -> str:
        """How consistent the explanations are, and the images."""
        if PART not in done:
            return ""
        found = done[PART].tensors["consistency"]
        right = found[~found.isnan()]
        return (
            f"![most and least consistent explanations](figure.png)\n\nThe model is right about {len(right)} of {len(found)} "
            f"images, and their explanation consistency by {self.method.label} is {right.mean():.3f} on average, with a "
            f"median of {right.median():.3f}. The attack changes the predicted class of {(right == 0).float().mean():.1%}, "
            f"whose consistency is 0. On the left are the {self.shown} highest, on the right the {self.shown} lowest, the "
            "first of equal ones."
        )

    def figures(self, done: Done) -> dict[str, Figure]:
        """Lines of an image with high consistency, and of one with low consistency."""
        part = done[PART]
        scores = part.tensors["consistency"]
        order = self._extremes(scores)
        rows, width = len(order) // 2, len(COLUMNS)
        columns = {name: part.tensors[name].float() / 255 for name in COLUMNS}
        for shown, under in (("maps", "images"), ("again", "attacked")):
            columns[shown] = blend(columns[under], columns[shown])
        figure = new_figure(rows, 2 * width + 0.3)
        grid = figure.subplots(rows, 2 * width + 1, squeeze=False, width_ratios=[1] * width + [0.15] + [1] * width)
        for line, axes in enumerate(grid):
            axes[width].set_axis_off()
            for number, start in ((line, 0), (rows + line, width + 1)):
                for column, (letter, name) in enumerate(zip(string.ascii_lowercase, COLUMNS)):
                    place = axes[start + column]
                    draw_image(place, columns[name][number])
                    if not line:
                        place.set_title(f"({letter}) {COLUMNS[name]}", fontsize=9)
                axes[start].set_ylabel(f"E = {float(scores[order[number]]):.3f}", fontsize=8)
                axes[start].set_xlabel(part.values["classes"][number], fontsize=7)
                axes[start + 2].set_xlabel(f"said: {part.values['said'][number]}", fontsize=7)
        return {"figure.png": figure}

    def _extremes(self, scores: Tensor) -> list[int]:
        """Return the indices of the highest scores in descending order, and of the lowest in ascending order."""
        places = (~scores.isnan()).nonzero()[:, 0]
        if len(places) < 2:
            raise SightlineError(
                f"{self.called}: the model is right about {len(places)} images of "
                f"{self.split or 'the test split'}; 2 are needed"
            )
        shown = min(self.shown, len(places) // 2)
        order = places[scores[places].argsort(descending=True, stable=True)]
        rising = places[scores[places].argsort(stable=True)]
        return [*order[:shown].tolist(), *rising[:shown].tolist()]

    def _compare(self, subject: Subject, batch: Batch) -> dict[str, Tensor]:
        """Return maps, attacked images, their maps, and the consistency (B,), NaN where the model is wrong."""
        explainer, layer = (
            create_explainer(self.method.name, **self.method.options),
            subject.layer_for(self.method.name),
        )
        predicted = subject.probabilities(batch.images).argmax(1)
        maps = explainer(subject.model, batch.images, predicted, layer, subject.input_spec)
        attacked = disturbed_images(
            subject.model, batch.images, maps, batch.labels,
            perturbation=self.perturbation, eps=self.eps, input_spec=subject.input_spec,
        )  # fmt: skip
        drawn = explainer.for_images(batch.images, batch.indices, "attacked")
        again = drawn(subject.model, attacked, predicted, layer, subject.input_spec)
        said = subject.probabilities(attacked).argmax(1)
        consistency = explanation_consistency(maps, again, said == predicted, self.psi, self.distance)
        consistency = torch.where(predicted == batch.labels, consistency, torch.nan)
        found = {"images": batch.images, "maps": maps, "attacked": attacked, "again": again, "said": said}
        return {name: tensor.cpu() for name, tensor in (found | {"consistency": consistency}).items()}
