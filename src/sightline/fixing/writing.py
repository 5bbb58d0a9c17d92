"""The folder that `fix` writes: the mended model, the masks, a recipe and the report."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.io import encode_png

from sightline._core.files import check_new, replacing_folder, write_atomically
from sightline._core.output_lock import holding_file
from sightline.data.transforms import eval_transform, resize_mask
from sightline.errors import SightlineError
from sightline.explainers import explain
from sightline.exporting import export_model
from sightline.fixing.card import render_card
from sightline.fixing.reading import Given
from sightline.fixing.report import Look, render_report
from sightline.fixing.result import Fixed
from sightline.models.opening import OpenedModel
from sightline.network.logits import logits_of
from sightline.reporting.overlay import blend
from sightline.reporting.thumbnails import data_uri, enlarge, outline
from sightline.runs.recipe import Recipe

SHOWN = 12  # images in the report


def check_output(output: Path) -> None:
    """Reject a folder that holds something."""
    check_new(output, "is not empty; choose an empty folder")


def write_fixed(fixed: Fixed, opened: OpenedModel, given: Given, output: Path) -> Path:
    """Write all that `fix` found, and return the path of the report.

    `model/` holds the mended model as `export_model` writes it, `masks/` a mask for each image with one, `recipe.yaml` a
    training of the whole network from here where the model has a name, `MODEL_CARD.md` the verdict in words, `fix.json`
    every figure, and `report.html` the page.

    Raises:
        SightlineError: the folder holds something.
        UnwritableError: a file cannot be written.
    """
    check_output(output)
    with holding_file(output), replacing_folder(output) as folder:
        write_masks(fixed, given, folder / "masks")
        write_model(fixed, opened, given, folder, output / "masks")
    return output / "report.html"


def write_model(fixed: Fixed, opened: OpenedModel, given: Given, folder: Path, masks: Path | None = None) -> list[Path]:
    """Write the model, its card, `recipe.yaml`, `fix.json` and the report into a folder that exists, instead of earlier ones.

    Args:
        fixed: what was found.
        opened: the given model.
        given: the images with their marks.
        folder: where to.
        masks: where the masks will be, for the recipe; None = in `masks/` of the folder.
    """
    model = folder / "model"
    if model.exists():
        shutil.rmtree(model)
    export_model(
        fixed.model, model, ["state-dict", "torch-export"], input_spec=fixed.input_spec, classes=fixed.classes,
        name=_library_name(opened),
    )  # fmt: skip
    texts = {
        "fix.json": json.dumps(facts_of(fixed, opened, given), indent=1, ensure_ascii=False),
        "MODEL_CARD.md": render_card(fixed, opened, given),
        "report.html": render_report(fixed, opened, given, looks(fixed, opened, given)),
    }
    masks = folder / "masks" if masks is None else masks
    if (recipe := recipe_of(opened, given, masks)) is not None:
        texts["recipe.yaml"] = recipe
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [model, *(folder / name for name in texts)]


def write_masks(fixed: Fixed, given: Given, folder: Path) -> None:
    """Write a PNG for each image with a mask, 255 = object, at the size of the image."""
    for index, (name, relative) in enumerate(zip(given.names, given.relative_names)):
        if name in fixed.masks:
            file = (folder / relative).with_suffix(".png")
            if file.exists():
                raise SightlineError(f"the mask of {name} would be that of another image too; rename one of them")
            size = given.images[index].image.shape[-2:]
            mask = resize_mask(torch.from_numpy(fixed.masks[name]), size)
            file.parent.mkdir(parents=True, exist_ok=True)
            encoded = encode_png((mask == 1).to(torch.uint8)[None] * 255)
            file.write_bytes(encoded.numpy().tobytes())


def recipe_of(opened: OpenedModel, given: Given, masks: Path) -> str | None:
    """Return a recipe that trains the whole network from the mended weights; None for a model without a name or a folder."""
    name = _library_name(opened)
    if name is None or given.root is None:
        return None
    data = {"name": "folder", "root": str(given.root), "masks": str(masks), "test": 0.0, "skip_corrupt": True}
    recipe = Recipe.model_validate(
        {
            "name": "after-fix",
            "data": data,
            "image_size": opened.input_spec.size[0],
            "model": {
                "name": name,
                "weights": str(masks.parent / "model" / "model.safetensors"),
                "mean": list(opened.input_spec.mean),
                "std": list(opened.input_spec.std),
            },
            "guide": {"name": "random_background", "probability": 0.5},
            "batch_size": 16,
            "augment": {"crop": 0.25, "jitter": 0.3},
            "stages": [{"epochs": 8, "lr": 1e-4}],
            "schedule": "cosine",
        }
    )
    return recipe.to_yaml()


def _library_name(opened: OpenedModel) -> str | None:
    """Return the name by which `load_model` makes the model; None for one of the user's own."""
    return opened.name if opened.name.startswith(("timm/", "torchvision/", "sightline/")) else None


def facts_of(fixed: Fixed, opened: OpenedModel, given: Given) -> dict[str, Any]:
    """Return all values and settings as plain values."""
    return {
        "helped": fixed.helped,
        "summary": fixed.summary,
        "table": [asdict(figure) for figure in fixed.table],
        "chosen": asdict(fixed.chosen),
        "candidates": [asdict(each) for each in fixed.candidates],
        "model": opened.name,
        "input_spec": asdict(fixed.input_spec),
        "classes": fixed.classes,
        "data": given.images.fingerprint,
        "marked": [given.names[index] for index in given.drawn().nonzero()[:, 0].tolist()],
        "notes": fixed.notes,
        "seconds": fixed.seconds,
    }


def looks(fixed: Fixed, opened: OpenedModel, given: Given) -> list[Look]:
    """Draw some images, every class equally, with where the model looks before and after."""
    size = opened.input_spec.size[0]
    places = _spread(given.images.labels)
    transform = eval_transform(size)
    images = torch.stack([transform(given.images[i].image).as_subclass(Tensor) for i in places])
    maps, answers = [], []
    for model in (opened.model, fixed.model):
        device = next(model.parameters()).device
        maps.append(explain(model, images.to(device), input_spec=opened.input_spec).cpu())
        with torch.no_grad():
            answers.append(logits_of(model(opened.input_spec.normalize(images.to(device)))).argmax(1))
    found = []
    for row, index in enumerate(places):
        mask = fixed.masks.get(given.names[index])
        border = None
        if mask is not None:
            whole = resize_mask(torch.from_numpy(np.ascontiguousarray(mask)), given.images[index].image.shape[-2:])
            seen = eval_transform(size)(tv_tensors.Mask(whole)).as_subclass(Tensor)
            border = outline(seen == 1)
        shown = enlarge(images[row])
        drawn = [data_uri(blend(shown[None], enlarge(part[row][None]).clamp(0, 1))[0], border) for part in maps]
        label = fixed.classes[int(given.images.labels[index])]
        said = [fixed.classes[int(part[row])] for part in answers]
        found.append(Look(given.names[index], label, said[0], said[1], data_uri(shown, border), drawn[0], drawn[1]))
    return found


def _spread(labels: Tensor) -> list[int]:
    """Yield the first images of each class in turn."""
    by_class = [(labels == label).nonzero()[:, 0].tolist() for label in labels.unique().tolist()]
    turns = [members[turn] for turn in range(max(map(len, by_class))) for members in by_class if turn < len(members)]
    return sorted(turns[:SHOWN])
