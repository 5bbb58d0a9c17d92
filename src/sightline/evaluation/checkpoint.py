"""A checkpoint of any training, measured as a run was or on named images, for a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline._core.devices import pick_device
from sightline._core.fingerprint import fingerprint
from sightline.data.dataset import ImageDataset
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.evaluation.measuring import evaluate_model
from sightline.evaluation.run import GALLERY
from sightline.evaluation.run_folder import RunFolder
from sightline.evaluation.split_folder.folder import SplitEvaluation, read_evaluation, write_evaluation
from sightline.given import Normalization, as_dataset, readable_part
from sightline.models.opening import open_model
from sightline.network.input_spec import InputSpec
from sightline.runs import load_run

ALL = "all images"  # the split of images that no run divides
EXPLAINERS = ("gradcam", "randomcam", "gaussian")
METRICS = ("accuracy", "worst_group_accuracy", "miou", "pointing_game", "energy_in_mask", "average_drop")


@dataclass(frozen=True)
class Conditions:
    """How checkpoints are opened and measured where no run says it.

    Attributes:
        model: their model, as `open_model` takes it.
        data: labelled images in any form that `as_dataset` takes.
        size: as for `open_model`.
        mean: as for `open_model`.
        std: as for `open_model`.
        classes: as for `open_model`.
    """

    model: str | nn.Module
    data: Any
    size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: Sequence[str] | str | Path | None = None


def evaluate_checkpoint(
    weights: Path, like: RunFolder, folder: Path, device: str | torch.device | None = None
) -> RunFolder:
    """Measure a checkpoint on the splits of a run, with its model, input, explainers and metrics.

    Args:
        weights: any checkpoint that `open_model` takes, of the architecture of the run.
        like: an evaluated run.
        folder: where the evaluation is written.
        device: None = a GPU where there is one.

    Returns:
        The checkpoint as a run of which only the weights are known.

    Raises:
        SightlineError: the weights do not fit the model of the run, or tell other classes apart.
    """
    loaded = load_run(like.path, "cpu")
    spec, name = loaded.input_spec, str(like.info["model"]["name"])
    opened = open_model(name, weights, size=spec.size[0], mean=spec.mean, std=spec.std)
    if opened.count != len(loaded.classes) or opened.classes not in (None, loaded.classes):
        found = f"{opened.count} classes" if opened.classes is None else f"the classes {opened.classes}"
        raise SightlineError(f"{weights} has {found}; expected those of {like}, in the same order: {loaded.classes}")
    evaluations = {}
    for split, evaluation in like.evaluations.items():
        keys = list(evaluation.results)
        evaluations[split] = _measure(
            opened.model, weights, loaded.splits[split], split, folder, device,
            explainers=list(dict.fromkeys(key.explainer for key in keys if key.explainer is not None)),
            metrics=list(dict.fromkeys(key.metric for key in keys)),
            spec=spec,
            num_workers=loaded.recipe.num_workers,
            layer=loaded.layer,
            max_images_slow=loaded.recipe.evaluation.max_images_slow,
            precision=evaluation.facts.get("precision", "fp32"),
        )  # fmt: skip
    known = ("classes", "group_names", "model", "versions")
    return _as_run(weights, evaluations, {key: like.info[key] for key in known if key in like.info})


def evaluate_on(
    weights: Path, conditions: Conditions, folder: Path, device: str | torch.device | None = None
) -> RunFolder:
    """Measure a checkpoint on named images: accuracy, and Grad-CAM with two chance baselines.

    Args:
        weights: any checkpoint that `open_model` takes.
        conditions: its model and the images.
        folder: where the evaluation is written.
        device: None = a GPU where there is one.

    Returns:
        The checkpoint as a run of which only the weights are known.

    Raises:
        SightlineError: the weights do not fit the model, or no image can be read or has a class of the model.
    """
    c = conditions
    opened = open_model(c.model, weights, size=c.size, mean=c.mean, std=c.std, classes=c.classes)
    spec = opened.input_spec
    given = as_dataset(c.data, classes=opened.names, normalization=Normalization(spec.mean, spec.std))
    given.check_single_label("compare")
    images = readable_part(opened.match(given))
    measured = _measure(
        opened.model, weights, images, ALL, folder, device, explainers=EXPLAINERS, metrics=METRICS, spec=spec
    )
    facts = {
        "classes": images.classes if opened.classes is None else opened.classes,
        "model": {"name": opened.name, "layer": None},
        "input": opened.describe(),
    }
    return _as_run(weights, {ALL: measured}, facts)


def _measure(
    model: nn.Module,
    weights: Path,
    images: ImageDataset,
    split: str,
    folder: Path,
    device: str | torch.device | None,
    *,
    explainers: Sequence[str],
    metrics: Sequence[str],
    spec: InputSpec,
    num_workers: int = 0,
    **options: Any,
) -> SplitEvaluation:
    """Measure a model on a split, write the evaluation, and read it."""
    model = model.to(pick_device(device)).to(memory_format=torch.channels_last)
    loader = create_loader(images, size=spec.size[0], batch_size=32, train=False, num_workers=num_workers)
    measured = evaluate_model(
        model, loader, explainers, metrics, input_spec=spec, gallery=GALLERY,
        subset_key=f"{split}/{images.fingerprint}", progress=True, **options,
    )  # fmt: skip
    about = {
        "split": split,
        "data_fingerprint": images.fingerprint,
        "checkpoint": str(weights),
        "model_fingerprint": fingerprint(model),
    }
    write_evaluation(measured, folder / split, about, [images.path(i) for i in range(len(images))])
    return read_evaluation(folder / split)


def _as_run(weights: Path, evaluations: dict[str, SplitEvaluation], facts: Mapping[str, Any]) -> RunFolder:
    info = {"name": weights.name, "seed": -1, "status": "finished", "guide": None, "checkpoint": True, **facts}
    return RunFolder(weights, info, {}, {}, evaluations)
