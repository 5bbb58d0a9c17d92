"""What a model makes of an image seen through its map: average drop and increase, coherency, complexity, ADCC and ARCC.

The explanation image is the image times its map: what the map points out stays, the rest fades into the fill. Drop and
increase: Chattopadhyay et al., "Grad-CAM++" (WACV 2018), section 4.1. Coherency, complexity, ADCC: Poppi et al.,
"Revisiting The Evaluation of Class Activation Mapping for Explainability: A Novel Metric and Experimental Analysis" (CVPR
workshops 2021), section 3. ARCC: Domeniconi et al., "How to Evaluate and Refine your CAM" (ICPR 2026), which replaces the drop
by ROAD.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sightline._core.fills import filled
from sightline._core.tensors import check_maps
from sightline.errors import SightlineError
from sightline.explainers import Explainer
from sightline.faithfulness.road import SHARES, check_road, road_difference
from sightline.faithfulness.similarity import pearson
from sightline.metric_base.base import ExplainerMetric, ModelMetric, PerImageMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection

Rest = Literal["black", "blur"]


def explanation_images(images: Tensor, maps: Tensor, fill: Rest = "black") -> Tensor:
    """Images (B, C, H, W) seen through maps (B, H, W) in [0, 1]: image x map + fill x (1 - map).

    Args:
        images: float; in [0, 1] black is black, else it is the value 0 of the model's own units.
        maps: weights of the pixels.
        fill: "black" (the papers') or "blur" (see `filled`).

    Raises:
        SightlineError: maps outside [0, 1] or of another size, or another fill.
    """
    if fill not in ("black", "blur"):
        raise SightlineError(f"fill is {fill!r}; expected 'black' or 'blur'")
    check_maps(maps, images[:, 0].shape, low=0, high=1)
    weight = maps[:, None].to(images.dtype)
    return images * weight if fill == "black" else torch.lerp(filled(images, "blur"), images, weight)


def average_drop(clean: Tensor, explained: Tensor) -> Tensor:
    """Return the share of the probability that is lost: max(0, p - p_e) / p, in [0, 1]; 0 where p is 0.

    Args:
        clean: (B,) probability p of the class on the image.
        explained: (B,) probability p_e of the same class on the explanation image.
    """
    return (clean - explained).clamp(min=0) / torch.where(clean > 0, clean, 1)


def average_increase(clean: Tensor, explained: Tensor) -> Tensor:
    """1 where the class is more probable on the explanation image than on the image, else 0.

    Args:
        clean: (B,) probability of the class on the image.
        explained: (B,) probability of the same class on the explanation image.
    """
    return (explained > clean).to(clean.dtype)


def coherency(maps: Tensor, again: Tensor) -> Tensor:
    """(1 + Pearson's r) / 2 of a map and the map of its explanation image, in [0, 1]; r counts as 0 for a constant map.

    Args:
        maps: (B, H, W), the maps of the images.
        again: (B, H, W), the maps of the explanation images, for the same classes.
    """
    return ((1 + pearson(maps, again)) / 2).to(maps.dtype)


def complexity(maps: Tensor) -> Tensor:
    """Return the mean of each map (B, H, W) in [0, 1]: a lower mean is a simpler map."""
    check_maps(maps, low=0, high=1)
    return maps.mean((1, 2))


def adcc(coherency: Tensor, complexity: Tensor, drop: Tensor) -> Tensor:
    """Return the harmonic mean of coherency, 1 - complexity and 1 - drop, each (B,) in [0, 1]; 0 where one of them is 0.

    Defined for one image, as in the paper's equation; the metric averages it over images like the others.
    """
    return _harmonic_mean(coherency, 1 - complexity, 1 - drop)


def arcc(coherency: Tensor, complexity: Tensor, road: Tensor) -> Tensor:
    """Return the harmonic mean of coherency, 1 - complexity and ROAD, each (B,), with ROAD clamped to [0, 1]; 0 if one is 0."""
    return _harmonic_mean(coherency, 1 - complexity, road.clamp(0, 1))


def _harmonic_mean(*terms: Tensor) -> Tensor:
    stacked = torch.stack(terms)
    return torch.where((stacked > 0).all(0), len(terms) / (1 / stacked).sum(0), 0.0)


class _ThroughMap(ModelMetric):
    """A metric of the probabilities on the image and on the explanation image.

    Args:
        fill: "black" (the papers') or "blur".

    References:
        Chattopadhyay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks"
            (WACV 2018), section 4.1.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        fill: Rest = "black",
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.fill: Rest = fill


@register("average_drop")
class AverageDrop(_ThroughMap):
    """Mean share of the class's probability that is lost on the image times the map, in [0, 1]; lower is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 0] = 1
        >>> metric = sl.metrics.AverageDrop(model)
        >>> metric.update(images, torch.ones(1, 8, 8))  # the map keeps the whole image
        >>> metric.compute().item()
        0.0
    """

    higher_is_better = False

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`average_drop` of each image."""
        return average_drop(*observation.cached(_probabilities, self.fill))


@register("average_increase")
class AverageIncrease(_ThroughMap):
    """Share of the images whose class is more probable on the image times the map, in [0, 1]; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 0, :, :4], images[:, 1, :, 4:] = 1, 0.5  # red on the left, green on the right
        >>> metric = sl.metrics.AverageIncrease(model)
        >>> metric.update(images, maps=images[:, 0])  # the map removes the green half
        >>> metric.compute().item()
        1.0
    """

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`average_increase` of each image."""
        return average_increase(*observation.cached(_probabilities, self.fill))


class _MapAgain(ExplainerMetric):
    """A metric that compares a map with the map of the explanation image.

    Args:
        fill: "black" (the papers') or "blur".

    References:
        Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability: A Novel Metric and
            Experimental Analysis" (CVPR workshops 2021), section 3.
    """

    def __init__(
        self,
        model: nn.Module,
        explainer: str | Explainer,
        *,
        fill: Rest = "black",
        layer: LayerSelection = None,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, explainer, layer=layer, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.fill: Rest = fill


@register("coherency")
class Coherency(_MapAgain):
    """Mean agreement of the map and the map of the image times the map, in [0, 1]; higher is better.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.ones(1, 3, 8, 8)
        >>> metric = sl.metrics.Coherency(model, "gaussian")  # a map that does not depend on the image
        >>> metric.update(images, sl.explain(model, images, "gaussian"))
        >>> round(metric.compute().item(), 3)
        1.0
    """

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`coherency` of each image."""
        return coherency(observation.require("maps"), observation.cached(_maps_again, self.fill))


@register("complexity")
class Complexity(PerImageMetric):
    """Mean of the maps, in [0, 1]; lower is better: a lower mean is a simpler map.

    References:
        Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability: A Novel Metric and
            Experimental Analysis" (CVPR workshops 2021), section 3.

    Examples:
        >>> metric = sl.metrics.Complexity()
        >>> metric.update(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
        >>> metric.compute().item()
        0.25
    """

    higher_is_better = False

    def update(self, maps: Tensor) -> None:
        """Take a batch of maps (B, H, W) in [0, 1]."""
        self.update_batch(Observation(maps=maps))

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`complexity` of each map."""
        return complexity(observation.require("maps"))


@register("adcc")
class ADCC(_MapAgain):
    """ADCC: harmonic mean of coherency, 1 - complexity and 1 - average drop, averaged over the images; in [0, 1].

    Higher is better: maps that are coherent and simple, and keep the class's probability.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.ones(1, 3, 8, 8)
        >>> metric = sl.metrics.ADCC(model, "gaussian")
        >>> metric.update(images, sl.explain(model, images, "gaussian"))
        >>> 0 < metric.compute().item() < 1
        True
    """

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`adcc` of each image."""
        maps = observation.require("maps")
        drop = average_drop(*observation.cached(_probabilities, self.fill))
        return adcc(coherency(maps, observation.cached(_maps_again, self.fill)), complexity(maps), drop)


@register("arcc")
class ARCC(_MapAgain):
    """ARCC: harmonic mean of coherency, 1 - complexity and ROAD, averaged over the images; in [0, 1].

    Higher is better: maps that are coherent and simple, and rank pixels by their effect on the class's probability.

    Args:
        shares: shares of the pixels that ROAD removes, each in (0, 1).
        noise: standard deviation of ROAD's noise, in the units of the images.
        seed: random seed of the noise.

    References:
        Domeniconi, Stramiglio, Lombardi, Salti, "How to Evaluate and Refine your CAM" (ICPR 2026).

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 0, 2:6, 2:6] = 1  # a red object at the center
        >>> metric = sl.metrics.ARCC(model, "gaussian")
        >>> metric.update(images, sl.explain(model, images, "gaussian"))
        >>> 0 < metric.compute().item() < 1
        True
    """

    slow = True

    def __init__(
        self,
        model: nn.Module,
        explainer: str | Explainer,
        *,
        fill: Rest = "black",
        shares: Sequence[float] = SHARES,
        noise: float = 0.01,
        seed: int = 0,
        layer: LayerSelection = None,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            model, explainer, fill=fill, layer=layer, input_spec=input_spec, internal_batch_size=internal_batch_size
        )
        self.options = check_road(shares, noise, seed)

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`arcc` of each image."""
        maps, again = observation.require("maps"), observation.cached(_maps_again, self.fill)
        road = observation.cached(road_difference, *self.options)
        return arcc(coherency(maps, again), complexity(maps), road)


def _images(observation: Observation, fill: Rest) -> Tensor:
    return explanation_images(observation.require("images"), observation.require("maps"), fill)


def _probabilities(observation: Observation, fill: Rest) -> tuple[Tensor, Tensor]:
    """Return the target's probability (B,) on the images, and on the explanation images."""
    targets = observation.require("targets")[:, None]
    explained: Tensor = observation.require("scorer")(observation.cached(_images, fill))
    return observation.require("probabilities").gather(1, targets)[:, 0], explained.gather(1, targets)[:, 0]


def _maps_again(observation: Observation, fill: Rest) -> Tensor:
    """Return the maps (B, H, W) of the explanation images, for the same classes."""
    return observation.explain_again(observation.cached(_images, fill), f"explanation image {fill}")
