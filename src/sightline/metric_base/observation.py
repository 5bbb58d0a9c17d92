"""One batch as the metrics see it."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar

from torch import Tensor

from sightline.errors import SightlineError
from sightline.metric_base.bound_explainer import BoundExplainer
from sightline.metric_base.scoring import Scorer
from sightline.regions.backgrounds import Backgrounds

T = TypeVar("T")


@dataclass(eq=False)
class Observation:
    """What is known of a batch of images, and what several metrics would otherwise work out twice.

    A metric takes what it needs by `require`, and shares what costs by `cached`.

    Attributes:
        images: (B, C, H, W).
        maps: (B, H, W), the explanation of each image.
        targets: (B,) int64, the class that scores are about.
        explained: (B,) int64, the class that maps are about; None = `targets`.
        labels: (B,) int64.
        masks: (B, H, W) or (B, K, H, W), as in `Batch`.
        has_mask: (B,) bool; None = every image, where there are masks.
        boxes: (B, N, 4) xyxy in pixels, as in `Batch`.
        has_box: (B, N) bool; None = all, where there are boxes.
        parts: (B, P, H, W), as in `Batch`.
        indices: (B,) int64, each image's place in its dataset, which random draws are keyed by; None = not known.
        groups: (B,) int64; below 0 = the image belongs to none.
        probabilities: (B, K) of the images.
        scorer: the model.
        explain: (images, targets) -> maps, the explainer that made `maps`.
        curves: the perturbation curves that will be asked for, so one pass makes them all.
        backgrounds: the images whose backgrounds these may get; None = the batch's.
        avoid: (B, H, W), as in `Batch`.
        has_avoid: (B,) bool; None = every image, where there are regions to avoid.
        marks: the images whose marks, in their regions to avoid, these may get; None = the batch's.
    """

    images: Tensor | None = None
    maps: Tensor | None = None
    targets: Tensor | None = None
    explained: Tensor | None = None
    labels: Tensor | None = None
    masks: Tensor | None = None
    has_mask: Tensor | None = None
    boxes: Tensor | None = None
    has_box: Tensor | None = None
    parts: Tensor | None = None
    indices: Tensor | None = None
    groups: Tensor | None = None
    probabilities: Tensor | None = None
    scorer: Scorer | None = None
    explain: Callable[[Tensor, Tensor], Tensor] | None = None
    curves: tuple[str, ...] = ()
    backgrounds: Backgrounds | None = None
    avoid: Tensor | None = None
    has_avoid: Tensor | None = None
    marks: Backgrounds | None = None
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def require(self, name: str) -> Any:
        """Return the attribute with this name, or raise an error that says what is missing.

        Raises:
            SightlineError: it is not known of this batch.
        """
        value = getattr(self, name)
        if value is None:
            raise SightlineError(f"this metric needs {name}, and none were given")
        return value

    def cached(self, function: Callable[..., T], *options: Hashable) -> T:
        """function(self, *options), worked out when first asked for."""
        key = (function, *options)
        if key not in self._known:
            self._known[key] = function(self, *options)
        return self._known[key]

    def explain_again(self, images: Tensor, purpose: str) -> Tensor:
        """Return the maps (B, H, W) of changed versions of the images, for the same classes.

        What an explainer draws at random is keyed by the unchanged image and the purpose: a change may differ by rounding.
        """
        explain = self.require("explain")
        if isinstance(explain, BoundExplainer):
            explain = explain.for_images(self.require("images"), self.indices, purpose)
        maps: Tensor = explain(images, self.mapped_classes)
        return maps

    @property
    def mapped_classes(self) -> Tensor:
        """The class (B,) that each image's map is about."""
        return self.require("targets") if self.explained is None else self.explained

    def take(self, rows: Tensor) -> Self:
        """Return the images that a bool tensor (B,) selects."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        taken: dict[str, Any] = {n: v[rows.to(v.device)] for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **taken)
