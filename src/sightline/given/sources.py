"""The items of a user's data in any container."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
)
from torchvision import tv_tensors
from torchvision.datasets import DatasetFolder
from torchvision.datasets.folder import default_loader

from sightline.data.batch import Batch
from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError
from sightline.given.items import Item, read_item
from sightline.given.pixels import Normalization, as_pixels, is_float

LOOKED_AT = 32  # images that decide whether float values are normalized

FORMS = (
    "a folder, a CSV file, a dataset, loader or list of (image, label) or of mappings, or a table with paths and labels"
)


@dataclass(frozen=True)
class Items:
    """Items by place, which are read only when they are asked for.

    Attributes:
        values: what `read_item` takes, or an `Item`.
        classes: the names of the classes that labels count; None = not known.
        labels: the label of each item, known without reading it; None = not known.
    """

    values: Sequence[Any]
    classes: list[str] | None = None
    labels: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: int) -> Item:
        value = self.values[place]
        return value if isinstance(value, Item) else read_item(value, place)


class Chosen(Sequence[Any]):
    """Some places of a sequence."""

    def __init__(self, values: Sequence[Any], places: Sequence[int]) -> None:
        self.values, self.places = values, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        return self.values[self.places[place]]


def find_items(data: Any, normalization: Normalization | None = None) -> Items:
    """Return the items of data in any form.

    Args:
        data: what a user has.
        normalization: that of the model, which the images of a loader may have gone through.

    Raises:
        SightlineError: the data has no form that is known.
    """
    if hasattr(data, "columns") and hasattr(data, "shape"):
        return Items(_rows(data))
    if isinstance(data, Mapping):
        names = ", ".join(map(str, data))
        raise SightlineError(
            f"data is a mapping with the keys {names}; expected one of its values, such as a split of it"
        )
    if isinstance(data, str | bytes) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        raise SightlineError(f"data is a {type(data).__name__}; expected {FORMS}")
    if isinstance(data, Subset):
        inner, places = find_items(data.dataset, normalization), [int(place) for place in data.indices]
        labels = None if inner.labels is None else [inner.labels[place] for place in places]
        return replace(inner, values=Chosen(inner.values, places), labels=labels)
    if isinstance(data, DatasetFolder) and data.loader is default_loader and data.target_transform is None:
        return Items(data.samples, list(data.classes))  # the files themselves, before any transform
    if isinstance(data, DataLoader) and _shows_dataset_once(data):
        return find_items(data.dataset, normalization)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(each, np.ndarray | Tensor) for each in data):
        images, known = data
        if len(images) != len(known):
            raise SightlineError(f"data has {len(images)} images and {len(known)} labels; expected as many")
        return Items([Item(image, label) for image, label in zip(images, known)])
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, DataLoader):
        items = Items(data, _class_names(data))
        return replace(items, labels=_known_labels(data, items))
    return Items(list(_collected(data, normalization)), _class_names(getattr(data, "dataset", data)))


def take_batches(data: Any) -> tuple[list[Batch] | None, Any]:
    """Return the batches if data is made of `Batch`, else None; and the data, whose first element may have been looked at."""
    if isinstance(data, list | tuple):
        return (list(data) if all(isinstance(each, Batch) for each in data) else None), data
    if not hasattr(data, "__iter__") or hasattr(data, "__getitem__") or isinstance(data, ImageDataset):
        return None, data
    elements = iter(data)
    first = next(elements, None)
    if isinstance(first, Batch):
        return [first, *elements], data
    return None, chain([first], elements) if elements is data else data


def applied_normalization(items: Iterable[Item], normalization: Normalization | None) -> Normalization | None:
    """Return the normalization of float images, as some of them show, with a warning; None = none, or unknown."""
    if normalization is None or all(_is_in_unit_range(item.image) for item in items):
        return None
    warnings.warn(
        "the images of the data are normalized; the mean and std of the model were taken back. Leave the normalization out of "
        "the transform of the data to be sure",
        stacklevel=4,
    )
    return normalization


def _is_in_unit_range(image: Any) -> bool:
    return not is_float(image) or (float(image.min()) >= -0.1 and float(image.max()) <= 1.1)


def _rows(table: Any) -> list[dict[str, Any]]:
    """Return the rows of a table of pandas or polars."""
    if hasattr(table, "to_dicts"):
        return list(table.to_dicts())
    if not hasattr(table, "to_dict"):
        raise SightlineError(f"data is a {type(table).__name__}; expected {FORMS}")
    return list(table.to_dict("records"))


def _class_names(data: Any) -> list[str] | None:
    """Return the class names of a dataset of torchvision or Hugging Face."""
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):
        named = [list(each.names) for each in features.values() if isinstance(getattr(each, "names", None), list)]
        return named[0] if len(named) == 1 else None
    classes = getattr(data, "classes", None)
    if not isinstance(classes, list | tuple):
        return None
    return [str(each[0] if isinstance(each, tuple) else each) for each in classes]  # a tuple holds synonyms


def _known_labels(data: Any, items: Items) -> list[Any] | None:
    """Return the labels that a dataset of torchvision lists, if some of its items agree with them."""
    listed = getattr(data, "targets", None)
    if listed is None or getattr(data, "target_transform", None) is not None:
        return None
    try:
        labels = torch.as_tensor(listed)
        if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(items) or not len(labels):
            return None
        for place in {0, len(labels) // 2, len(labels) - 1}:
            if int(items[place].label) != int(labels[place]):
                return None
    except Exception:  # the labels are found by reading every item instead
        return None
    return labels.tolist()


def _shows_dataset_once(loader: "DataLoader[Any]") -> bool:
    """Whether a loader shows every item of its dataset as the dataset has it."""
    sampler = loader.sampler
    whole = type(sampler) is SequentialSampler or (
        isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    batches = loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler
    plain = loader.collate_fn is default_collate or loader.batch_sampler is None
    return whole and batches and plain and not loader.drop_last and not isinstance(loader.dataset, IterableDataset)


def _collected(data: Iterable[Any], normalization: Normalization | None) -> Iterator[Item]:
    """Yield the items of an iterable, with their images as 8-bit pixels, which takes the smallest memory."""
    buffer: list[Item] = []
    undo: Normalization | None = None
    decided = False
    for place, item in enumerate(_unbatched(data)):
        buffer.append(replace(item, name=item.name or f"image {place}"))
        if not decided and len(buffer) == LOOKED_AT:
            undo, decided = applied_normalization(buffer, normalization), True
        if decided:
            yield from (_as_8_bits(each, undo) for each in buffer)
            buffer = []
    undo = undo if decided else applied_normalization(buffer, normalization)
    yield from (_as_8_bits(each, undo) for each in buffer)


def _as_8_bits(item: Item, undo: Normalization | None) -> Item:
    return replace(item, image=as_pixels(item.image, str(item.name), undo))


def _unbatched(data: Iterable[Any]) -> Iterator[Item]:
    """Yield the items of samples or batches, one by one."""
    for place, value in enumerate(data):
        if isinstance(value, Batch):
            yield from _rows_of_batch(value)
            continue
        item = read_item(value, place)
        if not isinstance(item.image, list | tuple) and getattr(item.image, "ndim", 0) != 4:
            yield item
            continue
        for row in range(len(item.image)):
            label = None if item.label is None else item.label[row]
            mask = None if item.mask is None else item.mask[row]
            yield Item(item.image[row], label, mask)


def _rows_of_batch(batch: Batch) -> Iterator[Item]:
    for row in range(len(batch)):
        masks = []
        for regions, has in ((batch.masks, batch.has_mask), (batch.avoid, batch.has_avoid)):
            known = regions is not None and (has is None or bool(has[row]))
            masks.append(tv_tensors.Mask(regions[row].cpu()) if regions is not None and known else None)
        yield Item(batch.images[row], batch.labels[row], *masks)
