"""The model and the data set that a command's options name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sightline.cli.options import named_data, refuse_given, split_numbers
from sightline.errors import SightlineError

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.data import ImageDataset, Splits
    from sightline.models import OpenedModel
    from sightline.runs import Run


def find_subject(
    model: str | None,
    weights: str | None,
    run: Path | None,
    classes: Path | None = None,
    size: int | None = None,
    mean: str | None = None,
    std: str | None = None,
) -> "OpenedModel":
    """Load the classifier of `--run`, or of `--model` with `--weights`, on the CPU, and print how it sees images."""
    from sightline._core.processes import is_first_process
    from sightline.models import open_model

    if run is not None:
        from sightline.runs import load_run

        reason = "and --run were both given; a run knows its model, classes and input"
        refuse_given(reason, model=model, weights=weights, classes=classes, size=size, mean=mean, std=std)
        loaded = load_run(run, device="cpu")
        opened = open_model(loaded.model, input_spec=loaded.input_spec, classes=loaded.classes)
        subject = replace(opened, name=loaded.recipe.model.name, layer=loaded.layer)
    elif model is None:
        raise SightlineError("no model was named: give --model NAME --weights FILE, or --run RUN")
    else:
        means, stds = split_numbers(mean, "--mean"), split_numbers(std, "--std")
        subject = open_model(model, weights, size=size, mean=means, std=stds, classes=classes)
    if is_first_process():
        for line in subject.describe():
            typer.echo(line, err=True)
    return subject


def find_data(
    data: str | None,
    options: Sequence[str],
    split: str | None,
    run: Path | None,
    *,
    labels: bool,
    subject: "OpenedModel | None" = None,
) -> "ImageDataset":
    """Return a split of a dataset by its registered name and `key=value` options, or of the run's own data.

    A run's own data is what it was when the run was trained, and other data counts its classes as the run does.

    Args:
        data: the name; None = the run's own data.
        options: changes to the options of that data.
        split: None is the main test split.
        run: the run's folder, if the model is that of a run.
        labels: whether labels matter, so the classes must be known to the model.
        subject: the model that looks at the data, if it is not that of a run.
    """
    from sightline.datasets.derived.relabeled import match_classes
    from sightline.runs.run_data import RunSplits, warn_of_training_images

    name, splits, opened = _open_splits(data, options, run)
    found = splits.select(split)
    if not labels or isinstance(splits, RunSplits):
        return found
    if opened is None:
        return found if subject is None else subject.match(found)
    if split != "train":
        warn_of_training_images(opened, name, found)
    return match_classes(found, opened.facts["classes"], f"the run {run}")


def find_folder(
    data: str | None, options: Sequence[str], run: Path | None, subject: "OpenedModel"
) -> "tuple[ImageDataset, Tensor | None]":
    """Return all images of a dataset, and (N,) bool, which of them the run was trained on (None = not known).

    Where splits can show the same images, as those of derived datasets do, it is the main test split.

    Args:
        data: the registered name; None = the run's own data.
        options: changes to the options of that data.
        run: the run's folder, if the model is that of a run.
        subject: the model that looks at the data.
    """
    from sightline.datasets.derived.joined import whole_folder
    from sightline.datasets.derived.relabeled import match_classes
    from sightline.runs.run_data import RunSplits, seen_in_training

    name, splits, opened = _open_splits(data, options, run)
    found = whole_folder(splits)
    if opened is None:
        return subject.match(found), None
    seen = seen_in_training(opened, name, found)
    if not isinstance(splits, RunSplits):
        found = match_classes(found, opened.facts["classes"], f"the run {run}")
    return found, seen


def open_images(data: str, options: Sequence[str]) -> "ImageDataset":
    """Return all images of a dataset, or of a folder of images."""
    from sightline.datasets.derived.joined import whole_folder

    return whole_folder(_open_splits(data, options, None)[1])


def _open_splits(data: str | None, options: Sequence[str], run: Path | None) -> "tuple[str, Splits, Run | None]":
    """Return the name of the data, its splits (those of the run as they were in training, if they are its own), and the run."""
    from sightline._core.strict import apply_overrides
    from sightline.data import DATASETS
    from sightline.runs import Run
    from sightline.runs.run_data import read_splits

    opened = None if run is None else Run.open(run)
    values: dict[str, Any] = {}
    if data is not None:
        data, options = named_data(data, options)
    else:
        if opened is None:
            raise SightlineError("no dataset is named; pass --data NAME, or --run RUN for the data of the run")
        data = opened.recipe.data.name
        if not options:
            return data, read_splits(opened), opened
        values = dict(opened.recipe.data.options)
    apply_overrides(values, options)
    return data, DATASETS.create(data, **values), opened
