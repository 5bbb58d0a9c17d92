"""The model and the data set that a verb's options name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.errors import SightlineError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sightline.data import ImageDataset, Splits
    from sightline.network.input_spec import InputSpec
    from sightline.training import Run


@dataclass(frozen=True)
class Subject:
    """A classifier with what is known of it."""

    name: str
    model: "nn.Module"
    spec: "InputSpec"
    classes: list[str]
    layer: str | None = None


def find_subject(model: str | None, weights: str | None, run: Path | None, classes: Path | None = None) -> Subject:
    """The classifier that `--run`, or `--model` with `--weights`, stands for, on the CPU."""
    if run is not None:
        return _from_run(run, model)
    return _from_library(model, weights, classes)


def find_data(
    data: str | None, options: Sequence[str], split: str | None, run: Path | None, *, labels: bool
) -> "ImageDataset":
    """Return a split of a dataset by its registered name and `key=value` options, or of the run's own data.

    A run's own data is what it was when the run was trained, and other data counts its classes as the run does.

    Args:
        data: the name; None = the run's own data.
        options: changes to the options of that data.
        split: None is the main test split.
        run: the run's folder, if the model is that of a run.
        labels: whether labels matter, so that the classes must be known to the run.
    """
    from sightline.datasets.derived.relabeled import match_classes
    from sightline.training.run_data import RunSplits, warn_of_training_images

    name, splits, opened = _open_splits(data, options, run)
    found = splits.select(split)
    if opened is None or not labels or isinstance(splits, RunSplits):
        return found
    if split != "train":
        warn_of_training_images(opened, name, found)
    return match_classes(found, opened.facts["classes"], f"the run {run}")


def find_folder(data: str | None, options: Sequence[str], run: Path | None) -> "tuple[ImageDataset, Tensor | None]":
    """Return all images of a dataset, and (N,) bool, which of them the run was trained on (None = not known).

    Where splits can show the same images, as those of derived datasets do, it is the main test split.

    Args:
        data: the registered name; None = the run's own data.
        options: changes to the options of that data.
        run: the run's folder, if the model is that of a run.
    """
    from sightline.datasets.derived.joined import whole_folder
    from sightline.datasets.derived.relabeled import match_classes
    from sightline.training.run_data import RunSplits, seen_in_training

    name, splits, opened = _open_splits(data, options, run)
    found = whole_folder(splits)
    if opened is None:
        return found, None
    seen = seen_in_training(opened, name, found)
    if not isinstance(splits, RunSplits):
        found = match_classes(found, opened.facts["classes"], f"the run {run}")
    return found, seen


def _open_splits(data: str | None, options: Sequence[str], run: Path | None) -> "tuple[str, Splits, Run | None]":
    """Return the name of the data, its splits (those of the run as they were in training, if they are its own), and the run."""
    from sightline._core.strict import apply_overrides
    from sightline.data import DATASETS
    from sightline.training import Run
    from sightline.training.run_data import read_splits

    opened = None if run is None else Run.open(run)
    values: dict[str, Any] = {}
    if data is None:
        if opened is None:
            raise SightlineError("no data set was named: give --data NAME, or --run RUN for the run's own")
        data = opened.recipe.data.name
        if not options:
            return data, read_splits(opened), opened
        values = dict(opened.recipe.data.options)
    apply_overrides(values, options)
    return data, DATASETS.create(data, **values), opened


def _from_run(run: Path, model: str | None) -> Subject:
    """The model that a run trained: of its best epoch where the recipe selects one, else of the last."""
    from sightline.training import load_run

    if model is not None:
        raise SightlineError("--model and --run were both given; a run knows its model")
    loaded = load_run(run, device="cpu")
    return Subject(loaded.recipe.model.name, loaded.model, loaded.input_spec, loaded.classes, loaded.layer)


def _from_library(model: str | None, weights: str | None, classes: Path | None) -> Subject:
    """A model by name; its classes are those of the file, ImageNet's for 1000, else their indices."""
    from sightline.models import load_model
    from sightline.models.labels import default_class_names, model_classes

    if model is None:
        raise SightlineError("no model was named: give --model NAME --weights FILE, or --run RUN")
    if weights is None:
        raise SightlineError("--weights was not given; expected a file, or `default` for the library's own")
    classifier, spec = load_model(model, weights)
    if classes is None:
        return Subject(model, classifier, spec, default_class_names(classifier))
    if not classes.is_file():
        raise SightlineError(f"--classes: there is no file {str(classes)!r}")
    try:
        names = classes.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SightlineError(f"--classes: cannot read {classes} as text with one name a line: {error}") from error
    count = model_classes(classifier)
    if len(names) != count:
        raise SightlineError(f"--classes {classes} names {len(names)} classes; the model has {count}")
    return Subject(model, classifier, spec, names)
