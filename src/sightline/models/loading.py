"""`load_model`: one door to the models of sightline, torchvision, timm, Hugging Face folders and the user's own code."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from sightline._core.checks import check_count
from sightline.data.files import locate
from sightline.errors import SightlineError, unknown_name
from sightline.models.checkpoint import Checkpoint, read_checkpoint
from sightline.models.hugging_face import classifies_by_texts, find_folder, make_folder_model
from sightline.models.key_matching import fit_checkpoint
from sightline.models.library import library_names, make_own_model, make_timm_model, make_torchvision_model
from sightline.models.made import Made
from sightline.models.user_model import make_user_model
from sightline.models.weights import load_checkpoint
from sightline.models.zero_shot import make_zero_shot
from sightline.network.head import head_name, head_parameters
from sightline.network.input_spec import InputSpec
from sightline.network.logits import class_count

logger = logging.getLogger(__name__)


def load_model(
    name: str, weights: str | Path | None = None, classes: int | Sequence[str] | None = None, size: int | None = None
) -> tuple[nn.Module, InputSpec]:
    """Load a model by name, unchanged as its library made it, with the input that it expects.

    Args:
        name: `timm/<any>`, `torchvision/<any>`, `sightline/<own>`, `hf:FOLDER` or `package.module:function`.
        weights: None for random ones, those of an `hf:` folder, or as the function makes them; "default" for those that the
            library downloads; or a local file or folder, seen from here or else from the folder that SIGHTLINE_DATA names:
            safetensors, or a checkpoint of torch or Lightning, read without unpickling code.
        classes: number of logits, 1 for two classes with a single logit; None takes that of the weights file, else the
            library's. A head of another number of classes is left random; a linear one is never left at zero. Or the name of
            each class, of which a folder of CLIP, SigLIP and the like makes a classifier over texts.
        size: side of the input in pixels; None takes that of the weights.

    Returns:
        The model in training mode, on the CPU, and its `InputSpec`.

    Raises:
        SightlineError: no such name or file, weights that are not available, or weights that do not fit the model.

    Examples:
        >>> model, input_spec = sl.load_model("sightline/small_cnn", classes=2)
        >>> input_spec.size
        (64, 64)
    """
    made = make_model(name, weights, classes, size)
    return made.model, made.spec


def make_model(
    name: str, weights: str | Path | None = None, classes: int | Sequence[str] | None = None, size: int | None = None
) -> Made:
    """Make a model as `load_model` does, with what is known of it and notes on what was unwrapped, renamed or assumed."""
    source, plain = check_name(name)
    names = None if classes is None or isinstance(classes, int) else list(classes)
    count = classes if classes is None or isinstance(classes, int) else len(classes)
    if count is not None:
        check_count(classes=count)
    if names is not None and source == "hf" and classifies_by_texts(find_folder(plain)):
        made = make_zero_shot(plain, names, size=size)
        if weights is not None:
            found = read_checkpoint(locate(weights, "weights"))
            made.notes[:0] = load_checkpoint(made.model, found, head_name(made.model))
    elif weights is None or weights == "default":
        made = SOURCES[source](plain, weights == "default" or source == "hf", count, size)
        _start_zero_head(made.model)
    else:
        made = _with_weights(source, plain, read_checkpoint(locate(weights, "weights")), count, size)
    made.notes += _to_float32(made.model)
    for note in made.notes:
        logger.info("%s: %s", name if weights is None else weights, note)
    return made


def _to_float32(model: nn.Module) -> list[str]:
    """Convert a model of half or double precision, which does not take float32 images, and return a note; none for others."""
    types = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()} - {"float32"}
    if not types:
        return []
    model.float()
    return [f"the parameters were converted from {' and '.join(sorted(types))} to float32"]


def _with_weights(source: str, plain: str, checkpoint: Checkpoint, classes: int | None, size: int | None) -> Made:
    """Return a model with the weights of a checkpoint; without a number of classes it has as many as the checkpoint."""
    if classes is None:
        bare = SOURCES[source](plain, False, None, size).model
        head = head_name(bare)
        weight = fit_checkpoint(checkpoint, bare, head).state.get(f"{head[0]}.weight")
        classes = None if weight is None else weight.shape[0]
    made = SOURCES[source](plain, False, classes, size)
    _start_zero_head(made.model)
    head = head_name(made.model)
    notes = load_checkpoint(made.model, checkpoint, head)
    logits = head_parameters(made.model)[0].shape[0]
    names = checkpoint.classes if checkpoint.classes and len(checkpoint.classes) == class_count(logits) else None
    if names:
        notes.append(f"the names of the {len(names)} classes are those in {checkpoint.path}")
    return Made(made.model, made.spec, names or made.classes, notes + made.notes)


def _start_zero_head(model: nn.Module) -> None:
    """Start a linear head that the library starts with zeros, such as that of torchvision's ViT, as `nn.Linear` starts.

    Behind a zero head, every class activation map is zero and has no gradient, so a guide on maps never trains.
    """
    for name in head_name(model):
        head = model.get_submodule(name)
        if isinstance(head, nn.Linear) and not head.weight.any():
            head.reset_parameters()


def check_name(name: str) -> tuple[str, str]:
    """Return the source and the plain name in a model's name.

    Raises:
        SightlineError: there is no such model; the message names the nearest.
    """
    if name.startswith("hf:"):
        return "hf", name.removeprefix("hf:")
    if ":" in name:
        return "function", name
    source, _, plain = name.partition("/")
    if source not in LIBRARIES or not plain:
        guess = [f"{s}/{name}" for s in LIBRARIES if name in library_names(s)]
        hint = f"did you mean {guess[0]!r}?" if guess else f"expected {FORMS}"
        raise SightlineError(f"unknown model {name!r}; {hint}")
    base = plain.partition(".")[0] if source == "timm" else plain  # timm's names may end in a tag: resnet18.a1_in1k
    if base not in library_names(source):
        raise unknown_name("model", name, [f"{source}/{n}" for n in library_names(source)])
    return source, plain


LIBRARIES = ("sightline", "timm", "torchvision")
FORMS = "timm/<name>, torchvision/<name>, sightline/<name>, hf:<folder> or package.module:function"
SOURCES: dict[str, Callable[[str, bool, int | None, int | None], Made]] = {
    "sightline": make_own_model,
    "timm": make_timm_model,
    "torchvision": make_torchvision_model,
    "hf": make_folder_model,
    "function": make_user_model,
}
