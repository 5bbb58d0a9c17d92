"""Robustness: what FGSM leaves of the accuracy on images that all compared models are right about."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Annotated, Any, Literal

import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor

from sightline._core.strict import Positive, Real
from sightline.data.loader import create_loader
from sightline.metrics import fgsm_hits
from sightline.reporting.markdown import markdown
from sightline.studies.kinds.training_runs import TrainingRuns
from sightline.studies.lines import Lines, legend, line_panels
from sightline.studies.study import KINDS, Done, Part
from sightline.training import Run, load_run

WRONG = 255  # of an image that the model is wrong about without an attack


@KINDS.register("robustness")
class Robustness(TrainingRuns):
    """Relative accuracy: the share of images that a model stays right about under FGSM made for it.

    "Improving Network Interpretability via Explanation Consistency Evaluation", section IV-F. The variants of one combination
    and seed are compared on the images that all of them are right about without an attack.

    Attributes:
        eps: changes of a pixel, in [0, 1].
        split: whose images are attacked.
        batch: images that are attacked together.
    """

    kind: Literal["robustness"]  # type: ignore[assignment]
    eps: Annotated[list[Annotated[Real, Field(gt=0, le=1)]], Field(min_length=1)]
    split: str = "test"
    batch: Positive = 64

    def look(self, run: Run, device: torch.device) -> Part:
        """Whether the model stays right about each image, at each eps."""
        loaded = load_run(run, device)
        spec, num_workers = loaded.input_spec, loaded.recipe.num_workers
        images = create_loader(
            loaded.splits[self.split], size=spec.size[0], batch_size=self.batch, train=False, num_workers=num_workers
        )
        found = [
            fgsm_hits(loaded.model, batch.images, batch.labels, self.eps, input_spec=spec).cpu()
            for batch in (each.to(device) for each in images)
        ]
        return Part({}, {"stays_right": torch.cat(found).nan_to_num(WRONG).to(torch.uint8)})

    def table(self, done: Done) -> list[dict[str, Any]]:
        """A row a variant, seed and column, and one for every eps."""
        relative = [
            {"variant": row, "seed": int(seed), "column": "relative_accuracy", "value": value, "n": n, "eps": eps}
            for row, seeds in self._relative(done).items()
            for seed, (n, curve) in seeds.items()
            for eps, value in zip(self.eps, curve)
        ]
        return super().table(done) + relative

    def summary(self, done: Done) -> str:
        """Relative accuracy by eps, what the seeds settle, and the figures of the runs."""
        found = self._relative(done)
        rows, numbers = [], []
        for labels in self.panels.values():
            numbers += [n for n, _ in found[labels[self.variants[0].label]].values()]
            for row in labels.values():
                curves = [curve for _, curve in found[row].values()]
                cells = [_cell([curve[place] for curve in curves]) for place in range(len(self.eps))]
                rows.append([row, str(len(curves)), *cells, _cell([mean(curve) for curve in curves])])
        sections = [
            f"Relative accuracy on {self.split}: of the images that all variants of a seed are right about, the share that the "
            "model stays right about under FGSM; mean ± standard deviation over seeds.",
            markdown(["Variant", "Seeds", *(f"eps {eps:g}" for eps in self.eps), "Mean over eps"], rows),
        ]
        if numbers:
            told = ", ".join(map(str, sorted(set(numbers))))
            sections.append(f"Images that all variants are right about, by panel and seed: {told}.")
        if set(self.parts()) <= set(done):
            sections.append("![relative accuracy by eps](robustness.png)")
        means = {row: {seed: mean(curve) for seed, (_, curve) in seeds.items()} for row, seeds in found.items()}
        if settled := self.against_first("Mean over eps", means):
            sections.append(settled)
        return "\n\n".join([*sections, "## What the runs are worth", super().summary(done)])

    def figures(self, done: Done) -> dict[str, Figure]:
        """Relative accuracy by eps, which begins at 1; and the figures of the runs."""
        found = self._relative(done)
        panels: dict[str, Lines] = {
            title: {
                label: {0.0: [1.0]}
                | {eps: [curve[place] for _, curve in found[row].values()] for place, eps in enumerate(self.eps)}
                if found[row]
                else {}
                for label, row in labels.items()
            }
            for title, labels in self.panels.items()
        }
        figure, grid = line_panels(panels, x_label="eps", y_label="relative accuracy")
        grid[0].set_ylim(0, 1.02)
        legend(figure, grid[0])
        return {"robustness.png": figure} | super().figures(done)

    def _relative(self, done: Done) -> dict[str, dict[str, tuple[int, list[float]]]]:
        """Row -> seed -> the number of images that all variants are right about, and the curve; where all variants are done."""
        found: dict[str, dict[str, tuple[int, list[float]]]] = {row.label: {} for row in self.rows}
        for labels in self.panels.values():
            for seed in map(str, self.seeds):
                rows = [row for row in labels.values() if f"{row}/{seed}" in self.parts()]
                if not rows or not all(f"{row}/{seed}" in done for row in rows):
                    continue
                n, curves = relative_accuracy([done[f"{row}/{seed}"].tensors["stays_right"] for row in rows])
                if n:
                    for row, curve in zip(rows, curves):
                        found[row][seed] = (n, curve)
        return found


def relative_accuracy(models: Sequence[Tensor]) -> tuple[int, list[list[float]]]:
    """The accuracy of several models under attack, on the images that all of them are right about without one.

    Args:
        models: of each (N, E) uint8, whether it stays right about each image at each eps; 255 where it is wrong without.

    Returns:
        How many images all are right about, and each model's accuracy on them by eps; NaN where there is no such image.
    """
    right = torch.stack([(hits != WRONG).all(1) for hits in models]).all(0)
    return int(right.sum()), [hits[right].double().mean(0).tolist() for hits in models]


def _cell(values: list[float]) -> str:
    """The mean over seeds, and their standard deviation."""
    if not values:
        return "…"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
