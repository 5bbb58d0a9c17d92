"""A trained run, evaluated from its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from sightline._core.fingerprint import fingerprint
from sightline.data import DATASETS
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.evaluation.measuring import DEFAULT_EXPLAINERS, DEFAULT_METRICS, TargetClass, evaluate_model
from sightline.evaluation.result import Evaluation
from sightline.evaluation.writing import check_writable, write
from sightline.models import load_model
from sightline.training import Run, read_recipe
from sightline.training.loggers import log_figures

GALLERY = 256  # images that are kept with their maps


def evaluate(
    run: str | Path | Run,
    splits: Sequence[str] | None = None,
    explainers: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    *,
    checkpoint: Literal["last", "best"] | None = None,
    target: TargetClass = "predicted",
    max_images_slow: int | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> dict[str, Evaluation]:
    """Evaluate a run, and write what was found to its folder, under `evaluation/<split>`.

    Args:
        run: a run or its folder.
        splits: those to evaluate; None = the recipe's, else all whose name begins with "test".
        explainers: names; None = the recipe's, else `DEFAULT_EXPLAINERS`.
        metrics: names; None = the recipe's, else `DEFAULT_METRICS`.
        checkpoint: None = the best one where the recipe names the metric that selects it, else the last.
        target: the class that maps and scores are about: the "predicted" one or the "label".
        max_images_slow: how many images of each split the slow metrics (insertion, deletion) see; None = the recipe's number.
        batch_size: images that are loaded and explained together.
        device: None = a GPU where there is one.

    Returns:
        What was found, by split.

    Raises:
        SightlineError: there is no such run, checkpoint, split or name.
        RunFailedError: the folder cannot be written to.
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    if not (run.path / "recipe.yaml").is_file():
        raise SightlineError(f"{run.path} is not a run folder: it holds no recipe.yaml")
    recipe = read_recipe(run.path / "recipe.yaml")
    weights = _weights(run, checkpoint or ("best" if recipe.select is not None else "last"))
    data = DATASETS.create(recipe.data.name, **recipe.data.options)
    names = splits or recipe.evaluation.splits or [name for name in data if name.startswith("test")]
    if not names:
        raise SightlineError(f"the data has no test split; choose from {', '.join(data)} by splits")
    chosen = {name: data[name] for name in names}
    check_writable(run.path / "evaluation")

    model, spec = load_model(recipe.model.name, weights, len(data.classes), recipe.size)
    model.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    model.to(memory_format=torch.channels_last)  # faster convolutions on most hardware, the same numbers
    facts = {"checkpoint": str(weights.relative_to(run.path)), "model_fingerprint": fingerprint(model)}
    found: dict[str, Evaluation] = {}
    for name, dataset in chosen.items():
        found[name] = evaluate_model(
            model,
            create_loader(dataset, size=spec.size[0], batch_size=batch_size, train=False, workers=recipe.workers),
            explainers or recipe.evaluation.explainers or DEFAULT_EXPLAINERS,
            metrics or recipe.evaluation.metrics or DEFAULT_METRICS,
            input_spec=spec,
            layer=recipe.model.layer,
            target=target,
            max_images_slow=recipe.evaluation.max_images_slow if max_images_slow is None else max_images_slow,
            gallery=GALLERY,
            subset_key=f"{name}/{dataset.fingerprint}",
            progress=True,
        )
        split: dict[str, Any] = {"split": name, "data_fingerprint": dataset.fingerprint, **facts}
        write(found[name], run.path / "evaluation" / name, split, [dataset.path(i) for i in range(len(dataset))])
        Console(stderr=True).print(_line(name, found[name]), highlight=False, soft_wrap=True)
    log_figures(run, recipe, {f"{name}/{r.column}": r.value for name, each in found.items() for r in each.results})
    return found


def _weights(run: Run, checkpoint: str) -> Path:
    known = {"last": run.last, "best": run.best}
    if checkpoint not in known:
        raise SightlineError(f"checkpoint is {checkpoint!r}; expected 'last' or 'best'")
    if not known[checkpoint].is_file():
        raise SightlineError(f"{run.path} has no checkpoint {checkpoint!r}; was it trained to the end?")
    return known[checkpoint]


def _line(split: str, evaluation: Evaluation) -> str:
    """The figures that judge no map, and the first explainer's, for whoever waits at a terminal."""
    first = next((r.explainer for r in evaluation.results if r.explainer is not None), None)
    shown = [r for r in evaluation.results if r.explainer in (None, first)]
    return f"{split} (n = {evaluation.facts['n']})  " + "  ".join(f"{r.column} {r.value:.4g}" for r in shown)
