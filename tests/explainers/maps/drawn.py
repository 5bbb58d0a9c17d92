"""A data set that needs no files."""

import torch
from torchvision import tv_tensors

import sightline as sl
from sightline.data import ImageDataset, Sample

SPEC = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (16, 16))


class Pictures(ImageDataset):
    """Random pictures of different shapes."""

    def __init__(self, count: int = 10, identity: object = None) -> None:
        super().__init__(["a", "b", "c"], [i % 3 for i in range(count)], [False] * count, identity=identity)

    def load(self, index: int) -> Sample:
        shape = (3, 20 + 2 * (index % 3), 24)
        pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return Sample(tv_tensors.Image(pixels), int(self.labels[index]), None, index, None, f"{index}.png")
