"""Plans: studies of the user's own, from a YAML file or from the options of the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline._core.strict import apply_overrides, parse_yaml, read_mapping
from sightline.acquisition import QUERY_STRATEGIES
from sightline.data import DATASETS
from sightline.errors import SightlineError
from sightline.evaluation import DEFAULT_EXPLAINERS
from sightline.inference.precision import Precision
from sightline.models.opening import read_names
from sightline.runs import Run, read_recipe
from sightline.runs.run_data import read_splits, warn_of_training_images
from sightline.studies.study import Study, make_study

METRICS = ("average_drop", "average_increase", "coherency", "insertion", "deletion")  # need neither masks nor groups


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Load a user's study from a YAML file of the same form as those in sightline; `title` and `source` are optional.

    Args:
        path: the file.
        overrides: as for `read_study`.

    Raises:
        SightlineError: the file is missing or wrong; the message names the key.
    """
    file = Path(path)
    if not file.is_file():
        raise SightlineError(
            f"plan: there is no file {str(path)!r}; `sightline list recipes` has the studies that ship"
        )
    given = read_mapping(file, f"plan {file}")
    return make_study(_defaults(file.stem) | given, overrides)


def make_grid(
    name: str,
    runs: Sequence[Path],
    options: Sequence[str] = (),
    *,
    model: str | None = None,
    weights: str | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | str | Path | None = None,
    data: str | None = None,
    splits: Sequence[str] | None = None,
    explainers: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    num_images: int | None = None,
    contrast: bool = False,
    compiled: bool = False,
    precision: Precision = "fp32",
) -> Study:
    """Make a grid of trained runs, or of a given model, over explainers and metrics.

    Args:
        name: of the table.
        runs: their folders.
        options: `key=value` each, of the data set.
        model: a model's name, in addition to the runs or instead of them.
        weights: its weights.
        size: side of its input in pixels; None = the model's own.
        mean: of its normalization; None = the model's own.
        std: likewise.
        classes: the name of each of its classes, or a file with one a line; None = as its weights say.
        data: a data set's name; None = the one that all runs were trained on.
        splits: the split that is looked at, one; None = the main test split.
        explainers: names; None = `DEFAULT_EXPLAINERS`.
        metrics: names; None = those that need neither masks nor groups.
        num_images: how many images are drawn; None = all.
        contrast: explain why this class and not the next one.
        compiled: let `torch.compile` make the metrics' calls faster.
        precision: "bf16" runs the models under bfloat16 autocast.

    Raises:
        SightlineError: a run's folder holds none, or nothing says which model or data.
    """
    folders = [Run.open(run) for run in runs]
    models = [_trained(folder) for folder in folders]
    given = {"weights": weights, "size": size, "mean": mean, "std": std, "classes": classes}
    if model is not None:
        given["classes"] = None if classes is None else read_names(classes)
        models.append({"label": model.rpartition("/")[2], "name": model, **given})
    elif options_given := [name for name, value in given.items() if value is not None]:
        raise SightlineError(
            f"{options_given[0]} was given without a model; a run knows its weights, classes and input"
        )
    if not models:
        raise SightlineError("nothing was named to evaluate: give runs, a plan, or --model NAME --weights FILE")
    source = _shared_data(folders) if data is None else {"name": data}
    if splits is not None and len(splits) != 1:
        raise SightlineError(f"--splits names {len(splits)} splits; a table has one")
    apply_overrides(source, options)
    _check_data(folders, source, splits[0] if splits else None, data is None and not options)
    return make_study(
        _defaults(name)
        | {
            "data": source,
            "split": None if splits is None else splits[0],
            "num_images": num_images,
            "models": models,
            "explainers": list(explainers or DEFAULT_EXPLAINERS),
            "metrics": {metric: {} for metric in metrics or METRICS},
            "contrast": contrast,
            "compiled": compiled,
            "precision": precision,
        }
    )


def load_active_learning(
    source: str | Path,
    changes: Sequence[str] = (),
    *,
    strategies: Sequence[str] | None = None,
    initial_fraction: float | None = None,
    step_fraction: float | None = None,
    rounds: int | None = None,
    seeds: int | None = None,
    columns: Sequence[str] | None = None,
) -> Study:
    """Load active learning over a recipe, or a plan of it from a YAML file with `kind: active_learning`.

    Args:
        source: a recipe that sightline ships, a recipe file, or a plan.
        changes: `key.sub=value` each, of the recipe, or of the plan.
        strategies: names of what is compared, each with the first; None = all that there are, `random` first.
        initial_fraction: as for `ActiveLearning`, as are the others; None = its default, or the plan's.
        step_fraction: see `ActiveLearning`.
        rounds: see `ActiveLearning`.
        seeds: how many, from 0 on; None = 3.
        columns: see `ActiveLearning`; None = accuracy on the main test split and, with masks, mIoU and energy of Grad-CAM.

    Raises:
        SightlineError: there is no such recipe, plan, name or key, or a value is out of its range.
    """
    given: dict[str, Any] = {
        "initial_fraction": initial_fraction,
        "step_fraction": step_fraction,
        "rounds": rounds,
        "columns": columns,
        "variants": strategies,
    }
    if seeds is not None:
        given["seeds"] = list(range(seeds))
    given = {key: value for key, value in given.items() if value is not None}
    file = Path(source)
    plan = read_mapping(file, f"plan {file}") if file.is_file() else {}
    if "kind" in plan:
        return make_study(_defaults(file.stem, "active_learning") | plan | given, changes)

    recipe = read_recipe(source, changes)
    if columns is None:
        splits = recipe.data.create()
        test = splits.main_test
        maps = [f"{test}/miou@gradcam", f"{test}/energy_in_mask@gradcam"] if splits[test].has_mask.any() else []
        given["columns"] = [f"{test}/accuracy", *maps]
    if strategies is None:
        given["variants"] = sorted(QUERY_STRATEGIES.names(), key=lambda name: name != "random")
    keys = {key: parse_yaml(text, f"override {key}") for key, _, text in (change.partition("=") for change in changes)}
    return make_study(
        _defaults(recipe.name, "active_learning") | {"recipe": str(source), "keys": keys, "seeds": [0, 1, 2]} | given
    )


def _defaults(name: str, kind: str = "grid") -> dict[str, Any]:
    """Return the title of the user's own study."""
    title = f"{name}: learning from few labels" if kind == "active_learning" else name
    return {"paper": "", "item": name, "kind": kind, "title": title, "source": ""}


def _trained(run: Run) -> dict[str, Any]:
    """Return a run's model, with the weights by which the run is judged."""
    facts = run.facts
    return {
        "label": run.path.name,
        "name": facts["model"]["name"],
        "weights": str(run.weights()),
        "layer": facts["model"]["layer"],
        "size": facts["input_spec"]["size"][0],
        "mean": facts["input_spec"]["mean"],
        "std": facts["input_spec"]["std"],
        "classes": facts["classes"],
    }


def _check_data(runs: Sequence[Run], source: dict[str, Any], split: str | None, own: bool) -> None:
    """Reject data of runs that is not what it was in training, and warn of images that a run was trained on."""
    for run in runs:
        found = read_splits(run) if own else DATASETS.create_source(source)
        name = split or found.main_test
        images = found[name]
        if not own and name != "train":
            warn_of_training_images(run, source["name"], images)


def _shared_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the dataset that all runs were trained on."""
    found = [run.recipe.data.model_dump() for run in runs]
    if not found or any(each != found[0] for each in found):
        raise SightlineError("--data was not given, and there is no data set that all models were trained on")
    return dict(found[0])
