"""gallery.safetensors: some images with the maps of every model and explainer."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from sightline._core.reading import read_tensors, reading
from sightline.data.batch import non_empty
from sightline.errors import SightlineError
from sightline.evaluation.grid_folder.cells import Cell
from sightline.evaluation.result import SavedImages

FILE = "gallery.safetensors"


def gallery_safetensors(images: Mapping[str, Tensor], maps: Mapping[tuple[str, str], Tensor]) -> bytes:
    """Return images and maps as a safetensors file.

    Args:
        images: "index" (N,), "images" (N, C, H, W) uint8 and, if there are any, "masks" (N, H, W) uint8.
        maps: (model, explainer) -> (N, H, W) uint8.
    """
    named = {f"maps/{model}/{explainer}": some for (model, explainer), some in maps.items()}
    return save({"index": images["index"], **named, **images})


def read_gallery(path: Path, cells: Iterable[Cell]) -> dict[str, SavedImages]:
    """Return model -> the images with its maps; nothing if there is no such file.

    Args:
        path: The file.
        cells: The table's cells, which tell models from explainers in the names of the maps.
    """
    if not path.is_file():
        return {}
    tensors, _ = read_tensors(path)
    with reading(path):
        index, images = tensors["index"], tensors["images"]
    maps: dict[str, dict[str, Tensor]] = {}
    for model, explainer in dict.fromkeys((cell.model, cell.explainer) for cell in cells):
        if (key := f"maps/{model}/{explainer}") in tensors:
            maps.setdefault(model, {})[explainer] = tensors[key]
    for name, tensor in tensors.items():
        if len(tensor) != len(index):
            raise SightlineError(f"{path}: {name} holds {len(tensor)} images; index has {len(index)}")
    masks = tensors.get("masks")
    has_mask = index.new_zeros(len(index)).bool() if masks is None else non_empty(masks == 1)
    return {model: SavedImages(index, images, masks, has_mask, some) for model, some in maps.items()}
