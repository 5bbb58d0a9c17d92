"""ROAD: how a class's probability falls while pixels are removed and filled in from their neighbors.

Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022). A removed pixel becomes the
weighted mean of its eight neighbors, of which the four direct ones weigh twice as much; all removed pixels are solved for
together. So what is removed leaves no mask that the model could read.
"""

from collections.abc import Sequence
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.checks import check_non_negative
from sightline._core.seeding import drawn
from sightline.errors import SightlineError
from sightline.faithfulness.perturbation import ranks_of
from sightline.metric_base.base import ModelMetric
from sightline.metric_base.observation import Observation
from sightline.metric_base.registry import register
from sightline.network.input_spec import InputSpec

SHARES = (0.2, 0.4, 0.6, 0.8)
PRECISION = 1e-10  # of the solution's residual, relative to the right side


def imputed(images: Tensor, removed: Tensor) -> Tensor:
    """Return images (B, C, H, W) whose removed pixels (B, H, W) bool are the weighted means of their neighbors.

    Each is solved by conjugate gradients. At the border, the neighbors that exist count.
    """
    wide = torch.float32 if images.device.type == "mps" else torch.float64
    hole, known = removed[:, None].to(wide), (~removed)[:, None].to(wide)
    kernel = torch.tensor([[1.0, 2, 1], [2, 0, 2], [1, 2, 1]], dtype=wide, device=images.device) / 12

    def neighbors(values: Tensor) -> Tensor:
        return F.conv2d(values.flatten(0, 1)[:, None], kernel[None, None], padding=1).view_as(values)

    whole = neighbors(torch.ones_like(hole[:1]))  # less than 1 at the border
    right = hole * neighbors(images.to(wide) * known)
    found = torch.zeros_like(right)
    residual = right.clone()
    direction = scaled = residual / whole
    size = (residual * scaled).sum((2, 3), keepdim=True)
    enough = PRECISION * right.norm(dim=(2, 3))
    for _ in range(removed[0].numel()):
        if (residual.norm(dim=(2, 3)) <= enough).all():
            break
        applied = hole * (whole * direction - neighbors(direction))
        length = (direction * applied).sum((2, 3), keepdim=True)
        step = torch.where(length > 0, size / torch.where(length > 0, length, 1), 0)
        found = found + step * direction
        residual = residual - step * applied
        scaled = residual / whole
        before, size = size, (residual * scaled).sum((2, 3), keepdim=True)
        direction = scaled + torch.where(before > 0, size / torch.where(before > 0, before, 1), 0) * direction
    return torch.where(removed[:, None], found.to(images.dtype), images)


def road_difference(observation: Observation, shares: tuple[float, ...], noise: float, seed: int) -> Tensor:
    """Return the mean (B,) over shares of the probability without the lowest pixels of the map minus that without the highest.

    Args:
        observation: the batch, with images, maps, targets and scorer.
        shares: of the pixels that are removed.
        noise: standard deviation of what is added to the removed pixels, in the units of the images.
        seed: of the noise.
    """
    images, targets = observation.require("images"), observation.require("targets")[:, None]
    ranks = ranks_of(observation.require("maps"))
    count = ranks[0].numel()
    draws = noise * drawn(torch.randn, images, observation.indices, seed, "road")
    total = images.new_zeros(len(images))
    for share in shares:
        pixels = count - ceil((1 - share) * (count - 1))
        for sign, removed in ((-1, ranks < pixels), (1, ranks >= count - pixels)):
            changed = imputed(images, removed) + draws * removed[:, None]
            if observation.require("scorer").input_spec is not None:
                changed = changed.clamp(0, 1)
            total += sign * observation.require("scorer")(changed).gather(1, targets)[:, 0] / len(shares)
    return total


@register("road")
class ROAD(ModelMetric):
    """ROAD: mean gap between the class's probability without the lowest and without the highest pixels of the map.

    In [-1, 1]; higher is better. Removed pixels are filled from their neighbors, so their shape does not show.

    Args:
        shares: shares of the pixels that are removed, each in (0, 1); the value is the mean over them.
        noise: standard deviation of the noise on removed pixels, in the units of the images.
        seed: random seed of the noise.

    References:
        Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022), section 4.

    Examples:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # logits: mean red, green and blue
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[:, 0, 2:6, 2:6] = 1  # a red object
        >>> good, bad = sl.metrics.ROAD(model), sl.metrics.ROAD(model)
        >>> good.update(images, images[:, 0])
        >>> bad.update(images, 1 - images[:, 0])
        >>> good.compute().item() > 0 > bad.compute().item()
        True
    """

    slow = True

    def __init__(
        self,
        model: nn.Module,
        *,
        shares: Sequence[float] = SHARES,
        noise: float = 0.01,
        seed: int = 0,
        input_spec: InputSpec | None = None,
        internal_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, input_spec=input_spec, internal_batch_size=internal_batch_size)
        self.options = check_road(shares, noise, seed)

    def compute_per_image(self, observation: Observation) -> Tensor:
        """`road_difference` of each image."""
        return observation.cached(road_difference, *self.options)


def check_road(shares: Sequence[float], noise: float, seed: int) -> tuple[tuple[float, ...], float, int]:
    """Return the options of `road_difference`.

    Raises:
        SightlineError: a share is not between 0 and 1, or the noise is negative.
    """
    check_non_negative(noise=noise)
    if not shares or not all(0 < share < 1 for share in shares):
        raise SightlineError(f"shares is {list(shares)}; expected one or more, each above 0 and below 1")
    return tuple(shares), noise, seed
