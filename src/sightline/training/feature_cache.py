"""What the frozen part of a model makes of the training images, computed once for each of some draws of augmentation.

```python
trunk = Trunk(objective.unwrap_model(), objective.layer, inputs)    # see sightline.finetuning.trunk
store = cached_activations(objective, parts.train_loader(0, 1), trunk)
rows = store.draw(3)                                # all that epoch 3 of a training sees, in its order; computed once
rows.features[0], rows.labels, rows.masks, rows.indices
```
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save
from torch import nn
from torch.utils.data import DataLoader

from sightline._core.files import make_folder, write_atomically
from sightline._core.progress import bar
from sightline._core.reading import read_tensors, reading
from sightline.data.batch import Batch
from sightline.data.dataset import Sample
from sightline.data.loader import EpochSampler, Transformed
from sightline.finetuning.trunk import Trunk
from sightline.network.input_spec import to_inputs
from sightline.objectives.base import Guide
from sightline.objectives.objective import Objective
from sightline.training.feature_batch import FeatureBatch, in_order, join, memory_order

Precision = Callable[[], AbstractContextManager[None]]


class FeatureStore:
    """Draws of all training images, each computed when it is first asked for, and kept.

    Args:
        compute: gives the rows of a draw.
        folder: where the draws are kept as files, of which one is in memory at a time; None = all are kept in memory.
    """

    def __init__(self, compute: Callable[[int], FeatureBatch], folder: Path | None = None) -> None:
        self._compute = compute
        self._folder = folder
        self._kept: dict[int, FeatureBatch] = {}

    def draw(self, number: int) -> FeatureBatch:
        """Return the rows of one draw, in the order of the loader; rows that it leaves out come last, if at all.

        Raises:
            SightlineError: the draw's file is damaged.
            UnwritableError: the draw's file cannot be written.
        """
        if number not in self._kept:
            if self._folder is not None:
                self._kept.clear()
            self._kept[number] = self._compute(number) if self._folder is None else self._on_disk(number, self._folder)
        return self._kept[number]

    def _on_disk(self, number: int, folder: Path) -> FeatureBatch:
        file = folder / f"draw-{number}.safetensors"
        if not file.exists():
            rows = self._compute(number)
            make_folder(folder)
            write_atomically(file, _file(rows))
            return rows
        return _read(file)


def cached_activations(
    objective: Objective,
    loader: "DataLoader[Sample]",
    trunk: Trunk,
    *,
    folder: Path | None = None,
    complete: bool = False,
    device: torch.device | str = "cpu",
    precision: Precision = nullcontext,
) -> FeatureStore:
    """Return a store of what a trunk makes of the batches of a loader; in training, after the guides' image changes.

    Draw d has the batches of epoch d: the same order, augmentation and changes by `Guide.transform` as a training without the
    store has in that epoch, because all of these are keyed by (seed, epoch, index).

    Args:
        objective: the model with the guides that change the images, in the state in which the trunk was cut from the model.
        loader: from `sightline.data.loader.create_loader`; its sampler may be balanced. Of a loader for evaluation there is one
            draw, 0, which keeps labels, indices and groups alone.
        trunk: what comes before the cut.
        folder: keeps the draws on disk, in a subfolder that names what they are of: the trunk's weights, the data, the
            augmentation, the changes by guides, and the order. A later call continues with it. None = in memory.
        complete: add the images that the loader leaves out in a draw, as a balanced sampler and `drop_last` do.
        device: of the model.
        precision: a context such as `fabric.autocast` to compute in.
    """

    trains = cast(Transformed, loader.dataset).seed is not None

    def compute(number: int) -> FeatureBatch:
        batches = _batches(loader, number, complete)
        with torch.random.fork_rng(devices=[]), _epoch_of(objective, loader, number):
            found = []
            with bar(True, f"features, draw {number}", None) as advance:
                for batch in batches:
                    with precision():
                        here = batch.to(device, non_blocking=True)
                        changed = objective.transform(here) if trains else here
                        features = trunk(to_inputs(changed.images, objective.input_spec))
                    found.append(FeatureBatch.of(changed if trains else _labels_alone(changed), features).to("cpu"))
                    advance(1)
        return join(found)

    if folder is not None:
        folder = folder / _digest(objective, loader, trunk, complete, precision)
    return FeatureStore(compute, folder)


def _labels_alone(batch: Batch) -> Batch:
    """Return the labels of a batch next to its features; one pixel of each image, so images take no time."""
    return Batch(batch.images[..., :1, :1], batch.labels, indices=batch.indices, groups=batch.groups)


def _batches(loader: "DataLoader[Sample]", draw: int, complete: bool) -> Iterator[Batch]:
    """Yield the batches of a draw, and then those of the images that they leave out."""
    seen = set()
    for batch in cast(Iterable[Batch], loader):
        assert batch.indices is not None
        seen.update(batch.indices.tolist())
        yield batch
    if not complete:
        return
    data, size = cast(Transformed, loader.dataset), cast(int, loader.batch_size)
    left = [(draw, index) for index in range(len(data)) if index not in seen]
    for start in range(0, len(left), size):
        yield loader.collate_fn([data[key] for key in left[start : start + size]])


@contextmanager
def _epoch_of(objective: Objective, loader: "DataLoader[Sample]", number: int) -> Iterator[None]:
    """Have objective and loader draw as in a training epoch, and give them their own epoch back."""
    sampler = cast(EpochSampler, loader.sampler)
    before = objective.epoch, objective.training, sampler.epoch
    objective.epoch, objective.training = number, True
    sampler.set_epoch(number)
    try:
        yield
    finally:
        objective.epoch, objective.training, epoch = before
        sampler.set_epoch(epoch)


def _digest(
    objective: Objective, loader: "DataLoader[Sample]", trunk: Trunk, complete: bool, precision: Precision
) -> str:
    """Return a digest that distinguishes these draws from others in the same folder."""
    data, sampler = cast(Transformed, loader.dataset), cast(EpochSampler, loader.sampler)
    guides = [] if data.seed is None else [guide for guide in objective.guides if isinstance(guide, Guide)]
    changing = [guide for guide in guides if type(guide).transform is not Guide.transform]
    with precision():
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    identity = [
        trunk.identity,
        data.dataset.fingerprint,
        *repr(data.transform).split(),
        None if data.maps is None else sorted(data.maps.metadata.items(), key=str),
        [(type(guide).__name__, _options(guide)) for guide in changing],
        objective.input_spec,
        (data.seed, sampler.seed, sampler.length, loader.batch_size, loader.drop_last, complete),
        None if sampler.strata is None else sampler.strata.tolist(),
        dtype,
    ]
    return hashlib.blake2b(repr(identity).encode(), digest_size=8).hexdigest()


def _options(guide: nn.Module) -> list[tuple[str, object]]:
    return sorted((name, value) for name, value in vars(guide).items() if name[0] != "_" and name != "training")


def _file(rows: FeatureBatch) -> bytes:
    """Return the rows as a safetensors file, which holds contiguous tensors."""
    orders = {name: memory_order(each) for name, each in rows.tensors.items()}
    packed = {name: each.permute(orders[name]).contiguous() for name, each in rows.tensors.items()}
    return save(packed, {"images": json.dumps(list(rows.images.shape)), "orders": json.dumps(orders)})


def _read(file: Path) -> FeatureBatch:
    """Read the rows in a file."""
    advice = f"remove {file.parent}, and give the command again"
    tensors, metadata = read_tensors(file, advice)
    with reading(file, advice):
        orders, shape = json.loads(metadata["orders"]), json.loads(metadata["images"])
        named = {name: in_order(each, orders[name]) for name, each in tensors.items()}
        features = [named.pop(f"features/{n}") for n in range(sum(name.startswith("features/") for name in named))]
        pixels = torch.zeros(1, 1, 1, 1).expand(shape)
        plain = object.__new__(Batch)
        plain.__dict__.update({f.name: named.get(f.name) for f in fields(Batch)} | {"images": pixels})
        plain._last_class, plain._ranges = (plain.labels, 0), {}
        return FeatureBatch.of(plain, features)
