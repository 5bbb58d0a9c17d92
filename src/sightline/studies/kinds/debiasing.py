"""Debiasing: whether a guide that reweights puts first the few training images that a bias left alone."""

import json
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Literal

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from sightline._core.files import write_atomically
from sightline._core.strict import Real
from sightline.data import ImageDataset
from sightline.datasets.derived.biased import Biased
from sightline.datasets.derived.mask_quality import DegradedMasks
from sightline.datasets.derived.subset import Subset
from sightline.errors import SightlineError
from sightline.evaluation.statistics import over_seeds
from sightline.reporting.markdown import markdown
from sightline.studies.kinds.training_runs import TrainingRuns
from sightline.studies.lines import Lines, legend, line_panels, seeds_of
from sightline.studies.study import KINDS, Done, Part
from sightline.training import Run
from sightline.training.build import build

STORED = "_stored._extra_state"  # how a checkpoint calls the weights of a guide that has them


@KINDS.register("debiasing")
class Debiasing(TrainingRuns):
    """The share of unbiased images among those of the highest weights, at every pass that gives weights anew.

    "Improving Network Interpretability via Explanation Consistency Evaluation", section IV-D. Unbiased are the images that the
    data set `biased` left alone; where groups are pairs (class, class of the background), those on another class's background.
    A run keeps its weights in `weights.safetensors` as it trains.

    Attributes:
        top: the share of the training images that is looked at, those of the highest weights.
    """

    kind: Literal["debiasing"]  # type: ignore[assignment]
    top: Annotated[Real, Field(gt=0, lt=1)] = 0.2

    def watch(self, run: Run) -> "Recorder":
        """Keeps the weights."""
        return Recorder(run)

    def look(self, run: Run, device: torch.device) -> Part:
        """The weights of every pass, and the share of unbiased images in the top of them."""
        unbiased = unbiased_images(build(run.recipe).splits["train"])
        recorded = Recorder(run)
        shares = [unbiased_share(weights, unbiased, self.top) for weights in recorded.weights]
        values = {"epochs": recorded.epochs, "shares": shares, "chance": unbiased.float().mean().item()}
        weights = torch.stack(recorded.weights) if shares else torch.empty(0, len(unbiased))
        return Part(values | {"images": len(unbiased)}, {"weights": weights, "unbiased": unbiased})

    def table(self, done: Done) -> list[dict[str, Any]]:
        """A row a variant, seed and column, and one for every pass."""
        passes = [
            {
                "variant": label,
                "seed": int(seed),
                "column": "unbiased_share",
                "value": share,
                "n": kept.values["images"],
            }
            | {"epoch": epoch}
            for part, kept in done.items()
            for label, _, seed in [part.rpartition("/")]
            for epoch, share in zip(kept.values["epochs"], kept.values["shares"])
        ]
        return super().table(done) + passes

    def summary(self, done: Done) -> str:
        """The shares beside chance, and the figures of the runs."""
        rows = []
        for variant in self.rows:
            found = [part.values for part in seeds_of(done, variant.label).values() if part.values["shares"]]
            if not found:
                rows.append([variant.label, "0", "", "no weights" if seeds_of(done, variant.label) else "…", "", ""])
                continue
            means = [mean(values["shares"]) for values in found]
            highest = max(share for values in found for share in values["shares"])
            spread = f" ± {100 * stdev(means):.1f}" if len(means) > 1 else ""
            rows.append([
                variant.label, str(len(found)), str(len(found[0]["shares"])), f"{100 * mean(means):.1f}{spread}",
                f"{100 * highest:.1f}", _beyond_chance(means, [values["chance"] for values in found]),
            ])  # fmt: skip
        header = ["Variant", "Seeds", "Passes", "Share, %", "Highest pass, %", "Minus chance, points"]
        sections = [
            f"Unbiased images among the {self.top:.0%} with the highest weights, in per cent: the mean over passes, then the "
            "mean ± standard deviation over seeds. Equal weights at the border of the top count by their share of "
            "unbiased images, so that equal weights for all are chance. In the last column the 95 % interval over seeds.",
            markdown(header, rows),
        ]
        if chances := {(p.values["images"], p.values["chance"]) for p in done.values()}:
            told = [
                f"{100 * chance:.1f} % of {images} training images are unbiased; a top drawn at random has so many ± "
                f"{100 * chance_spread(images, chance, self.top):.1f} points (one standard deviation)"
                for images, chance in sorted(chances)
            ]
            sections.append(f"Chance: {'; '.join(told)}.")
        if set(self.parts()) <= set(done):
            sections.append("![unbiased images by pass](shares.png)")
        return "\n\n".join([*sections, "## What the runs are worth", super().summary(done)])

    def figures(self, done: Done) -> dict[str, Figure]:
        """The shares by epoch, with the line of chance and its spread; and the figures of the runs."""
        panels = {title: self._lines(rows, done) for title, rows in self.panels.items()}
        figure, grid = line_panels(
            panels, x_label="epoch trained with the weights", y_label=f"unbiased in the top {self.top:.0%}, %"
        )
        for axes, rows in zip(grid, self.panels.values()):
            part = next(part for row in rows.values() for part in seeds_of(done, row).values())
            chance, images = part.values["chance"], part.values["images"]
            spread = chance_spread(images, chance, self.top)
            axes.axhspan(100 * (chance - spread), 100 * (chance + spread), color="#94a3b8", alpha=0.15, lw=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.axhline(100 * chance, color="#0f172a", lw=1, ls="--", label="chance ± 1 standard deviation")
        legend(figure, grid[0])
        return {"shares.png": figure} | super().figures(done)

    def _lines(self, rows: dict[str, str], done: Done) -> Lines:
        """In per cent; a variant without weights has no point."""
        lines: dict[str, dict[float, list[float]]] = {label: {} for label in rows}
        for label, row in rows.items():
            for part in seeds_of(done, row).values():
                for epoch, share in zip(part.values["epochs"], part.values["shares"]):
                    lines[label].setdefault(epoch, []).append(100 * share)
        return lines


class Recorder:
    """Keeps the weights that a run's guide gives the training images, whenever an epoch was trained with others.

    Called after an epoch, it reads them from the checkpoint. What it has kept is in the run's folder, so that it goes on where
    the run does; an epoch that was written just before the run was killed is read when it begins again.

    Args:
        run: the run, which may not have begun.

    Attributes:
        epochs: counted from 1, those that were trained with new weights.
        weights: (N,) of each of them; images that have none yet weigh 1.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.path: Path = run.path / "weights.safetensors"
        self.epochs: list[int] = []
        self.weights: list[Tensor] = []
        if self.path.is_file():
            kept = load_file(self.path)
            self.epochs, self.weights = kept["epochs"].tolist(), list(kept["weights"])
        if run.resume_point.is_file():
            self(False)

    def __call__(self, more: bool) -> None:
        """Keep the weights of the epoch that the checkpoint ends with, if they are new."""
        epoch, weights = stored_weights(self.run.resume_point)
        before = self.weights[-1] if self.weights else torch.ones_like(weights)
        if (self.epochs and epoch <= self.epochs[-1]) or torch.equal(weights, before):
            return
        self.epochs.append(epoch)
        self.weights.append(weights)
        kept = {"epochs": torch.tensor(self.epochs), "weights": torch.stack(self.weights)}
        write_atomically(self.path, save(kept))


def stored_weights(checkpoint: Path) -> tuple[int, Tensor]:
    """How many epochs are done, and the weights (N,) of the training images; (0,) where no guide has any."""
    with safe_open(checkpoint, framework="pt") as file:
        named = [file.get_tensor(name) for name in file.keys() if name.endswith(STORED)]  # noqa: SIM118 - not a dict
        epoch = json.loads(file.metadata()["sightline"])["epoch"]
    return epoch, next((weights for weights in named if len(weights)), torch.empty(0))


def unbiased_images(images: ImageDataset) -> Tensor:
    """Which training images (N,) bool do not have the bias of the others.

    Raises:
        SightlineError: that is not known of the data set, or all of its images are alike.
    """
    unbiased = _spared(images)
    if unbiased.all() or not unbiased.any():
        raise SightlineError(
            f"data: {int(unbiased.sum())} of {len(unbiased)} training images are unbiased; some have to be, and some not "
            "(of 'recomposed', correlation decides)"
        )
    return unbiased


def _spared(images: ImageDataset) -> Tensor:
    if isinstance(images, Subset):
        return _spared(images.dataset)[torch.tensor(images.places)]
    if isinstance(images, DegradedMasks):
        return _spared(images.dataset)
    if isinstance(images, Biased):
        return ~images.biased
    if images.group_ids is not None and len(images.groups) == len(images.classes) ** 2:
        return images.group_ids // len(images.classes) != images.group_ids % len(images.classes)
    raise SightlineError(
        "data: nothing says which training images are unbiased; expected the data set 'biased', or one whose groups are "
        "pairs of a class and the class of the background, such as 'recomposed'"
    )


def unbiased_share(weights: Tensor, unbiased: Tensor, top: float) -> float:
    """The share of unbiased images among those of the highest weights.

    Of images that share the weight at the border, as many count as there is room for, and as many of them as unbiased as chance
    would have: the expected share over all ways to order them.

    Args:
        weights: (N,).
        unbiased: (N,) bool.
        top: how many of the images are looked at, as a share; at least one is.
    """
    count = max(1, round(top * len(weights)))
    border = weights.topk(count).values[-1]
    above, tied = weights > border, weights == border
    room = count - above.sum()
    found = unbiased[above].sum() + room * unbiased[tied].double().mean()
    return float(found / count)


def chance_spread(images: int, chance: float, top: float) -> float:
    """The standard deviation of the share of unbiased images in a top drawn at random (hypergeometric)."""
    count = max(1, round(top * images))
    return sqrt(chance * (1 - chance) / count * (images - count) / (images - 1))


def _beyond_chance(means: list[float], chances: list[float]) -> str:
    """The mean difference from chance and its interval over seeds."""
    difference = f"{100 * (mean(means) - mean(chances)):+.1f}"
    interval = over_seeds(means, chances, paired=True)
    return difference if interval is None else f"{difference} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
