"""What a method's function `train(task, **options)` gets: the images or features of a set, the seed and the folder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

import efficientnet
from features import Rows, rows_of
from images import Images, Plain, read
from protocol import BATCH, EPOCHS, HEAD_BATCH, HEAD_EPOCHS, LARGE, ROOT, SIZE, chosen_trial


@dataclass
class Task:
    """One training.

    Args:
        name: of the set.
        seed: of the training.
        frozen: whether the last layer alone is trained, on features.
        folder: where the run may write.
    """

    name: str
    seed: int
    frozen: bool
    folder: Path

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return LARGE if self.frozen else SIZE

    @property
    def set_folder(self) -> Path:
        """The folder of the set."""
        return ROOT / "sets" / self.name

    @cached_property
    def images(self) -> Images:
        """The training images."""
        return read(self.set_folder, "train")

    @cached_property
    def held_out(self) -> Images:
        """The validation images, in both contexts."""
        return read(self.set_folder, "val_own", "val_other")

    @cached_property
    def rows(self) -> Rows:
        """The features of the training images, in all draws of the seed."""
        return rows_of(self.name, f"train{self.seed}")

    @cached_property
    def held_out_rows(self) -> Rows:
        """The features of the validation images."""
        own, other = (rows_of(self.name, split) for split in ("val_own", "val_other"))
        return own.joined(other)

    @property
    def rate(self) -> float:
        """The learning rate that validation chose for cross-entropy."""
        return float(chosen_trial(self.name, "head" if self.frozen else "cross-entropy")["rate"])

    @property
    def batch(self) -> int:
        """Images or rows of a batch."""
        return HEAD_BATCH if self.frozen else BATCH

    @property
    def epochs(self) -> int:
        """Passes over the images, or over the rows of all draws."""
        return HEAD_EPOCHS if self.frozen else EPOCHS

    @cached_property
    def data(self) -> Any:
        """The training data: images with augmentation, or rows; a data set of (input, label)."""
        return self.rows if self.frozen else efficientnet.augmented(self.images, self.name, self.size)

    @cached_property
    def plain(self) -> Any:
        """The same without augmentation, in the same order; rows are as they are."""
        return self.rows if self.frozen else Plain(self.images, self.size)

    @property
    def make(self) -> Callable[[int], nn.Module]:
        """Makes what is trained, by a seed: the network, or its last layer."""
        return efficientnet.new_head if self.frozen else efficientnet.pretrained
