"""One pass over a dataset that explains every image and stores the maps.

Examples:
    >>> digits = sl.data.create_dataset("digits", size=32, copies=1)
    >>> model, spec = sl.load_model("sightline/small_cnn", classes=5, size=32)
    >>> store = sl.maps.compute_maps(model, digits["val"], "maps.zarr", input_spec=spec)
    >>> store.read([0, 1]).shape
    torch.Size([2, 32, 32])
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from sightline._core.checks import check_choice, check_count
from sightline._core.devices import pick_device
from sightline._core.distributed import process_group_ended
from sightline._core.fingerprint import fingerprint
from sightline._core.optional import requires_extra
from sightline._core.output_lock import holding_file
from sightline._core.processes import Launched, check_processes
from sightline._core.progress import bar
from sightline._core.shared_work import processes, several_processes
from sightline.data.dataset import ImageDataset
from sightline.data.loader import Transformed, collate
from sightline.data.map_store import DType, MapStore
from sightline.data.transforms import eval_transform
from sightline.errors import SightlineError
from sightline.explainers import EXPLAINERS, resize_maps
from sightline.explainers.registry import needs_layer
from sightline.inference.precision import Precision, running_in
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection, resolve_layers
from sightline.network.layout import Layer
from sightline.network.tap import unwrap

__all__ = ["MapStore", "compute_maps"]

Explained = Literal["predicted", "label"]


@process_group_ended()
def compute_maps(
    model: nn.Module,
    dataset: ImageDataset,
    path: str | Path,
    method: str = "gradcam",
    *,
    options: Mapping[str, Any] | None = None,
    targets: Explained = "predicted",
    layer: LayerSelection = None,
    input_spec: InputSpec,
    map_size: tuple[int, int] | None = None,
    dtype: DType = "uint8",
    precision: Precision = "fp32",
    chunk_size: int = 32,
    num_workers: int = 0,
    devices: int = 1,
    nodes: int = 1,
    progress: bool = False,
) -> MapStore:
    """Explain every image of a dataset, and keep the maps.

    To resume an interrupted pass, call the function again: at most `chunk_size` maps are lost. A folder with the maps of
    another model, method or dataset is an error. What a method draws at random is keyed by the image's index, so neither
    an interruption nor the number of processes changes a map.

    Args:
        model: a classifier.
        dataset: the images; each is seen as in evaluation: resized, its center square.
        path: the folder of the store.
        method: an explainer's name.
        options: its options.
        targets: the class that is explained: the "predicted" one or the "label".
        layer: the target layer; None chooses by the model's family; the maps of several are averaged.
        input_spec: the model's normalization, and the size at which it sees the images.
        map_size: (h, w) at which maps are kept; None = the images' own.
        dtype: "uint8" for maps in [0, 1], to 1/510, a quarter of the size; "float16" for maps that have signs.
        precision: "bf16" runs the model under bfloat16 autocast.
        chunk_size: images that are explained, and maps that are written, together.
        num_workers: processes that load images, on each device.
        devices: GPUs, or processes where there is no GPU, on each machine; each writes its own files. One: the device that the
            model is on. Processes that share work already (`torchrun -m sightline explain`) do not need it.
        nodes: machines, each started by torchrun or SLURM.
        progress: show a bar with the time that remains.

    Returns:
        The finished store.

    Raises:
        SightlineError: an argument is not as above, or the folder holds something else.
        OutputInUseError: another process writes to the store.
        RunFailedError: the folder cannot be written any more; what is finished is kept.
    """
    if devices * nodes > 1:
        with requires_extra("maps", "compute_maps on several devices"):
            import lightning_fabric  # noqa: F401
    check_choice(Explained, targets=targets)
    check_choice(Precision, precision=precision)
    check_count(chunk_size=chunk_size)
    entry = EXPLAINERS[method]
    entry(**(options or {}))  # rejects what the method does not take, before anything is written
    size = map_size or input_spec.size
    classifier = unwrap(model)
    if targets == "label":
        dataset.check_single_label("targets 'label'")
    like = next(classifier.parameters(), torch.empty(0))
    black = like.new_zeros(1, len(input_spec.mean), *input_spec.size)
    layers = resolve_layers(classifier, layer, black) if needs_layer(method) else None
    facts = {
        "architecture": type(classifier).__name__,
        "model": fingerprint(classifier),
        "method": method,
        "options": _plain(options or {}),
        "layer": None if layers is None else ", ".join(map(_told, layers)),
        "targets": targets,
        "data": dataset.fingerprint,
        "normalization": [list(input_spec.mean), list(input_spec.std)],
        "image size": list(input_spec.size),
    }
    if precision != "fp32":
        facts["precision"] = precision
    with _started(devices, nodes):
        group = processes()
        with group.together(), holding_file(Path(path)) if group.is_first else nullcontext():
            device = like.device if group.size == 1 else pick_device()
            model = model.to(device)
            # One list for all: a process that looked for itself would take what others have written since for earlier work.
            pending = group.once(
                lambda: _pending(MapStore.create(path, facts, (len(dataset), *size), dtype, chunk_size))
            )
            store = MapStore(path)
            mine = group.share(pending)
            loader: DataLoader[Any] = DataLoader(
                Transformed(dataset, eval_transform(input_spec.size[0]), None),
                batch_sampler=[[(0, i) for i in range(s, min(s + store.chunk_size, len(dataset)))] for s in mine],
                num_workers=num_workers,
                collate_fn=_images,
                pin_memory=torch.cuda.is_available(),
            )
            images = sum(min(store.chunk_size, len(dataset) - start) for start in mine)
            with running_in(precision), bar(progress, "explaining", total=images) as advance:
                for start, batch in zip(mine, loader):
                    group.check()
                    batch = batch.to(device, non_blocking=True)
                    wanted = batch.labels if targets == "label" else None
                    explainer = entry(**(options or {})).for_images(batch.images, batch.indices)
                    maps = explainer(model, batch.images, wanted, layers, input_spec)
                    store.write(start, resize_maps(maps, size))
                    advance(len(batch))
            group.join([])
            store.check_finished()
            return store


@contextmanager
def _started(devices: int, nodes: int) -> Iterator[None]:
    """Start processes that share the work inside, unless torchrun has started them, or there is to be one only."""
    shared = processes().size
    if shared > 1 and devices * nodes not in (1, shared):
        raise SightlineError(f"devices={devices} x nodes={nodes} was given; {shared} processes share the work already")
    if devices * nodes == 1 or shared > 1:
        yield
        return
    check_processes(devices * nodes, f"devices={devices} x nodes={nodes}")
    from lightning_fabric import Fabric

    fabric = Fabric(devices=devices, num_nodes=nodes)
    fabric.launch()
    with several_processes(Launched(fabric.global_rank, fabric.world_size, fabric.local_rank)):
        yield


def _images(samples: Sequence[Any]) -> Any:
    return collate(list(samples), masks=False)


def _pending(store: MapStore) -> list[int]:
    """Yield the first sample of each group of `chunk_size` that is not finished."""
    finished = store.finished
    return [
        start
        for start in range(0, len(store), store.chunk_size)
        if not finished[start : start + store.chunk_size].all()
    ]


def _told(layer: Layer) -> str:
    """Return the name of a layer as a store's metadata holds it."""
    return layer.name if layer == Layer(layer.name) else f"{layer.name} ({layer.layout}, prefix {layer.prefix})"


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a store can keep and compare them."""
    strange = [name for name, value in options.items() if not isinstance(value, str | int | float | bool | list | None)]
    if strange:
        raise SightlineError(
            f"option {strange[0]!r} is {type(options[strange[0]]).__name__}; a store keeps plain values"
        )
    return dict(options)
