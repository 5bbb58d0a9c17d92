"""RISE: saliency maps from random masks and only the model's scores."""

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.checks import check_positive
from sightline._core.internal_batches import InternalBatches
from sightline._core.seeding import generator
from sightline._core.tensors import at_least_float32, has_contrast
from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, normalize_maps
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.targets import Targets, resolve_score

logger = logging.getLogger(__name__)

CHECKED = 100  # masks, after each of which an image may be finished


@EXPLAINERS.register("rise", needs_layer=False)
class RISE(Explainer):
    """RISE: the mean of random masks, weighted by the score of what each lets through (Petsiuk et al. 2018).

    The map is sum_n Y(x * M_n) M_n / (N p), with Y the explained score: the logit by default; the paper's probability is one
    function of the output away. Defaults are the paper's for VGG16 (section 4; it takes 8000 masks for ResNet-50).
    Hidden pixels are 0 in the units of the model's input, the mean color where inputs are normalized. All images share
    the same masks.

    Args:
        masks: number of masks N; each costs one evaluation per image.
        cells: side s of the grid of random bits that is scaled up to a mask.
        shown: probability p that a bit is 1.
        seed: random seed of the masks.
        tolerance: an image takes no more masks once the standard error of its weighted mean is at most this share of the mean's
            range, at every pixel; asked after each 100 masks. `masks` is then the most that it takes, and how many were taken
            is logged. None = all masks.
        raw: return the weighted means (B, H, W) themselves instead of maps in [0, 1].
        internal_batch_size: how many images go through the model at once; None chooses.

    References:
        Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC 2018), section 3.
    """

    def __init__(
        self,
        masks: int = 4000,
        cells: int = 7,
        shown: float = 0.5,
        seed: int = 0,
        tolerance: float | None = None,
        raw: bool = False,
        internal_batch_size: int | None = None,
    ) -> None:
        if masks < 1 or cells < 1 or not 0 < shown <= 1:
            raise SightlineError(
                f"masks is {masks}, cells {cells} and shown {shown}; expected at least 1, 1 and a probability above 0"
            )
        if tolerance is not None:
            check_positive(tolerance=tolerance)
        self.masks, self.cells, self.shown, self.seed, self.raw = masks, cells, shown, seed, raw
        self.tolerance = tolerance
        self.batches = InternalBatches(internal_batch_size)

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W), in [0, 1] unless `raw`."""
        score = resolve_score(targets, model(inputs))
        masks_of = self._masks(inputs)

        def weighted(rows: int) -> Tensor:
            sums = _Sums(inputs, self.shown, self.tolerance is not None)
            on, start = torch.arange(len(inputs), device=inputs.device), 0
            while start < self.masks and len(on):
                block = self.masks if self.tolerance is None else min(start + CHECKED, self.masks)
                while start < block:
                    masks = masks_of(start, min(start + max(1, rows // len(on)), block))
                    start += len(masks)
                    for which in on.split(rows):
                        masked = (inputs[which, None] * masks[:, None].to(inputs)).flatten(0, 1)
                        scores = score(model(masked), which.repeat_interleave(len(masks)))
                        sums.add(which, scores.unflatten(0, (-1, len(masks))), masks)
                if self.tolerance is not None:
                    on = on[sums.error(on) > self.tolerance]
            if self.tolerance is not None:
                logger.info("rise took %s of %s masks for the images of the batch", sums.count.tolist(), self.masks)
            # Where the scores do not vary, the map would be that of the masks alone.
            return sums.means if self.raw else sums.means * sums.vary[:, None, None]

        maps = self.batches.fit(weighted, inputs)
        return maps if self.raw else normalize_maps(maps)

    def _masks(self, inputs: Tensor) -> Callable[[int, int], Tensor]:
        """Return a function that makes the masks (n, H, W) from one number up to another, out of all.

        They are grids of bits, scaled up bilinearly and cropped at a random place.
        """
        device = inputs.device
        height, width = inputs.shape[-2:]
        cell = -(-height // self.cells), -(-width // self.cells)
        draw = generator(self.seed, "rise")
        bits = (torch.rand(self.masks, self.cells, self.cells, generator=draw) < self.shown).to(device).float()
        shifts = (torch.rand(self.masks, 2, generator=draw) * torch.tensor(cell)).long().to(device)
        size = (self.cells + 1) * cell[0], (self.cells + 1) * cell[1]

        def masks(start: int, stop: int) -> Tensor:
            large = F.interpolate(bits[start:stop, None], size, mode="bilinear", align_corners=False)[:, 0]
            rows = shifts[start:stop, :1] + torch.arange(height, device=device)
            columns = shifts[start:stop, 1:] + torch.arange(width, device=device)
            which = torch.arange(len(large), device=device)
            return large[which[:, None, None], rows[:, :, None], columns[:, None, :]]

        return masks


class _Sums:
    """Sums over the masks of each image.

    Args:
        inputs: (B, C, H, W).
        shown: probability p that a bit of a mask is 1.
        squared: sum the squares too, for `error`.
    """

    def __init__(self, inputs: Tensor, shown: float, squared: bool) -> None:
        self.shown, self.squared = shown, squared
        self.total = torch.zeros_like(at_least_float32(inputs[:, 0]))  # of score x mask
        self.squares = torch.zeros_like(self.total)
        self.count = self.total.new_zeros(len(inputs), dtype=torch.int64)
        self.low = self.total.new_full((len(inputs),), torch.inf)
        self.high = -self.low

    def add(self, which: Tensor, scores: Tensor, masks: Tensor) -> None:
        """Add masks (n, H, W) with the scores (b, n) of the images `which` (b,)."""
        scores, masks = scores.to(self.total), masks.to(self.total)
        self.total[which] += torch.einsum("bn,nhw->bhw", scores, masks)
        if self.squared:
            self.squares[which] += torch.einsum("bn,nhw->bhw", scores.square(), masks.square())
        self.count[which] += len(masks)
        self.low[which] = self.low[which].minimum(scores.amin(1))
        self.high[which] = self.high[which].maximum(scores.amax(1))

    @property
    def means(self) -> Tensor:
        """The weighted means (B, H, W) of the masks."""
        return self.total / (self.count * self.shown)[:, None, None]

    @property
    def vary(self) -> Tensor:
        """Whether (B,) the scores of an image vary by more than rounding."""
        return has_contrast(torch.stack([self.low, self.high], 1)[:, None])

    def error(self, which: Tensor) -> Tensor:
        """Return the largest standard error (b,) of the means of the images `which`, as a share of the range of the means.

        It is 0 where the scores do not vary, since no further mask changes such a map.
        """
        count = self.count[which, None, None]
        variance = (self.squares[which] - self.total[which].square() / count).clamp_min(0) / (count - 1).clamp_min(1)
        error = (variance / count).sqrt().amax((1, 2)) / self.shown
        means = self.means[which]
        spread = means.amax((1, 2)) - means.amin((1, 2))
        share = torch.where(spread > 0, error / torch.where(spread > 0, spread, 1), torch.inf)
        return torch.where(self.vary[which], share, 0)
