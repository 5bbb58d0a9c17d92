"""RISE: saliency maps from random masks and nothing but the model's scores."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.internal_batches import InternalBatches
from sightline._core.seeding import generator
from sightline._core.tensors import at_least_float32, has_contrast
from sightline.errors import SightlineError
from sightline.explainers.base import Explainer, normalize_maps
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection
from sightline.network.targets import Targets, resolve_score


@EXPLAINERS.register("rise", differentiable=False, needs_gradient=False, needs_layer=False, pixel_space=False)
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
        raw: bool = False,
        internal_batch_size: int | None = None,
    ) -> None:
        if masks < 1 or cells < 1 or not 0 < shown <= 1:
            raise SightlineError(
                f"masks is {masks}, cells {cells} and shown {shown}; expected at least 1, 1 and a probability above 0"
            )
        self.masks, self.cells, self.shown, self.seed, self.raw = masks, cells, shown, seed, raw
        self.batches = InternalBatches(internal_batch_size)

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W), in [0, 1] unless `raw`."""
        score = resolve_score(targets, model(inputs))
        of = torch.arange(len(inputs), device=inputs.device)

        def weighted(rows: int) -> Tensor:
            total = torch.zeros_like(at_least_float32(inputs[:, 0]))
            low, high = total.new_full((len(inputs),), torch.inf), total.new_full((len(inputs),), -torch.inf)
            for masks in self._masks(inputs, max(1, rows // len(inputs))):
                for images, which in zip(inputs.split(rows), of.split(rows)):
                    masked = (images[:, None] * masks[:, None].to(images)).flatten(0, 1)
                    scores = (
                        score(model(masked), which.repeat_interleave(len(masks)))
                        .to(total)
                        .unflatten(0, (-1, len(masks)))
                    )
                    total[which] += torch.einsum("bn,nhw->bhw", scores, masks.to(total))
                    low[which], high[which] = low[which].minimum(scores.amin(1)), high[which].maximum(scores.amax(1))
            total /= self.masks * self.shown
            varies = has_contrast(torch.stack([low, high], 1)[:, None])
            return total if self.raw else total * varies[:, None, None]  # else the map would be that of the masks alone

        maps = self.batches.fit(weighted, inputs)
        return maps if self.raw else normalize_maps(maps)

    def _masks(self, inputs: Tensor, count: int) -> Iterator[Tensor]:
        """All masks, (up to count, H, W) at a time: grids of bits, scaled up bilinearly and cropped at a random place."""
        device = inputs.device
        height, width = inputs.shape[-2:]
        cell = -(-height // self.cells), -(-width // self.cells)
        draw = generator(self.seed, "rise")
        bits = torch.rand(self.masks, self.cells, self.cells, generator=draw) < self.shown
        shifts = (torch.rand(self.masks, 2, generator=draw) * torch.tensor(cell)).long()
        size = (self.cells + 1) * cell[0], (self.cells + 1) * cell[1]
        for grids, corner in zip(bits.to(device).float().split(count), shifts.to(device).split(count)):
            large = F.interpolate(grids[:, None], size, mode="bilinear", align_corners=False)[:, 0]
            rows = corner[:, :1] + torch.arange(height, device=device)
            columns = corner[:, 1:] + torch.arange(width, device=device)
            which = torch.arange(len(grids), device=device)
            yield large[which[:, None, None], rows[:, :, None], columns[:, None, :]]
