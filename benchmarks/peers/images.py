"""The sets as every method reads them: square PNGs, masks, labels and contexts, without sightline."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

SPLITS = ("train", "val_own", "val_other", "test_own", "test_other")


@dataclass(frozen=True)
class Images:
    """Images of one or several splits.

    Args:
        pixels: (N, 3, S, S) uint8.
        masks: (N, S, S) uint8, 1 = object.
        labels: (N,) int64.
        contexts: (N,) int64, the class that the background or the stamp goes with.
    """

    pixels: Tensor
    masks: Tensor
    labels: Tensor
    contexts: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor | list[int]) -> "Images":
        """Return some of the images."""
        return Images(self.pixels[rows], self.masks[rows], self.labels[rows], self.contexts[rows])

    def partition(self) -> dict[tuple[int, int], list[int]]:
        """Return the places of the images of each (label, context)."""
        pairs = list(zip(self.labels.tolist(), self.contexts.tolist()))
        return {pair: [n for n, each in enumerate(pairs) if each == pair] for pair in sorted(set(pairs))}


def read(folder: Path, *splits: str) -> Images:
    """Read the images of some splits of an exported set."""
    with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in splits]
    pixels = torch.stack([decode_image(str(folder / row["path"]), ImageReadMode.RGB) for row in rows])
    masks = torch.stack([decode_image(str(folder / row["mask"]), ImageReadMode.GRAY)[0] > 0 for row in rows])
    labels, contexts = torch.tensor([[int(n) for n in row["group"].split(" in ")] for row in rows]).T
    return Images(pixels, masks.to(torch.uint8), labels, contexts)


def normalized(pixels: Tensor) -> Tensor:
    """Return images (..., 3, S, S) of uint8 as the network expects them: mean and standard deviation 0.5."""
    return (pixels.float() / 255 - 0.5) / 0.5


class Plain(Dataset[tuple[Tensor, int]]):
    """Images at one size, normalized, as they are: (image, label)."""

    def __init__(self, images: Images, size: int) -> None:
        self.images = images
        self.labels = images.labels.tolist()
        resize = v2.Resize([size, size], antialias=True)
        self.inputs = normalized(resize(images.pixels))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index], self.labels[index]


class Augmented(Dataset[Any]):
    """Images with another crop, flip and color at every visit: (image, label), with `masks` (image, label, mask)."""

    def __init__(
        self, images: Images, size: int, *, crop: float, flip: bool, jitter: float, masks: bool = False
    ) -> None:
        self.images, self.masks = images, masks
        self.labels = images.labels.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(crop, 1.0), antialias=True),
                v2.RandomHorizontalFlip(0.5 if flip else 0.0),
                v2.ColorJitter(jitter, jitter, jitter),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image = tv_tensors.Image(self.images.pixels[index])
        mask = tv_tensors.Mask(self.images.masks[index])
        image, mask = self.transform(image, mask)
        found = normalized(image.as_subclass(Tensor)), self.labels[index]
        return (*found, mask.as_subclass(Tensor)) if self.masks else found
