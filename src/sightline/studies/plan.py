"""Plans: studies of the user's own, from a YAML file or from the options of the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline._core.strict import override_key, parse_mapping
from sightline.errors import SightlineError
from sightline.evaluation import DEFAULT_EXPLAINERS
from sightline.studies.study import Study, make_study
from sightline.training import Run

METRICS = ("average_drop", "average_increase", "coherency", "insertion", "deletion")  # need neither masks nor groups


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """A study of the user's own, from a YAML file as sightline ships them, without `title` and `source` if need be.

    Args:
        path: the file.
        overrides: as for `read_study`.

    Raises:
        SightlineError: the file is missing or wrong; the message names the key.
    """
    file = Path(path)
    if not file.is_file():
        raise SightlineError(f"plan: there is no file {str(path)!r}")
    given = parse_mapping(file.read_text(encoding="utf-8"), f"plan {file}")
    return make_study(_own(file.stem) | given, overrides)


def make_grid(
    name: str,
    runs: Sequence[Path],
    options: Sequence[str] = (),
    *,
    model: str | None = None,
    weights: str | None = None,
    data: str | None = None,
    splits: Sequence[str] | None = None,
    explainers: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    num_images: int | None = None,
    contrast: bool = False,
    compiled: bool = False,
) -> Study:
    """A grid of trained runs, or of a model from elsewhere, over explainers and metrics.

    Args:
        name: of the table.
        runs: their folders.
        options: `key=value` each, of the data set.
        model: a model's name, beside the runs or in place of them.
        weights: its weights.
        data: a data set's name; None = the one that all runs were trained on.
        splits: the split that is looked at, one; None = the main test split.
        explainers: names; None = `DEFAULT_EXPLAINERS`.
        metrics: names; None = those that need neither masks nor groups.
        num_images: how many images are drawn; None = all.
        contrast: explain why this class and not the next one.
        compiled: let `torch.compile` make the metrics' calls faster.

    Raises:
        SightlineError: a run's folder holds none, or nothing says which model or data.
    """
    folders = [Run.open(run) for run in runs]
    models = [_trained(folder) for folder in folders]
    if model is not None:
        models.append({"label": model.rpartition("/")[2], "name": model, "weights": weights})
    if not models:
        raise SightlineError("nothing was named to evaluate: give runs, a plan, or --model NAME --weights FILE")
    source = _shared_data(folders) if data is None else {"name": data}
    for option in options:
        override_key(source, option)
    if splits is not None and len(splits) != 1:
        raise SightlineError(f"--splits names {len(splits)} splits; a table has one")
    return make_study(
        _own(name)
        | {
            "data": source,
            "split": None if splits is None else splits[0],
            "num_images": num_images,
            "models": models,
            "explainers": list(explainers or DEFAULT_EXPLAINERS),
            "metrics": {metric: {} for metric in metrics or METRICS},
            "contrast": contrast,
            "compiled": compiled,
        }
    )


def _own(name: str) -> dict[str, Any]:
    """What a study of nobody's paper says of itself."""
    return {"paper": "", "item": name, "kind": "grid", "title": name, "source": ""}


def _trained(run: Run) -> dict[str, Any]:
    """A run's model, with the weights that it is judged by."""
    facts = run.facts
    return {
        "label": run.path.name,
        "name": facts["model"]["name"],
        "weights": str(run.weights()),
        "layer": facts["model"]["layer"],
        "size": facts["input_spec"]["size"][0],
    }


def _shared_data(runs: Sequence[Run]) -> dict[str, Any]:
    """The data set that all runs were trained on."""
    found = [run.recipe.data.model_dump() for run in runs]
    if not found or any(each != found[0] for each in found):
        raise SightlineError("--data was not given, and there is no data set that all models were trained on")
    return dict(found[0])
