"""The comparison of two groups of runs as one HTML file that needs no other file."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from sightline.errors import SightlineError
from sightline.evaluation.checkpoint import Conditions
from sightline.evaluation.comparison import ACCURACY, CHANCE, WORST_GROUP, Comparison, SplitComparison, read_comparison
from sightline.evaluation.split_folder.folder import Key
from sightline.reporting import formatting
from sightline.reporting.comparison import charts
from sightline.reporting.comparison.gallery import make_gallery
from sightline.reporting.page import render_page, write_page


def compare(
    runs: Sequence[str | Path],
    against: Sequence[str | Path],
    output: str | Path = "report.html",
    *,
    model: str | nn.Module | None = None,
    data: Any = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | str | Path | None = None,
) -> Path:
    """Compare two groups of runs or checkpoints and write the result as one self-contained HTML file.

    Args:
        runs: run folders of one group, such as one recipe with several seeds; or checkpoints of the same
            model, which are measured as the first run was, or with `model` on `data`.
        against: run folders or checkpoints of the group that it is compared with.
        output: the file to write; its folder is made if needed.
        model: the model of checkpoints where no run is given, as `sl.open_model` takes it.
        data: the labelled images that these are measured on, in any form that `sl.fix` takes.
        size: side of the input of `model` in pixels; None = the model's own.
        mean: mean of the normalization, one value per channel; None = the model's own.
        std: standard deviation of the normalization, likewise.
        classes: the name of each class in the order of the logits, or a file with one a line; None = as the weights say.

    Returns:
        The path of the file.

    Raises:
        SightlineError: a folder is not an evaluated run, the runs cannot be compared (see `read_comparison`), or the
            file cannot be written.

    Examples:
        >>> from sightline.evaluation import evaluate
        >>> small = ["data.copies=1", "train_fraction=0.1", "stages.0.epochs=1", "evaluation.splits=[test_iid]"]
        >>> small += ["evaluation.explainers=[gradcam]", "evaluation.metrics=[accuracy, energy_in_mask]"]
        >>> for recipe in ("demo-cross-entropy", "demo-so-loss"):  # bundled images, a small network
        ...     run = sl.train(recipe, small, output=f"runs/{recipe}", device="cpu")
        ...     _ = evaluate(run.path)
        >>> sl.compare(["runs/demo-so-loss"], against=["runs/demo-cross-entropy"], output="report.html").name
        'report.html'
    """
    given = {"size": size, "mean": mean, "std": std, "classes": classes}
    if (model is None) != (data is None) or (model is None and any(value is not None for value in given.values())):
        raise SightlineError(
            "checkpoints without a run need both their model and images: give --model NAME --data folder root=FOLDER "
            "(model= and data= in Python)"
        )
    conditions = None if model is None else Conditions(model, data, **given)  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        return write_page(render(read_comparison(runs, against, folder, conditions)), output)


def render(comparison: Comparison) -> str:
    """Render the page as a string."""
    scale, strips = charts.accuracy_strips(comparison)
    return render_page(
        "report.html.j2",
        comparison=comparison,
        verdict=formatting.verdict(comparison),
        cautions=cautions(comparison),
        scale=scale,
        strips=strips,
        splits=[_split_page(split, comparison) for split in comparison.splits],
        learning=charts.learning_curves(comparison),
        runs=[(side, run) for side in ("ours", "theirs") for run in getattr(comparison, side).runs],
        chart=charts,
        chance=CHANCE,
        meanings=formatting.meanings(key.metric for split in comparison.splits for key in split.differences),
    )


def cautions(comparison: Comparison) -> list[str]:
    """Return the cautions that a reader should know before using the values."""
    every = [*comparison.ours.runs, *comparison.theirs.runs]
    runs = [run for run in every if "checkpoint" not in run.info]
    notes = [f"{run.info['name']} is a checkpoint, so its training is not known." for run in every if run not in runs]
    if min(len(comparison.ours.runs), len(comparison.theirs.runs)) < 3:
        notes.append("A model has fewer than three runs, so intervals over seeds are missing or very wide.")
    for what, fact in (("steps", "steps"), ("images", "images_seen")):
        if len({run.info.get(fact, 0) for run in runs}) > 1:
            totals = [
                {run.info.get(fact, 0) for run in group.runs if run in runs}
                for group in (comparison.ours, comparison.theirs)
            ]
            counts = [" or ".join(f"{n:,}" for n in sorted(t)) for t in totals]
            notes.append(f"The trainings differ in length: {counts[0]} {what} compared with {counts[1]}.")
    if len({tuple(sorted(run.info["versions"].items())) for run in runs}) > 1:
        notes.append("The runs were made with different versions of the software.")
    unfinished = [run for run in runs if run.info["status"] != "finished"]
    return notes + [f"{run.path.name} is not finished: its status is “{run.info['status']}”." for run in unfinished]


def _split_page(split: SplitComparison, comparison: Comparison) -> dict[str, Any]:
    return {
        "name": split.split,
        "n": split.n,
        "accuracies": [split.differences[key] for key in (ACCURACY, WORST_GROUP) if key in split.differences],
        "metrics": split.metrics,
        "explainers": [
            (name, [split.differences.get(Key(m, name)) for m in split.metrics]) for name in split.explainers
        ],
        "best": {metric: _best(split, metric) for metric in split.metrics},
        "higher": {key.metric: higher for key, higher in split.ours[0].higher_is_better.items()},
        "groups": split.by_group,
        "curves": charts.score_curves(split),
        "gallery": make_gallery(split, comparison.classes),
    }


def _best(split: SplitComparison, metric: str) -> tuple[str, str]:
    """(explainer, side) of the best mean of a metric, the chance explainers apart."""
    differences = [split.differences.get(Key(metric, name)) for name in split.explainers if name not in CHANCE]
    means = [
        (float(np.mean(getattr(d, side))) * (1 if d.higher_is_better else -1), d.key.explainer or "", side)
        for d in differences
        if d is not None
        for side in ("ours", "theirs")
    ]
    return max(means)[1:] if means else ("", "")
