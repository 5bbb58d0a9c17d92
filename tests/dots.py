"""A data set that trains in a fraction of a second: a red or a blue square on noise, with its mask and its group."""

import torch
from torchvision import tv_tensors

from sightline.data import DATASETS, Sample, Splits
from sightline.data.dataset import ImageDataset

SIDE = 32
KEYS = {
    "name": "dots", "data": "coloured_dots", "image_size": SIDE, "model": "sightline/lenet5", "batch_size": 8,
    "augment": {"crop": 1.0, "flip": False}, "stages": [{"epochs": 1, "lr": 1e-3}],
}  # fmt: skip


class Dots(ImageDataset):
    """The first half of the images is red."""

    def __init__(self, images: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.noise = torch.randint(0, 60, (images, 3, SIDE, SIDE), generator=draw).to(torch.uint8)
        labels = [int(2 * i >= images) for i in range(images)]
        groups = [i % 2 for i in range(images)]
        super().__init__(
            ["red", "blue"], labels, [True] * images, groups=["even", "odd"], group_ids=groups, identity=("dots", seed)
        )

    def load(self, index: int) -> Sample:
        image, place = self.noise[index].clone(), slice(index % 16, index % 16 + 12)
        image[2 * int(self.labels[index]), place, place] += 120
        mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
        mask[place, place] = 1
        return Sample(
            tv_tensors.Image(image),
            int(self.labels[index]),
            tv_tensors.Mask(mask),
            index,
            index % 2,
            f"dots/{index}.png",
        )


@DATASETS.register("coloured_dots")
def dots(seed: int = 0) -> Splits:
    """Red and blue squares."""
    return Splits({"train": Dots(20, seed), "test": Dots(8, 1)})
