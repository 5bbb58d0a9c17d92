"""The share of unbiased images among those of the highest weights, at every pass that gives new weights."""

from statistics import mean
from typing import Annotated, Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import Field

from sightline._core.strict import Real
from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.experiments.outputs.unbiased_images import chance_spread, unbiased_images, unbiased_share
from sightline.experiments.outputs.weight_recorder import WeightRecorder
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.style import legend_below
from sightline.runs import Run
from sightline.statistics.intervals import over_seeds
from sightline.studies.lines import line_panels
from sightline.studies.study import Part
from sightline.studies.tables import mean_and_spread
from sightline.training.build import build


@OUTPUTS.register("unbiased_share")
class UnbiasedShare(Output):
    """The share of unbiased images among those of the highest weights, compared with chance.

    "Improving Network Interpretability via Explanation Consistency Evaluation", section IV-D. Unbiased images are those that
    the dataset `biased` left unchanged; where groups are pairs (class, class of the background), those on another class's
    background. A run keeps its weights in `weights.safetensors` as it trains.

    Attributes:
        top: the share of the training images that is looked at, those of the highest weights.
    """

    top: Annotated[Real, Field(gt=0, lt=1)] = 0.2

    def watch(self, run: Run) -> WeightRecorder:
        """Keep the weights."""
        return WeightRecorder(run)

    def measure(self, run: Run, device: torch.device) -> Part:
        """Read the weights of every pass, and the share of unbiased images in the top of them."""
        unbiased = unbiased_images(build(run.recipe).splits["train"])
        recorded = WeightRecorder(run)
        shares = [unbiased_share(weights, unbiased, self.top) for weights in recorded.weights]
        values = {"epochs": recorded.epochs, "shares": shares, "chance": unbiased.float().mean().item()}
        weights = torch.stack(recorded.weights) if shares else torch.empty(0, len(unbiased))
        return Part(values | {"images": len(unbiased)}, {"weights": weights, "unbiased": unbiased})

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return one row per variant, seed and pass."""
        return [
            {"variant": row, "seed": int(seed), "column": "unbiased_share", "value": share, "n": part.values["images"]}
            | {"epoch": epoch}
            for row, seed, part in runs
            for epoch, share in zip(part.values["epochs"], part.values["shares"])
        ]

    def summary(self, runs: FinishedRuns) -> str:
        """Return the shares compared with chance."""
        rows = []
        for row in runs.rows:
            found = [part.values for part in runs.of(row).values() if part.values["shares"]]
            if not found:
                rows.append([row, "0", "", "no weights" if runs.of(row) else "…", "", ""])
                continue
            means = [mean(values["shares"]) for values in found]
            highest = max(share for values in found for share in values["shares"])
            rows.append([
                row, str(len(found)), str(len(found[0]["shares"])), mean_and_spread([100 * m for m in means], form=".1f"),
                f"{100 * highest:.1f}", _beyond_chance(means, [values["chance"] for values in found]),
            ])  # fmt: skip
        header = ["Variant", "Seeds", "Passes", "Share, %", "Highest pass, %", "Minus chance, points"]
        sections = [
            f"Unbiased images among the {self.top:.0%} with the highest weights, in per cent: the mean over passes, then the "
            "mean ± standard deviation over seeds. Equal weights at the border of the top count by their share of "
            "unbiased images; equal weights for all images are therefore at chance. The last column has the 95 % interval "
            "over seeds.",
            markdown(header, rows),
        ]
        if chances := {(part.values["images"], part.values["chance"]) for _, _, part in runs}:
            told = [
                f"{100 * chance:.1f} % of {images} training images are unbiased; a top drawn at random has as many ± "
                f"{100 * chance_spread(images, chance, self.top):.1f} points (one standard deviation)"
                for images, chance in sorted(chances)
            ]
            sections.append(f"Chance: {'; '.join(told)}.")
        return "\n\n".join([*sections, *(["![unbiased images by pass](shares.png)"] if runs.complete else [])])

    def figures(self, runs: FinishedRuns) -> dict[str, Figure]:
        """Draw the shares by epoch, with the line of chance and its spread."""
        curves = {
            row: {
                seed: {epoch: 100 * share for epoch, share in zip(part.values["epochs"], part.values["shares"])}
                for seed, part in runs.of(row).items()
            }
            for row in runs.rows
        }
        figure, grid = line_panels(
            runs.lines(curves),
            x_label="epoch trained with the weights",
            y_label=f"unbiased in the top {self.top:.0%}, %",
        )
        for axes, rows in zip(grid, runs.panels.values()):
            part = next(part for row in rows.values() for part in runs.of(row).values())
            chance, images = part.values["chance"], part.values["images"]
            spread = chance_spread(images, chance, self.top)
            axes.axhspan(100 * (chance - spread), 100 * (chance + spread), color="#94a3b8", alpha=0.15, lw=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.axhline(100 * chance, color="#0f172a", lw=1, ls="--", label="chance ± 1 standard deviation")
        legend_below(figure, grid[0])
        return {"shares.png": figure}


def _beyond_chance(means: list[float], chances: list[float]) -> str:
    """Return the mean difference from chance and its interval over seeds."""
    difference = f"{100 * (mean(means) - mean(chances)):+.1f}"
    interval = over_seeds(means, chances, paired=True)
    return difference if interval is None else f"{difference} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
