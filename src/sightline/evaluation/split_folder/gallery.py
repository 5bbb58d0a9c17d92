"""gallery/: images of a split as JPEG files, their masks as PNG files, and their maps as one safetensors file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from sightline._core.reading import read_tensors, reading
from sightline.evaluation.result import SavedImages

MAPS = "maps.safetensors"
ADVICE = "evaluate the run again"


@dataclass(frozen=True)
class SavedGallery:
    """The images of a split that were kept with their maps. Images and masks are read when they are asked for.

    Attributes:
        folder: The gallery's folder.
        index: (N,) Position of each image in the split.
        maps: Explainer -> (N, h, w) uint8.
    """

    folder: Path
    index: list[int]
    maps: dict[str, Tensor]

    def image(self, index: int) -> Tensor:
        """Return the image (3, H, W) in [0, 1]."""
        return _pixels(self.folder / "images" / f"{index}.jpg", "RGB") / 255

    def mask(self, index: int) -> Tensor | None:
        """Return the mask (H, W) bool, True on the object; None for an image without a mask."""
        path = self.folder / "masks" / f"{index}.png"
        return _pixels(path, "L")[0] == 1 if path.exists() else None


def write_gallery(gallery: SavedImages, folder: Path) -> None:
    """Write the images to a new folder."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / MAPS).write_bytes(save({"index": gallery.index, **gallery.maps}))
    for i, index in enumerate(gallery.index.tolist()):
        to_pil_image(gallery.images[i]).save(folder / "images" / f"{index}.jpg", quality=90)
        if gallery.masks is not None and gallery.has_mask[i]:
            to_pil_image(gallery.masks[i]).save(folder / "masks" / f"{index}.png")


def read_gallery(folder: Path) -> SavedGallery | None:
    """Return the gallery of a folder; None if the evaluation kept no images."""
    path = folder / MAPS
    if not path.exists():
        return None
    tensors, _ = read_tensors(path, ADVICE)
    with reading(path, ADVICE):
        return SavedGallery(folder, tensors.pop("index").tolist(), tensors)


def _pixels(path: Path, mode: str) -> Tensor:
    with reading(path, ADVICE), Image.open(path) as image:
        return pil_to_tensor(image.convert(mode)).to(torch.float32)
