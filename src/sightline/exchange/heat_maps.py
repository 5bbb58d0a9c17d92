"""Stored maps as gray images over the whole image, or as the region above a threshold."""

from os.path import abspath, commonpath, dirname, isfile, relpath
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import encode_png

from sightline._core.files import check_new, make_folder, replacing_folder, write_atomically
from sightline.data.dataset import ImageDataset
from sightline.data.file_dataset import FileDataset
from sightline.data.loader import on_image
from sightline.data.map_store import MapStore
from sightline.errors import SightlineError


def open_maps(path: str | Path, dataset: ImageDataset) -> MapStore:
    """Open a finished store of the maps of a dataset.

    Raises:
        SightlineError: the maps are of another dataset, or not finished.
    """
    store = MapStore(path)
    if store.metadata["data"] != dataset.fingerprint:
        raise SightlineError(f"maps: those in {path} are of another dataset or split")
    store.check_finished()
    return store


def whole_map(store: MapStore, dataset: ImageDataset, index: int) -> Tensor:
    """Return the map (H, W) in [0, 1] of a whole image; 0 outside the square that the model sees."""
    size = dataset[index].image.shape[-2:]
    return on_image(store.read([index])[0], size).as_subclass(Tensor)[0].clamp(0, 1)


def relative_names(dataset: ImageDataset) -> list[str]:
    """Return the paths of images in the folder of their dataset, or in the one that all share; other names stay."""
    paths = [dataset.path(index) for index in range(len(dataset))]
    if isinstance(dataset, FileDataset):
        root = str(dataset.root)
    elif all(map(isfile, paths)):
        root = commonpath([dirname(abspath(path)) for path in paths])
    else:
        return paths
    return ["/".join(part for part in Path(relpath(path, root)).parts if part != "..") for path in paths]


def export_heat_maps(dataset: ImageDataset, maps: str | Path, output: str | Path) -> int:
    """Write each stored map as a gray PNG of the size and with the path of its image, 255 = 1, and return how many.

    Args:
        dataset: the images that were explained.
        maps: the folder that `sightline explain --store` wrote.
        output: the folder to write, which must be new.

    Raises:
        SightlineError: the maps are of another dataset or not finished, two images would share a file, or the folder is there.
    """
    store, place = open_maps(maps, dataset), Path(output)
    check_new(place)
    with replacing_folder(place) as folder:
        for index, name in enumerate(relative_names(dataset)):
            file = (folder / name).with_suffix(".png")
            if file.exists():
                raise SightlineError(
                    f"the maps of {dataset.path(index)} and another image would share a file; rename one"
                )
            pixels = (whole_map(store, dataset, index) * 255).round().to(torch.uint8)[None]
            make_folder(file.parent)
            write_atomically(file, encode_png(pixels).numpy().tobytes())
    return len(dataset)
