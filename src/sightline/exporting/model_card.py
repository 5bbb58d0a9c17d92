"""`model.json`: how to load an exported model and what to feed it."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from sightline.exporting.programs import FILES, FORMATS, Format
from sightline.models import load_model
from sightline.models.library import library_options
from sightline.models.loading import check_name
from sightline.network.input_spec import InputSpec


def model_card(
    model: nn.Module,
    formats: Sequence[str],
    spec: InputSpec,
    classes: list[str],
    logits: int,
    name: str | None,
    outputs: Sequence[str],
) -> dict[str, Any]:
    """Return the content of `model.json`.

    Args:
        model: the exported classifier.
        formats: those that are written.
        spec: normalization and size of the images.
        classes: their names.
        logits: how many logits the model returns: as many as classes, or one for two classes.
        name: of the model for `load_model`; None = a model from elsewhere.
        outputs: names of the tensors that a program returns.
    """
    library = None if name is None else check_name(name)[0]
    heads = classes if library == "hf" and logits == len(classes) else logits  # a model of texts is made by names
    needs = None if name is None else _sightline_parts(model, name, heads, spec)
    load: dict[Format, list[str]] = {
        "state-dict": _load_state_dict(model, name, heads, spec, needs is not None),
        "torch-export": ["import torch", f"model = torch.export.load({FILES['torch-export']!r}).module()"],
        "onnx": _load_onnx(outputs),
    }
    return {
        "format": "sightline export 1",
        "name": name,
        "library": library,
        "classes": classes,
        "mean": spec.mean,
        "std": spec.std,
        "size": spec.size,
        "input": "(pixels / 255 - mean) / std, float (B, C, H, W); of an image the shorter side is resized to size, and the "
        "centre is kept",
        "outputs": list(outputs),
        "one_logit": f"sigmoid(logits) is the probability of {classes[1]!r}" if logits == 1 else None,
        "files": {each: FILES[each] for each in FORMATS if each in formats},
        "load": {each: load[each] for each in FORMATS if each in formats},
        "state_dict_needs": needs,
    }


def _sightline_parts(model: nn.Module, name: str, classes: int | list[str], spec: InputSpec) -> str | None:
    """Return what sightline adds to the model of the library, in words; None = nothing, the library alone loads the weights."""
    library = check_name(name)[0]
    plain = load_model(name, None, classes, spec.size[0])[0].state_dict().keys()
    added = sorted(model.state_dict().keys() - plain)
    if not added and library in ("timm", "torchvision"):
        return None
    return "sightline" + (f", for {', '.join(added)}, which {library}'s model does not have" if added else "")


def _load_state_dict(
    model: nn.Module, name: str | None, classes: int | list[str], spec: InputSpec, by_sightline: bool
) -> list[str]:
    """Return lines of Python that make the model and load its weights."""
    load = f"model.load_state_dict(safetensors.torch.load_file({FILES['state-dict']!r}))"
    if name is None:
        made = f"model = ...  # a {type(model).__module__}.{type(model).__qualname__}"
        return ["import safetensors.torch", made, load]
    if by_sightline:
        call = f"sightline.load_model({name!r}, {FILES['state-dict']!r}, {classes}, {spec.size[0]})"
        return ["import sightline", f"model, spec = {call}", "model.eval()"]
    library, plain = check_name(name)
    given = "".join(
        f", {key}={value!r}"
        for key, value in library_options(
            name, classes if isinstance(classes, int) else len(classes), spec.size[0]
        ).items()
    )
    maker = "timm.create_model" if library == "timm" else "torchvision.models.get_model"
    return [f"import safetensors.torch, {library}", f"model = {maker}({plain!r}{given}).eval()", load]


def _load_onnx(outputs: Sequence[str]) -> list[str]:
    """Return lines of Python that load the ONNX file as a function of images."""
    first = "[0]" if len(outputs) == 1 else ""
    return [
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({FILES['onnx']!r})",
        f"model = lambda images: session.run({list(outputs)!r}, {{'images': images}}){first}  # float32 NumPy arrays",
    ]
