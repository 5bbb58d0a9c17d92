"""Deep features: the input of a model's last linear layer, for images and for whole classes.

Examples:
    >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
    >>> loader = [sl.Batch(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 0, 1]))]
    >>> means = sl.features.class_features(model, loader)
    >>> explainer = sl.create_explainer("lots", target="mean", class_features=means)
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sightline._core.files import write_atomically
from sightline._core.fingerprint import fingerprint
from sightline._core.reading import read_tensors, reading
from sightline._core.seeding import derive_seed
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.data.loader import Transformed
from sightline.errors import SightlineError
from sightline.network.forms import check_open, eager
from sightline.network.head import head_name
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerChoice, resolve_layers
from sightline.network.logits import returned_logits
from sightline.network.modes import evaluating, in_this_thread
from sightline.network.tap import first_of, unwrap

FORMAT = "sightline class features 1"


class DeepFeatures:
    """A model's features at one place, as vectors; a call is one forward pass, with a graph where gradients are enabled.

    Args:
        model: any classifier; DDP, Fabric and compiled wrappers are taken off.
        layer: None = the input of the layer that classifies (the last linear one); `"logits"` = the model's output; else a
            layer whose output is taken: a name, a module or a `Layer`.

    Attributes:
        place: where the features are taken, in words.

    Raises:
        SightlineError: there is no such layer, or several were given.
    """

    def __init__(self, model: nn.Module, layer: LayerChoice | None = None) -> None:
        self.model = unwrap(model)
        self._is_input = layer is None
        if layer == "logits":
            self._name, self.place = None, "logits"
        elif layer is None:
            with eager(self.model):
                check_open(self.model, "")
                self._name = head_name(self.model)[0]
            self.place = f"input of {self._name}"
        else:
            layers = resolve_layers(self.model, layer)
            if len(layers) != 1:
                raise SightlineError(
                    f"layer names {len(layers)} layers; deep features are those of one; name one layer"
                )
            self._name = layers[0].name
            self.place = f"output of {self._name}"

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the features (B, D), float32 at least, of inputs (B, C, H, W) as the model takes them."""
        kept: list[Tensor] = []
        if self._name is None:
            kept.append(returned_logits(self.model(inputs)))
        else:

            def keep(value: Any) -> None:
                kept.append(first_of(value).clone())  # in-place operations that follow must not reach what we keep

            with eager(self.model, [self._name]):
                module = self.model.get_submodule(self._name)
                if self._is_input:
                    handle = module.register_forward_pre_hook(in_this_thread(lambda module, args: keep(args)))
                else:
                    handle = module.register_forward_hook(in_this_thread(lambda module, args, output: keep(output)))
                with handle:
                    self.model(inputs)
        if len(kept) != 1:
            raise SightlineError(
                f"layer {self._name!r} ran {len(kept)} times in a forward pass; choose one that runs once"
            )
        return at_least_float32(kept[0].flatten(1))


@dataclass(frozen=True)
class ClassFeatures:
    """What a model makes of each class of a dataset.

    Attributes:
        means: (K, D) mean features of the class's images; zeros for a class without any.
        examples: (K, D) features of one of its images, chosen at random.
        example_indices: (K,) int64, which image that is; -1 for a class without any.
        counts: (K,) int64 images of each class.
        origin: what the features come from: fingerprints of the model and the data, the layer, the normalization, the seed.
    """

    means: Tensor
    examples: Tensor
    example_indices: Tensor
    counts: Tensor
    origin: dict[str, str]

    def of(self, classes: Tensor, which: Literal["mean", "class"]) -> Tensor:
        """Return the mean features (`"mean"`) or those of one image (`"class"`) of each of these classes (B,), as (B, D).

        Raises:
            SightlineError: the dataset had no image of a class.
        """
        indices = classes.cpu()
        known = (indices < len(self.counts)) & (self.counts[indices.clamp_max(len(self.counts) - 1)] > 0)
        if not known.all():
            raise SightlineError(
                f"the class features know no image of the classes {indices[~known].unique().tolist()[:10]}; "
                "give targets among the classes of the data they were made from"
            )
        return (self.means if which == "mean" else self.examples)[indices].to(classes.device)

    def check(self, model: nn.Module, layer: LayerChoice | None, input_spec: InputSpec | None) -> None:
        """Reject another model, another state of its weights, another layer or another normalization."""
        self._refuse_other(_origin(DeepFeatures(model, layer), input_spec))

    def save(self, file: str | Path) -> None:
        """Write a safetensors file: whole, or not at all."""
        tensors = {f.name: getattr(self, f.name).contiguous() for f in fields(self) if f.name != "origin"}
        write_atomically(
            Path(file), save(tensors, {"sightline": json.dumps({"format": FORMAT, "origin": self.origin})})
        )

    @classmethod
    def load(cls, file: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SightlineError: there is no such file, or it holds something else.
        """
        advice = "make the class features again with `class_features`"
        tensors, metadata = read_tensors(Path(file), advice)
        with reading(file, advice):
            known = json.loads(metadata.get("sightline", "{}"))
            if known.get("format") != FORMAT:
                raise SightlineError(f"class features: {file} was not written by `save`")
            return cls(**tensors, origin=known["origin"])

    def _refuse_other(self, origin: dict[str, str]) -> None:
        for key, value in origin.items():
            if self.origin[key] != value:
                raise SightlineError(
                    f"class features: made with {key} {self.origin[key]!r}, and here it is {value!r}; "
                    "make them again with `class_features`"
                )


def class_features(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    layer: LayerChoice | None = None,
    input_spec: InputSpec | None = None,
    seed: int = 0,
    file: str | Path | None = None,
    data: str | None = None,
) -> ClassFeatures:
    """Compute the mean features of each class, and those of one random image of each, in one pass over a dataset.

    Sums are kept in float64. Which image stands for its class depends on the seed and the images' indices alone, not on how
    they are batched or ordered.

    Args:
        model: a classifier; used in eval mode, every module's flag is restored.
        batches: a loader of the training set, without augmentation.
        layer: where the features are taken, as in `DeepFeatures`.
        input_spec: normalizes the images inside.
        seed: of the choice of one image per class.
        file: a safetensors file to read instead, if it exists and was made from the same model and data; else to write.
        data: with a file, what tells these images from others; None = the dataset's fingerprint and the transform, for a
            loader of `sightline.data.loader`.

    Raises:
        SightlineError: the images are missing, a label is negative, the file was made from another model, layer, normalization
            or data, or the data cannot be distinguished from others.
    """
    features = DeepFeatures(model, layer)
    origin = _origin(features, input_spec) | {"seed": str(seed)}
    if file is not None:
        origin["data"] = _identity(batches) if data is None else data
        if Path(file).exists():
            stored = ClassFeatures.load(file)
            stored._refuse_other(origin)
            return stored

    device = next((p.device for p in features.model.parameters()), None)
    sums, examples = torch.zeros(0, 1, dtype=torch.float64), torch.zeros(0, 1)
    counts = torch.zeros(0, dtype=torch.int64)
    example_indices, least = counts, counts
    seen = 0
    with torch.inference_mode(False), torch.no_grad(), evaluating(features.model):
        for batch in batches:
            if batch.multi_label:
                raise SightlineError("features of classes need images with one label each; these can have several")
            images = batch.images.to(device, non_blocking=True)
            rows = features(to_inputs(images, input_spec)).cpu()
            labels = batch.labels.cpu()
            if labels.min() < 0:
                raise SightlineError(f"a label is {int(labels.min())}; expected classes from 0 on")
            if seen == 0:
                sums, examples = sums.expand(0, rows.shape[1]), rows[:0]
            more = max(0, int(labels.max()) + 1 - len(counts))
            sums, examples, counts = _longer(sums, more, 0), _longer(examples, more, 0), _longer(counts, more, 0)
            example_indices = _longer(example_indices, more, -1)
            least = _longer(least, more, torch.iinfo(torch.int64).max)
            sums.index_add_(0, labels, rows.double())
            counts.index_add_(0, labels, torch.ones_like(labels))
            indices = torch.arange(seen, seen + len(batch)) if batch.indices is None else batch.indices
            for row, label, index in zip(rows, labels.tolist(), indices.tolist()):
                # The image with the smallest of its keyed draws is a uniform choice, for any number of images.
                if (draw := derive_seed(seed, index, "class example")) < least[label]:
                    least[label], example_indices[label], examples[label] = draw, index, row
            seen += len(batch)
    if seen == 0:
        raise SightlineError("batches holds no batch; class features need at least one image")
    means = (sums / counts[:, None].clamp_min(1)).to(examples.dtype)
    made = ClassFeatures(means, examples, example_indices, counts, origin)
    if file is not None:
        made.save(file)
    return made


def _longer(table: Tensor, rows: int, value: int) -> Tensor:
    """Return a table (K, ...) with this many more rows, filled with a value."""
    return torch.cat([table, table.new_full((rows, *table.shape[1:]), value)])


def _origin(features: DeepFeatures, input_spec: InputSpec | None) -> dict[str, str]:
    return {"model": fingerprint(features.model), "layer": features.place, "input": repr(input_spec)}


def _identity(batches: Iterable[Batch]) -> str:
    """Return a key that distinguishes the images of one loader from others: its dataset's fingerprint and its transforms."""
    transformed = getattr(batches, "dataset", None)
    if not isinstance(transformed, Transformed):
        raise SightlineError(
            "data is None, and these batches do not come from sightline.data.loader; give data= a name that changes with "
            "the images"
        )
    return " ".join([transformed.dataset.fingerprint, *repr(transformed.transform).split()])
