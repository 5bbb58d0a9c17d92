"""`open_model`: the one place that opens a trained classifier to judge, explain or mend it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline.data.dataset import ImageDataset
from sightline.data.files import locate
from sightline.datasets.derived.relabeled import match_classes
from sightline.datasets.imagenet_names import COUNT, are_wnids, imagenet_classes, imagenet_wnids
from sightline.errors import SightlineError
from sightline.models.checkpoint import read_checkpoint
from sightline.models.hugging_face import classifies_by_texts, find_folder
from sightline.models.loading import FORMS, check_name, make_model
from sightline.models.made import Made, spec_of
from sightline.models.weights import load_checkpoint
from sightline.network.head import head_name
from sightline.network.input_spec import InputSpec
from sightline.network.logits import class_count, returned_logits
from sightline.network.modes import evaluating
from sightline.network.tap import unwrap


@dataclass(frozen=True)
class OpenedModel:
    """A trained classifier with what is known of it.

    Attributes:
        name: of the model, for pages and messages.
        model: in eval mode, on the device it was opened on.
        input_spec: the normalization and the size of its input.
        classes: the name of each class; None = nothing names them.
        count: how many classes it tells apart.
        notes: what was assumed, unwrapped, renamed or left out, in words.
        layer: where its maps are taken; None = chosen by its family.
    """

    name: str
    model: nn.Module
    input_spec: InputSpec
    classes: list[str] | None
    count: int
    notes: list[str]
    layer: str | None = None

    @property
    def names(self) -> list[str]:
        """A name for each class: its own; ImageNet's for 1000 classes; else the indices."""
        if self.classes is not None:
            return self.classes
        return imagenet_classes() if self.count == COUNT else [str(index) for index in range(self.count)]

    def match(self, data: ImageDataset) -> ImageDataset:
        """Return a dataset whose classes are counted as the model counts them.

        Classes are matched by name where the model has names. Otherwise the logits are taken to be in the order of the data's
        classes, of which there must be as many.

        Raises:
            SightlineError: the classes are not those of the model.
        """
        if self.classes is not None:
            return match_classes(data, self.classes, "the model")
        if len(data.classes) == self.count:
            return data
        if self.count == COUNT:
            names = imagenet_wnids() if are_wnids(data.classes) else self.names
            return match_classes(data, names, "the model")
        raise SightlineError(
            f"the model has {self.count} classes without names and the data has {len(data.classes)}; name those of the model "
            "in its order by --classes FILE, one per line (classes= in Python)"
        )

    def describe(self) -> list[str]:
        """Lines that say how the model sees images, what its classes are, and what was assumed or changed."""
        shown = self.names[:5]
        names = "" if self.classes is None else f": {', '.join(shown)}{', ...' if self.count > len(shown) else ''}"
        return [f"input: {self.input_spec}", f"classes: {self.count}{names or ', not named'}", *self.notes]


def open_model(
    reference: str | nn.Module,
    weights: str | Path | None = None,
    *,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | str | Path | None = None,
    input_spec: InputSpec | None = None,
) -> OpenedModel:
    """Open a trained classifier.

    Args:
        reference: `timm/<name>`, `torchvision/<name>`, `sightline/<name>`, `hf:<folder>`, `package.module:function` (a function
            or class that returns the model), or a module, which does not change except for its mode and its weights.
        weights: a file or folder of weights, or "default" for those of the library; None for a module, a function or a folder
            of Hugging Face, which have their own.
        size: side of the input in pixels; None = the model's own.
        mean: mean of the normalization, for images in [0, 1], one value per channel or one for all; None = the model's own.
        std: standard deviation of the normalization, likewise.
        classes: the name of each class in the order of the logits, or a file with one a line; None = as the model or its
            weights say. A folder of CLIP, SigLIP and the like becomes a zero-shot classifier of these classes.
        input_spec: input specification of a module, instead of size, mean and std.

    Raises:
        SightlineError: there is no such model, its weights cannot be read or do not fit, it does not take images of that size,
            or `classes` are not as many as it has.

    Returns:
        The model in eval mode with its input, the names of its classes, and notes on what was assumed.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> opened = sl.open_model(model, size=64, mean=[0.5], std=[0.25], classes=["cat", "dog"])
        >>> opened.classes
        ['cat', 'dog']
    """
    if size is not None and size < 1:
        raise SightlineError(f"size is {size}; expected a number of pixels, at least 1")
    if isinstance(reference, str):
        if weights is None and check_name(reference)[0] not in ("hf", "function"):
            raise SightlineError(
                f"weights were not given for {reference}; expected a file, or 'default' for the library's"
            )
        source, plain = check_name(reference)
        texts = source == "hf" and classes is not None and classifies_by_texts(find_folder(plain))
        names = read_names(classes) if texts and classes is not None else None
        name, made = reference, make_model(reference, weights, names, size)
    elif isinstance(reference, nn.Module):
        name, made = type(unwrap(reference)).__name__, _from_module(reference, weights, size, input_spec)
    else:
        raise SightlineError(f"model is a {type(reference).__name__}; expected an nn.Module, or {FORMS}")
    return as_opened(name, made, mean=mean, std=std, classes=classes)


def as_opened(
    name: str,
    made: Made,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | str | Path | None = None,
) -> OpenedModel:
    """Return a made model as `open_model` does, which describes the arguments."""
    spec = normalized_by(made.spec, mean, std)
    given = mean is not None and std is not None
    notes = [note for note in made.notes if not (given and "is assumed to be" in note)]
    model = made.model.eval()
    count = class_count(_logits(model, spec))
    names = made.classes if classes is None else read_names(classes)
    if names is not None and len(names) != count:
        raise SightlineError(
            f"classes names {len(names)} classes; the model has {count}. Name each, in the order of the "
            "logits (a file: one a line)"
        )
    return OpenedModel(name, model, spec, names, count, notes)


def normalized_by(spec: InputSpec, mean: Sequence[float] | None, std: Sequence[float] | None) -> InputSpec:
    """Return an input specification with another mean or standard deviation.

    Raises:
        SightlineError: a value is not of images in [0, 1], or there is not one for each channel.
    """
    channels = len(spec.mean)
    changes: dict[str, Any] = {}
    for key, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        given = tuple(values) * channels if len(values) == 1 else tuple(values)
        if len(given) != channels:
            raise SightlineError(f"{key} has {len(given)} values; expected one, or one for each of {channels} channels")
        if max(given) > 2:
            raise SightlineError(f"{key} is {list(given)}; expected values for images in [0, 1]: divide them by 255")
        changes[key] = given
    return replace(spec, **changes)


def _from_module(module: nn.Module, weights: str | Path | None, size: int | None, input_spec: InputSpec | None) -> Made:
    notes: list[str] = []
    if weights is not None:
        inner = unwrap(module)
        notes = load_checkpoint(inner, read_checkpoint(locate(weights, "weights")), head_name(inner))
    if input_spec is not None:
        return Made(module, input_spec if size is None else replace(input_spec, size=(size, size)), notes=notes)
    spec, assumed = spec_of(unwrap(module), size)
    return Made(module, spec, notes=notes + assumed)


def _logits(model: nn.Module, spec: InputSpec) -> int:
    """How many logits a model returns for an image of its size."""
    like = next(model.parameters(), torch.zeros(0))
    image = torch.zeros(1, len(spec.mean), *spec.size, device=like.device, dtype=like.dtype)
    try:
        with evaluating(model), torch.no_grad():
            return returned_logits(model(image)).shape[1]
    except SightlineError:
        raise
    except Exception as error:  # the model rejects the image in its own way
        raise SightlineError(
            f"the model does not take images of {spec.size[0]} x {spec.size[1]} pixels with {len(spec.mean)} channels "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); give the size that it was trained with by "
            "--size (size= in Python)"
        ) from error


def read_names(classes: Sequence[str] | str | Path) -> list[str]:
    """Class names as given, or from a file with one a line."""
    if not isinstance(classes, str | Path):
        return list(classes)
    file = Path(classes)
    if not file.is_file():
        raise SightlineError(
            f"--classes: there is no file {str(classes)!r}; expected a text file, one class name per line"
        )
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SightlineError(f"--classes: cannot read {classes} as text with one name a line: {error}") from error
