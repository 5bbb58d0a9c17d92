"""A data set on which every figure is known, and a command that sweeps over it in another process.

python swept.py OUTPUT TRIALS [KILL_TRIAL]
"""

import os
import signal
import sys

import torch
from torchvision import tv_tensors

from sightline.data import DATASETS, Sample, Splits
from sightline.data.dataset import ImageDataset
from sightline.sweeping import Sweep, storage, sweep
from sightline.training.loop import Trainer

RECIPE = {
    "name": "dots",
    "data": {"name": "dots", "share": 0.5},
    "image_size": 32,
    "model": "sightline/lenet5",
    "batch_size": 4,
    "stages": [{"epochs": 3, "lr": 1e-2}],
}
SPACE = {"data.share": [0.25, 0.5, 0.75, 1.0]}


class Dots(ImageDataset):
    """Noise, of which this share is said to be of class 0."""

    def __init__(self, images: int, share: float) -> None:
        labels = [int(i >= share * images) for i in range(images)]
        super().__init__(["zero", "one"], labels, [False] * images, identity=("dots", images, share))

    def load(self, index: int) -> Sample:
        image = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return Sample(tv_tensors.Image(image), int(self.labels[index]), None, index, None, str(index))


@DATASETS.register("dots")
def dots(share: float = 0.5) -> Splits:
    """All training images are of class 0, so that the accuracy on `val` is the share of class 0 in it."""
    return Splits({"train": Dots(12, 1.0), "val": Dots(8, share), "test": Dots(8, 0.0)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    storage.HEARTBEAT, storage.GRACE = 1, 10
    output, trials, *kill = sys.argv[1:]
    finish_epoch = Trainer.finish_epoch

    def dying(self, *arguments):
        finish_epoch(self, *arguments)
        if self.run.path.name == kill[0] and self.state.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    if kill:
        Trainer.finish_epoch = dying
    sweep(Sweep(name="dots", recipe=RECIPE, space=SPACE, trials=int(trials), pruning=None), output)
