"""What single filters of a layer respond to: their maps and effective receptive fields in some images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import at_least_float32
from sightline.errors import SightlineError
from sightline.explainers.base import resize_maps
from sightline.network.filter_groups import Moments, membership, part_coherence, spectral_groups
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.layers import LayerChoice
from sightline.network.modes import evaluating
from sightline.network.tap import Tap


@dataclass(frozen=True)
class FilterRow:
    """One filter in some images.

    Attributes:
        number: its channel in the layer.
        group: the group it belongs to.
        members: how many filters that group has.
        images: (M, C, H, W) in [0, 1].
        maps: (M, H, W) its activation, as a share of its highest one in the images it was judged by.
        circles: (M, 3) x, y and radius in pixels: the effective receptive field of its highest activation; 0 where silent.
        places: (M,) which of the images that filters are judged by these are; counted from 0 where images were given.
    """

    number: int
    group: int
    members: int
    images: Tensor
    maps: Tensor
    circles: Tensor
    places: Tensor


def measure_filters(
    model: nn.Module,
    images: Tensor,
    layer: LayerChoice | None,
    input_spec: InputSpec | None,
    *,
    groups: int | Tensor,
    filters: Sequence[int] | None,
    given: Tensor | None,
    columns: int,
) -> tuple[list[FilterRow], float]:
    """Return the responses of filters, sorted by group, and how coherent the groups are.

    Args:
        model: A classifier; used in eval mode.
        images: (N, C, H, W) in [0, 1], by which filters are judged.
        layer: The layer; None chooses by the model's family.
        input_spec: Normalizes the images.
        groups: Number of groups to make, or the group (C,) of each filter.
        filters: Which filters; None = of every group the one that is most similar to the others in it.
        given: (M, C, H, W) The images of every row; None = for each filter, the images that drive it the most.
        columns: Number of these images.
    """
    look = _Filters(Tap(model, layer), input_spec)
    with evaluating(look.tap.model):
        similarity, peaks = look.over(images)
        assigned = groups.cpu() if isinstance(groups, Tensor) else spectral_groups(similarity, groups)
        if len(assigned) != len(similarity):
            raise SightlineError(f"groups has {len(assigned)} entries; the layer has {len(similarity)} filters")
        members = membership(assigned, int(assigned.max()) + 1)
        chosen = _typical(similarity, members, peaks.amax(0) > 0) if filters is None else list(filters)
        if strange := [each for each in chosen if not 0 <= each < len(assigned)]:
            raise SightlineError(f"filters holds {strange[0]}; the layer has the filters 0 to {len(assigned) - 1}")
        if not chosen:
            raise SightlineError(
                "filters is empty, or no filter responds to the images; name other filters or give more images"
            )
        rows = []
        for number in chosen:
            best = peaks[:, number].topk(min(columns, len(images))).indices
            shown = images[best] if given is None else given
            maps, circles = look.at(shown, number)
            shares = (maps / peaks[:, number].amax().clamp_min(torch.finfo(maps.dtype).tiny)).clamp(0, 1)
            group = int(assigned[number])
            places = best.cpu() if given is None else torch.arange(len(given))
            rows.append(FilterRow(number, group, int((assigned == group).sum()), shown.cpu(), shares, circles, places))
    rows.sort(key=lambda row: (row.group, row.number))
    return rows, part_coherence(similarity, members).item()


class _Filters:
    """A model's filters, looked at."""

    def __init__(self, tap: Tap, input_spec: InputSpec | None) -> None:
        self.tap = tap
        self._spec = input_spec
        self._device = next(tap.model.parameters()).device

    def over(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the filters' similarity (C, C), and each filter's highest activation in each image (N, C)."""
        moments = Moments()

        def look(start: int, stop: int) -> Tensor:
            activations = self._activations(images[start:stop])
            moments.add(activations)
            return activations.amax((2, 3)).cpu()

        with torch.no_grad():
            peaks = InternalBatches().map(look, len(images), images)
        return moments.similarity(), peaks

    def at(self, images: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """One filter's map (M, H, W) in each image, and the circle (M, 3) of its highest activation."""
        with torch.enable_grad():
            pixels = images.detach().clone().requires_grad_()
            maps = self._activations(pixels, train=True)[:, number]
            peaks = maps.flatten(1).max(1).values  # of several places as high, one
            (gradient,) = torch.autograd.grad(peaks.sum(), pixels)
        circles = effective_field(gradient.square().sum(1)) * (peaks.detach() > 0).to(gradient)[:, None].cpu()
        return resize_maps(maps.detach(), (images.shape[-2], images.shape[-1])).cpu(), circles

    def _activations(self, images: Tensor, train: bool = False) -> Tensor:
        here = images.to(self._device)
        inputs = to_inputs(here, self._spec)
        return at_least_float32(self.tap(inputs, train=train).activations[0])


def effective_field(weights: Tensor) -> Tensor:
    """Return the circle (N, 3), as x, y and radius in pixels, with the mean place and spread of weights (N, H, W).

    A uniform disc of radius R has the mean square distance R^2 / 2 from its centre. The centre of the first pixel is (0, 0).
    """
    weights = weights.detach().double().cpu() if weights.device.type == "mps" else weights.detach().double()
    y, x = torch.meshgrid(*(torch.arange(n).to(weights) for n in weights.shape[1:]), indexing="ij")
    mass = weights / weights.sum((1, 2), keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    centre_x, centre_y = (mass * x).sum((1, 2)), (mass * y).sum((1, 2))
    distance = (x - centre_x[:, None, None]) ** 2 + (y - centre_y[:, None, None]) ** 2
    return torch.stack([centre_x, centre_y, (2 * (mass * distance).sum((1, 2))).sqrt()], 1).float().cpu()


def _typical(similarity: Tensor, members: Tensor, responds: Tensor) -> list[int]:
    """Of every group, the filter (among those that respond) with the highest similarity to the others in it."""
    within = (similarity @ members.to(similarity) * members).sum(1)
    chosen = []
    for group in range(members.shape[1]):
        candidates = (members[:, group].bool() & responds).nonzero()[:, 0]
        if len(candidates):
            chosen.append(int(candidates[within[candidates].argmax()]))
    return chosen
