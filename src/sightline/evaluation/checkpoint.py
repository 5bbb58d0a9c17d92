"""A checkpoint of any training, measured as a run was, so both can be compared."""

from pathlib import Path
from typing import Any

import torch

from sightline._core.devices import pick_device
from sightline._core.fingerprint import fingerprint
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.evaluation.measuring import evaluate_model
from sightline.evaluation.run import GALLERY
from sightline.evaluation.run_folder import RunFolder
from sightline.evaluation.split_folder import read_evaluation, write_evaluation
from sightline.models.opening import open_model
from sightline.runs import load_run


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
    model = opened.model.to(pick_device(device)).to(memory_format=torch.channels_last)
    facts = {"checkpoint": str(weights), "model_fingerprint": fingerprint(model)}
    evaluations = {}
    for split, evaluation in like.evaluations.items():
        dataset = loaded.splits[split]
        keys = list(evaluation.results)
        measured = evaluate_model(
            model,
            create_loader(
                dataset, size=spec.size[0], batch_size=32, train=False, num_workers=loaded.recipe.num_workers
            ),
            list(dict.fromkeys(key.explainer for key in keys if key.explainer is not None)),
            list(dict.fromkeys(key.metric for key in keys)),
            input_spec=spec,
            layer=loaded.layer,
            max_images_slow=loaded.recipe.evaluation.max_images_slow,
            gallery=GALLERY,
            subset_key=f"{split}/{dataset.fingerprint}",
            precision=evaluation.facts.get("precision", "fp32"),
            progress=True,
        )
        about = {"split": split, "data_fingerprint": dataset.fingerprint, **facts}
        write_evaluation(measured, folder / split, about, [dataset.path(i) for i in range(len(dataset))])
        evaluations[split] = read_evaluation(folder / split)
    known = ("classes", "group_names", "model", "versions")
    info: dict[str, Any] = {key: like.info[key] for key in known if key in like.info}
    info |= {"name": weights.name, "seed": -1, "status": "finished", "guide": None, "checkpoint": True}
    return RunFolder(weights, info, {}, {}, evaluations)
