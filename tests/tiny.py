"""A data set and recipes that train in a fraction of a second, and a command to train them in another process.

python tiny.py RECIPE.yaml OUTPUT [DEVICES]
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torchvision import tv_tensors

from sightline.data import DATASETS, Sample, Splits
from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError
from sightline.runs import Recipe
from sightline.training import train

SIDE = 32
VALIDATION_SEED = 1


class Squares(ImageDataset):
    """A bright square on noise: red is class 0 and blue is class 1; every third image has no mask."""

    def __init__(self, images: int, seed: int) -> None:
        self.noise = torch.randint(0, 60, (images, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
        labels = [i % 2 for i in range(images)]
        super().__init__(
            ["red", "blue"],
            labels,
            [i % 3 > 0 for i in range(images)],
            groups=["even", "odd"],
            group_ids=labels,
            identity=("squares", seed),
        )

    def load(self, index: int) -> Sample:
        label = int(self.labels[index])
        image = self.noise[index].to(torch.uint8)
        top, left = index % 16, 3 * index % 16
        image[2 * label, top : top + 12, left : left + 12] += 120
        mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
        mask[top : top + 12, left : left + 12] = 1
        return Sample(
            image=tv_tensors.Image(image),
            label=label,
            mask=tv_tensors.Mask(mask) if self.has_mask[index] else None,
            index=index,
            group=label,
            path=str(index),
        )


@DATASETS.register("squares")
def squares(images: int = 20, seed: int = 0) -> Splits:
    """Red and blue squares."""
    return Splits({"train": Squares(images, seed), "val": Squares(8, VALIDATION_SEED), "test": Squares(8, 2)})


def recipe(**changes: Any) -> Recipe:
    """A guided recipe of three steps an epoch, with these keys changed."""
    keys = {
        "name": "squares",
        "data": "squares",
        "image_size": SIDE,
        "model": "sightline/lenet5",
        "guide": {"name": "segment_overlap", "beta": 0.5},
        "batch_size": 8,
        "stages": [{"epochs": 2, "lr": 1e-3}],
    }
    return Recipe(**(keys | changes))


if __name__ == "__main__":
    torch.set_num_threads(1)
    source, output, *rest = sys.argv[1:]
    try:
        train(source, output=output, resume=True, devices=int(rest[0]) if rest else 1)
    except SightlineError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    assert Path(output, "run.json").exists()
