"""Images whose background gives the class away, and a network whose head reads it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sightline.data import DATASETS
from sightline.heads import fit_linear
from sightline.network.input_spec import InputSpec

SIZE = 48
OBJECTS = {"apple": (220, 30, 30), "leaf": (30, 220, 30)}
GROUNDS = {"apple": (40, 40, 200), "leaf": (200, 200, 40)}
SPEC = InputSpec((0.5,) * 3, (0.5,) * 3, (SIZE, SIZE))


def picture(kind: str, ground: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image with a colored square on a colored background, and the mask of the square."""
    image = np.clip(np.array(GROUNDS[ground]) + random.normal(0, 25, (SIZE, SIZE, 3)), 0, 255)
    top, left = random.integers(4, SIZE - 24, 2)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[top : top + 18, left : left + 18] = 1
    image[mask == 1] = np.clip(np.array(OBJECTS[kind]) + random.normal(0, 25, (int(mask.sum()), 3)), 0, 255)
    return image.astype(np.uint8), mask


def write(folder: Path, swapped: bool, count: int, seed: int) -> Path:
    """Write `count` images of each class in class folders, with masks in a parallel folder."""
    random = np.random.default_rng(seed)
    for kind in OBJECTS:
        ground = {"apple": "leaf", "leaf": "apple"}[kind] if swapped else kind
        for number in range(count):
            image, mask = picture(kind, ground, random)
            for part, pixels in (("images", image), ("masks", mask * 255)):
                file = folder / part / kind / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    return folder


def stack(folder: Path) -> tuple[Tensor, Tensor]:
    """All images of a folder in [0, 1], and their labels."""
    data = DATASETS.create("folder", root=str(folder / "images"), val=0, test=0)["train"]
    images = torch.stack([data[i].image.as_subclass(Tensor) / 255 for i in range(len(data))])
    return images, data.labels


def accuracy(model: nn.Module, folder: Path) -> float:
    images, labels = stack(folder)
    with torch.no_grad():
        return (model(SPEC.normalize(images)).argmax(1) == labels).double().mean().item()


def read_masks(folder: Path) -> dict[str, np.ndarray]:
    """The mask of each image by the path of the image."""
    files = sorted((folder / "masks").rglob("*.png"))
    return {file.relative_to(folder / "masks").as_posix(): np.asarray(Image.open(file)) for file in files}


def cheating_model(folder: Path) -> nn.Module:
    """A random network whose head is a logistic regression on images as they are."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 64, 3, 2, 1), nn.ReLU())
    trunk = nn.Sequential(first, nn.Conv2d(64, 64, 3, 2, 1))
    model = nn.Sequential(trunk, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)).eval()
    images, labels = stack(folder)
    with torch.no_grad():
        weight, bias = fit_linear(model[:-1](SPEC.normalize(images)), labels, strength=0.1)
        model[-1].weight.copy_(weight)
        model[-1].bias.copy_(bias)
    return model
