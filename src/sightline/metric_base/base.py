"""What every metric is: one value per image, and their mean."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from sightline._core.tensors import check_images, check_maps
from sightline.errors import SightlineError
from sightline.explainers import Explainer, create_explainer
from sightline.metric_base.bound_explainer import BoundExplainer
from sightline.metric_base.observation import Observation
from sightline.metric_base.scoring import Scorer
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.targets import resolve_targets


class PerImageMetric(Metric, ABC):
    """A metric with one value per image; its dataset value is their mean.

    An image for which the value is not defined (a localisation without a mask) has the value NaN; it is left out of the
    mean and counted in `skipped`. Maps or scores that are NaN are rejected, so no NaN comes from anywhere else.

    Attributes:
        n: images in the mean, over all processes, as of the last `compute()`.
        skipped: images left out of it.
    """

    is_differentiable = False
    higher_is_better: bool = True
    full_state_update = False

    needs_maps: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False
    needs_boxes: ClassVar[bool] = False  # or masks, to draw boxes around
    needs_avoid: ClassVar[bool] = False
    needs_groups: ClassVar[bool] = False
    needs_parts: ClassVar[bool] = False
    needs_layer: ClassVar[bool] = False  # looks at the activations of the target layer
    needs_model: ClassVar[bool] = False
    needs_explainer: ClassVar[bool] = False
    slow: ClassVar[bool] = False  # asks the model hundreds of times an image

    values: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # The values themselves, four bytes an image, rather than their sum: intervals and tables are made of them, and
        # processes that have seen different numbers of images are gathered without a special case.
        self.add_state("values", [], dist_reduce_fx="cat")
        self.n = 0
        self.skipped = 0

    @classmethod
    def capabilities(cls) -> dict[str, bool]:
        """Return the capabilities that a caller can read before creating a metric."""
        needs = ("maps", "masks", "boxes", "avoid", "groups", "parts", "layer", "model", "explainer")
        return {name: getattr(cls, name) for name in (*(f"needs_{n}" for n in needs), "slow", "higher_is_better")}

    @abstractmethod
    def compute_per_image(self, observation: Observation) -> Tensor:
        """Return the value (B,) of each image of a batch, NaN where it is not defined."""

    def update(self, *args: Any, **known: Any) -> None:
        """Take a batch by what is known of it: `update(maps=..., labels=...)`, as `Observation` names it."""
        self.update_batch(Observation(*args, **known))

    def update_batch(self, observation: Observation) -> None:
        """Measure a batch and keep its values; what `update` does, for callers that have an observation already."""
        # torchmetrics does these two around `update` alone.
        self._computed = None
        self._update_count = max(1, self._update_count)
        self.values.append(self.compute_per_image(observation).float())

    def states(self) -> dict[str, Any]:
        """Return what the metric has kept, on the CPU: lists with an entry for each batch, and sums over all batches."""
        return {
            name: [entry.cpu() for entry in kept] if isinstance(kept, list) else kept.cpu()
            for name, kept in self.metric_state.items()
        }

    def take(self, states: Mapping[str, Any]) -> None:
        """Replace what the metric has kept by states that `states` has returned, such as those of several metrics together."""
        self._computed = None
        self._update_count = max(1, self._update_count)
        for name, kept in states.items():
            there = [entry.to(self.device) for entry in kept] if isinstance(kept, list) else kept.to(self.device)
            setattr(self, name, there)

    def compute(self) -> Tensor:
        """Return the mean over the images that have a value, over all processes.

        Raises:
            SightlineError: there is no such image.
        """
        values = self._gathered()
        counted = ~values.isnan()
        self.n, self.skipped = int(counted.sum()), int((~counted).sum())
        if self.n == 0:
            raise SightlineError(f"{type(self).__name__} has no image to average over ({self.skipped} were skipped)")
        return values[counted].double().mean().float()

    def per_image(self) -> Tensor:
        """Return the value (n,) of every image in the order seen (process after process), NaN where it is not defined."""
        with self.sync_context():
            return self._gathered()

    def resample(self, index: Tensor) -> Tensor:
        """Return the metric (R,) of R other draws of the images: indices (R, m) among the n images that have a value."""
        values = self._gathered()
        return values[~values.isnan()][index].mean(1)

    def _gathered(self) -> Tensor:
        return dim_zero_cat(self.values) if len(self.values) else torch.zeros(0, device=self.device)


class MapMetric(PerImageMetric):
    """A metric that compares maps with masks."""

    needs_masks = True

    def update(
        self, maps: Tensor, masks: Tensor, has_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> None:
        """Take a batch.

        Args:
            maps: (B, H, W).
            masks: (B, H, W) or (B, K, H, W): uint8 with 0, 1 and 255 = ignore, or float in [0, 1].
            has_mask: (B,) bool, which images have one; None = all.
            targets: (B,) the explained class, which picks the mask where each class has its own.
        """
        self.update_batch(Observation(maps=maps, masks=masks, has_mask=has_mask, targets=targets))


class ModelMetric(PerImageMetric):
    """A metric that asks the model about changed images.

    Args:
        model: a classifier that returns logits (B, K), or an object with `.logits`; not changed.
        input_spec: normalizes images in [0, 1]; the changes are made before. None = images are what the model takes,
            and the changes are made there.
        internal_batch_size: images in one call to the model; None chooses (see `Scorer`).
    """

    needs_model = True

    def __init__(
        self, model: nn.Module, *, input_spec: InputSpec | None = None, internal_batch_size: int | None = None
    ) -> None:
        super().__init__()
        self.scorer = Scorer(
            model, input_spec, internal_batch_size
        )  # no module, so the metric's state dict and moves spare it

    def update(self, images: Tensor, maps: Tensor, targets: Tensor | int | None = None) -> None:
        """Take a batch.

        Args:
            images: (B, C, H, W); in [0, 1] with an input spec.
            maps: (B, H, W).
            targets: the class whose probability counts: (B,) or one index; None = the clean image's top-1 class.
        """
        self.update_batch(observe(self.scorer, images, maps, targets))


class CurveMetric(ModelMetric):
    """A metric that asks the model about several degrees of a change, and gives each image the mean of its answers.

    Args:
        at: the degrees, such as shares of pixels or levels of noise.

    Attributes:
        at: the degrees (points,).
        curve: the mean curve (points,) over the images that have a value, over all processes, as of the last `compute()`.
    """

    curve_total: Tensor

    def __init__(
        self,
        model: nn.Module,
        at: Sequence[float],
        *,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.at = tuple(at)
        self.add_state("curve_total", torch.zeros(len(self.at)), dist_reduce_fx="sum")
        self.curve = torch.zeros(len(self.at))

    @abstractmethod
    def curves(self, observation: Observation) -> Tensor:
        """Return the curve (B, points) of each image, NaN where it has none."""

    def compute_per_image(self, observation: Observation) -> Tensor:
        """Return the mean over each image's curve."""
        return self.curves(observation).mean(1)

    def update_batch(self, observation: Observation) -> None:
        """Measure a batch, and keep its values and the sum of its curves."""
        super().update_batch(observation)
        self.curve_total = self.curve_total + self.curves(observation).nansum(0).to(self.curve_total)

    def compute(self) -> Tensor:
        """Return the metric over all images; `curve` then holds the mean curve."""
        value = super().compute()
        self.curve = self.curve_total / self.n
        return value


class ExplainerMetric(ModelMetric):
    """A metric that explains changed images too.

    Args:
        explainer: the one that makes the maps, or its name.
        layer: the target layer of the explainer.
    """

    needs_explainer = True

    def __init__(
        self,
        model: nn.Module,
        explainer: str | Explainer,
        *,
        layer: LayerSelection = None,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, input_spec=input_spec, internal_batch_size=internal_batch_size)
        explainer = create_explainer(explainer) if isinstance(explainer, str) else explainer
        self.explain = BoundExplainer(explainer, model, layer, input_spec)

    def update(self, images: Tensor, maps: Tensor, targets: Tensor | int | None = None) -> None:
        """Take a batch, as `ModelMetric.update` does; `maps` are the explainer's own for these images."""
        observation = observe(self.scorer, images, maps, targets)
        observation.explain = self.explain
        self.update_batch(observation)


def observe(scorer: Scorer, images: Tensor, maps: Tensor, targets: Tensor | int | None = None) -> Observation:
    """Return a batch as an observation, with its probabilities and the explained classes; targets None = the predicted ones."""
    check_images(images)
    check_maps(maps, images[:, 0].shape)
    probabilities = scorer(images)
    return Observation(
        images=images,
        maps=maps,
        targets=resolve_targets(targets, probabilities),
        probabilities=probabilities,
        scorer=scorer,
    )
