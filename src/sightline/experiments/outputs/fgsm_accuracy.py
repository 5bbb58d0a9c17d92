"""Accuracy under FGSM on the images that all compared models classify correctly without an attack."""

from collections.abc import Sequence
from statistics import mean
from typing import Annotated, Any

import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor

from sightline._core.strict import Positive, Real
from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.metrics import fgsm_hits
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.style import legend_below
from sightline.runs import Run, load_run
from sightline.studies.lines import line_panels
from sightline.studies.study import Part
from sightline.studies.tables import mean_and_spread

WRONG = 255  # of an image that the model misclassifies without an attack


@OUTPUTS.register("fgsm_accuracy")
class FgsmAccuracy(Output):
    """Relative accuracy: the share of images that a model still classifies correctly under FGSM made for it.

    "Improving Network Interpretability via Explanation Consistency Evaluation", section IV-F. The variants of one combination
    and seed are compared on the images that all of them classify correctly without an attack.

    Attributes:
        eps: changes of a pixel, in [0, 1].
        split: whose images are attacked; null takes the main test split.
        batch: images that are attacked together.
    """

    eps: Annotated[list[Annotated[Real, Field(gt=0, le=1)]], Field(min_length=1)]
    split: str | None = None
    batch: Positive = 64

    def measure(self, run: Run, device: torch.device) -> Part:
        """Attack every image with each eps."""
        loaded = load_run(run, device)
        images = loaded.loader(loaded.splits.select(self.split), self.batch)
        found = [
            fgsm_hits(loaded.model, batch.images, batch.labels, self.eps, input_spec=loaded.input_spec).cpu()
            for batch in (each.to(device) for each in images)
        ]
        return Part({}, {"stays_right": torch.cat(found).nan_to_num(WRONG).to(torch.uint8)})

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return one row per variant, seed and eps."""
        return [
            {"variant": row, "seed": int(seed), "column": "relative_accuracy", "value": value, "n": n, "eps": eps}
            for row, seeds in self._relative(runs).items()
            for seed, (n, curve) in seeds.items()
            for eps, value in zip(self.eps, curve)
        ]

    def summary(self, runs: FinishedRuns) -> str:
        """Relative accuracy by eps, and the differences from the first variant."""
        found = self._relative(runs)
        rows = []
        for row, seeds in found.items():
            curves = [curve for _, curve in seeds.values()]
            cells = [mean_and_spread([curve[place] for curve in curves]) for place in range(len(self.eps))]
            rows.append([row, str(len(curves)), *cells, mean_and_spread([mean(curve) for curve in curves])])
        sections = [
            f"Relative accuracy on {self.split or 'the test split'}: of the images that all variants of a seed classify "
            "correctly, the share that a model still classifies correctly under FGSM; mean ± standard deviation over seeds.",
            markdown(["Variant", "Seeds", *(f"eps {eps:g}" for eps in self.eps), "Mean over eps"], rows),
        ]
        if runs.complete and not any(found.values()):
            sections.append(
                "No image is classified correctly by all variants of a seed without an attack. Nothing can be compared."
            )
        if numbers := sorted({n for seeds in found.values() for n, _ in seeds.values()}):
            sections.append(
                f"Images that all variants classify correctly, by panel and seed: {', '.join(map(str, numbers))}."
            )
        if runs.complete:
            sections.append("![relative accuracy by eps](robustness.png)")
        means = {row: {seed: mean(curve) for seed, (_, curve) in seeds.items()} for row, seeds in found.items()}
        return "\n\n".join([*sections, *runs.differences_text("Mean over eps", means)])

    def figures(self, runs: FinishedRuns) -> dict[str, Figure]:
        """Relative accuracy by eps, which begins at 1."""
        found = self._relative(runs)
        curves = {
            row: {seed: {0.0: 1.0} | dict(zip(self.eps, curve)) for seed, (_, curve) in seeds.items()}
            for row, seeds in found.items()
        }
        figure, grid = line_panels(runs.lines(curves), x_label="eps", y_label="relative accuracy")
        grid[0].set_ylim(0, 1.02)
        legend_below(figure, grid[0])
        return {"robustness.png": figure}

    def _relative(self, runs: FinishedRuns) -> dict[str, dict[str, tuple[int, list[float]]]]:
        """Row -> seed -> number of images and curve, for seeds whose variants are all finished."""
        found: dict[str, dict[str, tuple[int, list[float]]]] = {row: {} for row in runs.rows}
        for labels in runs.panels.values():
            for seed in dict.fromkeys(part.rpartition("/")[2] for part in runs.parts):
                rows = [row for row in labels.values() if f"{row}/{seed}" in runs.parts]
                if not rows or not all(f"{row}/{seed}" in runs.done for row in rows):
                    continue
                n, curves = relative_accuracy([runs.done[f"{row}/{seed}"].tensors["stays_right"] for row in rows])
                if n:
                    for row, curve in zip(rows, curves):
                        found[row][seed] = (n, curve)
        return found


def relative_accuracy(models: Sequence[Tensor]) -> tuple[int, list[list[float]]]:
    """Return the accuracy of several models under attack, on the images that all of them classify correctly without one.

    Args:
        models: of each (N, E) uint8, whether it is right about each image at each eps; 255 where it is wrong without attack.

    Returns:
        How many images all are right about, and each model's accuracy on them by eps; NaN if there is no such image.
    """
    right = torch.stack([(hits != WRONG).all(1) for hits in models]).all(0)
    return int(right.sum()), [hits[right].double().mean(0).tolist() for hits in models]
