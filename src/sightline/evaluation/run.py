"""A trained run, evaluated from its folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from sightline._core.fingerprint import fingerprint
from sightline._core.shared_work import processes
from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError
from sightline.evaluation.measuring import DEFAULT_EXPLAINERS, DEFAULT_METRICS, TargetClass, evaluate_model
from sightline.evaluation.precision_change import describe_change
from sightline.evaluation.result import Evaluation
from sightline.evaluation.split_folder.folder import check_writable, write_evaluation
from sightline.inference.precision import Precision
from sightline.runs import Run, load_run
from sightline.training.loggers import log_values

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
    precision: Precision | None = None,
    device: str | torch.device | None = None,
) -> dict[str, Evaluation]:
    """Evaluate a run, and write what was found to its folder, under `evaluation/<split>`.

    Of several processes that share work, each one evaluates its share of the images, and the first one writes.

    Args:
        run: a run or its folder.
        splits: those to evaluate; None = the recipe's, else all whose name begins with "test".
        explainers: names; None = the recipe's, else `DEFAULT_EXPLAINERS`.
        metrics: names; None = the recipe's, else `DEFAULT_METRICS`.
        checkpoint: None = the best one where the recipe names the metric that selects it, else the last.
        target: the class that maps and scores are about: the "predicted" one or the "label".
        max_images_slow: how many images of each split the slow metrics (insertion, deletion) see; None = the recipe's number.
        batch_size: images that are loaded and explained together.
        precision: "fp32", or "bf16" for bfloat16 autocast, whose change of the values is measured; None = the recipe's.
        device: None = a GPU where there is one.

    Returns:
        What was found, by split.

    Raises:
        SightlineError: there is no such run, checkpoint, split or name.
        RunFailedError: the folder cannot be written to.
    """
    loaded = load_run(run, device, checkpoint)
    run, recipe, data = loaded.run, loaded.recipe, loaded.splits
    names = splits or recipe.evaluation.splits or [name for name in data if name.startswith("test")]
    if not names:
        raise SightlineError(f"the data has no test split; choose from {', '.join(data)} by splits")
    chosen = {name: data[name] for name in names}
    group = processes()
    group.once(lambda: check_writable(run.path / "evaluation"))

    facts = {"checkpoint": str(loaded.weights.relative_to(run.path)), "model_fingerprint": fingerprint(loaded.model)}
    found: dict[str, Evaluation] = {}
    for name, dataset in chosen.items():
        found[name] = evaluate_model(
            loaded.model,
            loaded.loader(dataset, batch_size),
            explainers or recipe.evaluation.explainers or DEFAULT_EXPLAINERS,
            metrics or recipe.evaluation.metrics or DEFAULT_METRICS,
            input_spec=loaded.input_spec,
            layer=loaded.layer,
            target=target,
            max_images_slow=recipe.evaluation.max_images_slow if max_images_slow is None else max_images_slow,
            gallery=GALLERY,
            subset_key=f"{name}/{dataset.fingerprint}",
            precision=precision or recipe.evaluation.precision,
            progress=True,
        )
        split: dict[str, Any] = {"split": name, "data_fingerprint": dataset.fingerprint, **facts}
        group.once(lambda: _report(run, name, found[name], split, dataset))  # noqa: B023
    values = {f"{name}/{r.column}": r.value for name, each in found.items() for r in each.results}
    group.once(lambda: log_values(run, recipe, values))
    return found


def _report(run: Run, name: str, evaluation: Evaluation, facts: dict[str, Any], dataset: ImageDataset) -> None:
    """Write the evaluation of a split, and print its values."""
    paths = [dataset.path(index) for index in range(len(dataset))]
    write_evaluation(evaluation, run.path / "evaluation" / name, facts, paths)
    print(_line(name, evaluation), file=sys.stderr)
    if "precision_change" in evaluation.facts:
        print(describe_change(evaluation.facts["precision_change"]), file=sys.stderr)


def _line(split: str, evaluation: Evaluation) -> str:
    """Return the values that need no map, and the first explainer's, for the terminal."""
    first = next((r.explainer for r in evaluation.results if r.explainer is not None), None)
    shown = [r for r in evaluation.results if r.explainer in (None, first)]
    return f"{split} (n = {evaluation.facts['n']})  " + "  ".join(f"{r.column} {r.value:.4g}" for r in shown)
