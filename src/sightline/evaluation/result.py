"""What an evaluation found, in memory."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Result:
    """One value.

    Attributes:
        metric: its name.
        explainer: whose maps it judges; None where it judges none.
        value: over all images that have one.
        low: lower end of the 95 % bootstrap interval over images.
        high: its upper end.
        n: images that have a value.
        higher_is_better: its direction.
    """

    metric: str
    explainer: str | None
    value: float
    low: float
    high: float
    n: int
    higher_is_better: bool

    @property
    def column(self) -> str:
        """What its values are called among those of the images."""
        return self.metric if self.explainer is None else f"{self.metric}@{self.explainer}"


class Curve(NamedTuple):
    """What a value is the mean of, or the area under.

    Attributes:
        at: (points,) degrees of the change: shares of pixels, or levels of noise.
        score: (points,) the mean score at each.
    """

    at: Tensor
    score: Tensor


@dataclass(frozen=True)
class SavedImages:
    """Images that are kept with their maps.

    Attributes:
        index: (N,) each image's place in its data set, ascending.
        images: (N, C, H, W) uint8.
        masks: (N, H, W) uint8 with 0, 1 and 255; None without masks.
        has_mask: (N,) bool.
        maps: explainer -> (N, H, W) uint8.
    """

    index: Tensor
    images: Tensor
    masks: Tensor | None
    has_mask: Tensor
    maps: dict[str, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What a model does on the images of a loader.

    Attributes:
        results: the figures.
        samples: for every image, in the loader's order: index, label, predicted, probability (of the predicted class),
            correct, group (where there are any) and each value as "<metric>@<explainer>", NaN where not defined.
        curves: explainer ("" where maps play no part) -> metric -> its mean curve.
        gallery: some images with their maps; None where none were asked for.
        facts: n, what was explained, how many images the slow metrics saw, and which metrics were left out and why.
    """

    results: list[Result]
    samples: dict[str, Tensor]
    curves: dict[str, dict[str, Curve]]
    gallery: SavedImages | None
    facts: dict[str, Any]

    def __getitem__(self, column: str) -> Result:
        """Return the value with this name, such as "accuracy" or "miou@gradcam"."""
        return {result.column: result for result in self.results}[column]

    @property
    def table(self) -> dict[str, dict[str | None, float]]:
        """Metric -> explainer -> value."""
        table: dict[str, dict[str | None, float]] = {}
        for result in self.results:
            table.setdefault(result.metric, {})[result.explainer] = result.value
        return table
