"""Write the folder of an exported model: whole and checked, or not at all."""

import copy
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sightline._core.files import check_new, replacing_folder
from sightline._core.optional import EXTRAS, missing_dependency
from sightline._core.output_lock import holding_file
from sightline.errors import SightlineError, unknown_name
from sightline.exporting.model_card import model_card
from sightline.exporting.programs import BATCH_SIZES, FILES, FORMATS, Program, write_programs
from sightline.network.input_spec import InputSpec
from sightline.network.logits import class_count
from sightline.network.tap import unwrap
from sightline.runs.load_run import load_run
from sightline.runs.run import Run


def export_run(run: str | Path | Run, output: str | Path, formats: Sequence[str] = FORMATS) -> Path:
    """Export the model that a run trained: of its best epoch where the recipe selects one, else of the last.

    Args:
        run: a run or its folder.
        output: the folder to write; see `export_model`.
        formats: which of "state-dict", "torch-export" and "onnx".

    Returns:
        The folder.

    Raises:
        SightlineError: there is no such run or checkpoint; see also `export_model`.
    """
    run = Run.open(run)
    run.weights()
    _check(output, formats)
    loaded = load_run(run, device="cpu")
    return export_model(
        loaded.model,
        output,
        formats,
        input_spec=loaded.input_spec,
        classes=loaded.classes,
        name=loaded.recipe.model.name,
    )


def export_model(
    model: nn.Module,
    output: str | Path,
    formats: Sequence[str] = FORMATS,
    *,
    input_spec: InputSpec,
    classes: Sequence[str],
    name: str | None = None,
) -> Path:
    """Write a classifier, in evaluation mode and on the CPU, and `model.json`, which says how to load and feed it.

    Every program is read back and asked for the logits of batches of one and of several images before the folder gets its
    name, so a folder of that name is complete and correct.

    Args:
        model: does not change.
        output: the folder to write; it must not exist, or be empty.
        formats: "state-dict" is `model.safetensors`, under the model's own keys; "torch-export" is `model.pt2`, and "onnx" is
            `model.onnx`, both for normalised images (B, C, H, W) of the spec's size, with any B, to logits (B, K); of a model
            that carries its own explainer (IMPACTX, WAE) to logits and maps (B, H, W).
        input_spec: the normalisation and size; it is written down, and is not part of the programs.
        classes: a name for each logit; of a model with one logit, of both its classes.
        name: what `load_model` calls the model; None = a model from elsewhere, which its owner knows how to make.

    Returns:
        The folder.

    Raises:
        SightlineError: the folder holds something, a format is unknown, needs a package that is not installed or cannot
            express the model, or `classes` and the model's logits differ in number.
    """
    folder = _check(output, formats)
    model = copy.deepcopy(unwrap(model)).cpu().eval()
    images = _random_images(model, input_spec)
    program = Program(model)
    with torch.no_grad():
        logits = program.named(images)["logits"].shape[1]
    if len(classes) != class_count(logits):
        told = "one logit, for two classes" if logits == 1 else f"{logits} logits"
        raise SightlineError(f"classes names {len(classes)} classes; the model has {told}")

    with holding_file(folder), replacing_folder(folder) as temporary:
        _check(folder, formats)  # again: another process may have written it
        if "state-dict" in formats:
            state = {key: tensor.clone().contiguous() for key, tensor in model.state_dict().items()}
            (temporary / FILES["state-dict"]).write_bytes(save(state, {"format": "pt"}))
        if "torch-export" in formats or "onnx" in formats:
            write_programs(program, images, formats, temporary)
        card = model_card(model, formats, input_spec, list(classes), logits, name, program.outputs)
        (temporary / "model.json").write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
    return folder


def _check(output: str | Path, formats: Sequence[str]) -> Path:
    """Return the folder to write, or raise what prevents the export from its beginning."""
    if not formats:
        raise SightlineError(f"formats is empty; expected some of {', '.join(FORMATS)}")
    for each in formats:
        if each not in FORMATS:
            raise unknown_name("format", each, FORMATS)
    if "onnx" in formats:
        for package in EXTRAS["export"]:
            if find_spec(package) is None:
                raise missing_dependency(package, "export", "format 'onnx'")
    folder = Path(output)
    check_new(folder, "is not empty; choose an empty folder")
    return folder


def _random_images(model: nn.Module, spec: InputSpec) -> Tensor:
    """Return images (B, C, H, W) of normal noise that programs are checked with, in the dtype of the model."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(max(BATCH_SIZES), len(spec.mean), *spec.size, generator=draw)
    return images.to(next(model.parameters()).dtype)
