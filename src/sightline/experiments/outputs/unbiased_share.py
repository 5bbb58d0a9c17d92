"""The share of unbiased images among those of the highest weights, at every pass that gives new weights."""

import json
from math import sqrt
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from sightline._core.files import write_atomically
from sightline._core.reading import read_tensors, reading
from sightline._core.strict import Real
from sightline.data import ImageDataset
from sightline.datasets.derived.biased import Biased
from sightline.datasets.derived.mask_quality import DegradedMasks
from sightline.datasets.derived.subset import Subset
from sightline.errors import SightlineError
from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.guides import from_config
from sightline.guides.measured_weights import MeasuredWeights
from sightline.objectives.base import GuideSum
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.style import legend_below
from sightline.runs import Run
from sightline.statistics.intervals import over_seeds
from sightline.studies.lines import line_panels
from sightline.studies.study import Part
from sightline.studies.tables import mean_and_spread
from sightline.training.build import build

STORED = "_stored._extra_state"  # how a checkpoint calls the weights of a guide that has them


class WeightRecorder:
    """Keeps the weights of the training images whenever an epoch was trained with newly measured or changed ones.

    Called after an epoch, it reads the weights from the checkpoint. It writes them to the run's folder and resumes with the
    run; an epoch that was written just before the run was killed is read when the run resumes.

    Args:
        run: the run, which may not have begun.

    Attributes:
        epochs: counted from 1, those that were trained with new weights.
        weights: (N,) of each of them; images that have none yet have weight 1.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.path: Path = run.path / "weights.safetensors"
        self.epochs: list[int] = []
        self.weights: list[Tensor] = []
        if self.path.is_file():
            kept, _ = read_tensors(self.path)
            with reading(self.path):
                self.epochs, self.weights = kept["epochs"].tolist(), list(kept["weights"])
        if run.resume_point.is_file():
            self(False)

    def __call__(self, more: bool) -> None:
        """Keep the weights of the checkpoint's last epoch, if they are new."""
        epoch, weights = stored_weights(self.run.resume_point)
        before = self.weights[-1] if self.weights else torch.ones_like(weights)
        if self.epochs and epoch <= self.epochs[-1]:
            return
        if torch.equal(weights, before) and not self._measured(epoch - 1):
            return
        self.epochs.append(epoch)
        self.weights.append(weights)
        kept = {"epochs": torch.tensor(self.epochs), "weights": torch.stack(self.weights)}
        write_atomically(self.path, save(kept))

    def _measured(self, epoch: int) -> bool:
        """Whether a pass over the data came before an epoch, counted from 0; its weights may be those of the pass before."""
        guide = from_config(self.run.recipe.guide)
        guides = [each for _, each in guide.summands] if isinstance(guide, GuideSum) else [guide]
        return any(isinstance(each, MeasuredWeights) and each.due(epoch) for each in guides)


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


def unbiased_images(images: ImageDataset) -> Tensor:
    """Return which training images (N,) bool do not have the bias of the others.

    Raises:
        SightlineError: the dataset does not say, or all of its images are the same in this respect.
    """
    unbiased = _unbiased(images)
    if unbiased.all() or not unbiased.any():
        raise SightlineError(
            f"data: {int(unbiased.sum())} of {len(unbiased)} training images are unbiased; expected some, but not all "
            "(of 'recomposed', correlation decides)"
        )
    return unbiased


def _unbiased(images: ImageDataset) -> Tensor:
    if isinstance(images, Subset):
        return _unbiased(images.dataset)[torch.tensor(images.indices)]
    if isinstance(images, DegradedMasks):
        return _unbiased(images.dataset)
    if isinstance(images, Biased):
        return ~images.biased
    if images.group_ids is not None and len(images.groups) == len(images.classes) ** 2:
        return images.group_ids // len(images.classes) != images.group_ids % len(images.classes)
    raise SightlineError(
        "data: it is not known which training images are unbiased; expected the dataset 'biased', or one whose groups are "
        "pairs of a class and the class of the background, such as 'recomposed'"
    )


def unbiased_share(weights: Tensor, unbiased: Tensor, top: float) -> float:
    """Return the share of unbiased images among those of the highest weights.

    Images that share the weight at the border count by the expected share over all ways to order them.

    Args:
        weights: (N,).
        unbiased: (N,) bool.
        top: the share of the images that is looked at; at least one image is.
    """
    count = max(1, round(top * len(weights)))
    border = weights.topk(count).values[-1]
    above, tied = weights > border, weights == border
    room = count - above.sum()
    found = unbiased[above].sum() + room * unbiased[tied].double().mean()
    return float(found / count)


def chance_spread(images: int, chance: float, top: float) -> float:
    """Return the standard deviation of the share of unbiased images in a top drawn at random (hypergeometric)."""
    count = max(1, round(top * images))
    return sqrt(chance * (1 - chance) / count * (images - count) / (images - 1))


def stored_weights(checkpoint: Path) -> tuple[int, Tensor]:
    """Return how many epochs are done, and the weights (N,) of the training images; (0,) if no guide has any."""
    named, metadata = read_tensors(checkpoint, ending=STORED)
    with reading(checkpoint):
        epoch = json.loads(metadata["sightline"])["epoch"]
    return epoch, next((weights for weights in named.values() if len(weights)), torch.empty(0))
