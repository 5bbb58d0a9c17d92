"""Manual biases: most training images made brighter, darker or stronger, and a few unchanged.

"Improving Network Interpretability via Explanation Consistency Evaluation", section IV-D, asks which of them a method that
reweights its training images puts first.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors

from sightline._core.checks import check_choice, check_fraction
from sightline.data.dataset import Derived, ImageDataset, Sample
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits, divide

Bias = Literal["brighter", "darker", "scaled"]

CHANGES: dict[Bias, Callable[[Tensor], Tensor]] = {
    "brighter": lambda values: values + 0.5 * values.std(correction=0),
    "darker": lambda values: values - 0.5 * values.std(correction=0),
    "scaled": lambda values: 1.5 * values,
}


class Biased(Derived):
    """A data set most of whose images are changed, the same way for every class.

    Which ones are changed is drawn by the seed, with an equal share of every class.

    Args:
        dataset: the images.
        bias: "brighter" or "darker" = by half the standard deviation of the image's own values; "scaled" = every value times
            1.5. What leaves the range of a pixel is clamped.
        share: of the images that are changed, above 0 and below 1.
        seed: of the choice.

    Attributes:
        biased: (N,) bool, which images are changed.

    Raises:
        SightlineError: there is no such bias, or a class has too few images for both kinds.
    """

    def __init__(self, dataset: ImageDataset, bias: Bias, *, share: float = 0.8, seed: int = 0) -> None:
        check_choice(Bias, bias=bias)
        check_fraction("(0, 1)", share=share)
        self.bias = bias
        self.biased = torch.ones(len(dataset), dtype=torch.bool)
        self.biased[divide(dataset.label_list(), {"unbiased": 1 - share}, seed).get("unbiased", [])] = False
        super().__init__(dataset, (bias, self.biased.tolist()))

    def load(self, index: int) -> Sample:
        """Load the image, changed if it is one of the biased ones."""
        sample = self.dataset[index]
        if not self.biased[index]:
            return sample
        return replace(sample, image=tv_tensors.Image(change(sample.image.as_subclass(Tensor), self.bias)))


def change(image: Tensor, bias: Bias) -> Tensor:
    """Put a bias into an image (C, H, W) uint8."""
    return CHANGES[bias](image.float()).round().clamp(0, 255).to(torch.uint8)


@DATASETS.register("biased", masks="some", groups=False)
def biased(source: Mapping[str, Any], bias: Bias, *, share: float = 0.8, seed: int = 0) -> Splits:
    """Any data set with a bias in its training images that says nothing of the class: most are brighter, darker or scaled.

    The other splits do not change. `sightline reproduce ec figure-8` asks which images a guide that reweights puts first.

    Args:
        source: `name` and options of a registered data set with a split "train".
        bias: see `Biased`, as are the other options.
        share: see `Biased`.
        seed: see `Biased`.

    Raises:
        SightlineError: the source has no name or no split "train", or a value is out of its range.
    """
    splits = DATASETS.create_source(source)
    return Splits({**splits, "train": Biased(splits["train"], bias, share=share, seed=seed)})
