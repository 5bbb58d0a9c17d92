"""Perturbation curves at few places: more of them only where the area is not certain enough yet.

Between two neighboring places a and b where the model was asked, the curve is taken to be straight. If it stays between f(a)
and f(b), the m places between them put the area off by at most m |f(b) - f(a)| / (2 steps). The sum of these over the curve is
the bound that the tolerance is about. A curve need not be monotone for that, but one that leaves the range of two neighbors
between them is not seen to do so, and its error is not bounded. All curves start with the places between `FIRST` equal parts.
"""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor

from sightline.metric_base.scoring import Scorer, check_probabilities

FIRST = 16  # parts of each curve before anything is known of it


class SparseCurves:
    """Curves of several ways between images, known at some places.

    Args:
        ends: (N, 2) the scores at the first and at the last place.
        steps: number of steps from the first to the last.
    """

    def __init__(self, ends: Tensor, steps: int) -> None:
        self.steps = steps
        self.values = ends.new_full((len(ends), steps + 1), torch.nan)
        self.values[:, 0], self.values[:, -1] = ends.unbind(1)

    @property
    def known(self) -> Tensor:
        """Which places (N, steps + 1) are known."""
        return ~self.values.isnan()

    def first_places(self) -> tuple[Tensor, Tensor]:
        """Return curves (M,) and places (M,) that begin: those between equal parts."""
        parts = min(FIRST, self.steps)
        places = (torch.arange(1, parts, device=self.values.device) * self.steps) // parts
        curves = torch.arange(len(self.values), device=self.values.device)
        return curves.repeat_interleave(len(places)), places.repeat(len(curves))

    def next_places(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """Return curves (M,) and places (M,) to ask next: the middles of the parts with the largest bounds.

        A curve has as many as bring its bound to the tolerance if each halves the bound of its part, and none where the bound
        is within the tolerance.
        """
        bounds, right = self.bounds()
        largest, order = bounds.sort(dim=1, descending=True, stable=True)
        before = largest.cumsum(1) - largest
        wanted = (bounds.sum(1, keepdim=True) - before / 2 > tolerance) & (largest > 0)
        curves, ranks = wanted.nonzero(as_tuple=True)
        left = order[curves, ranks]
        return curves, (left + right[curves, left]) // 2

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return the bound (N, steps + 1) on the area of the part that begins at each known place, and where that ends."""
        places = torch.arange(self.steps + 1, device=self.values.device).expand_as(self.values)
        later = torch.where(self.known, places, self.steps)
        after = later.flip(1).cummin(1).values.flip(1)  # the next known place from here on
        right = torch.cat([after[:, 1:], after[:, -1:]], 1)
        change = (self.values.gather(1, right) - self.values).abs()
        inner = (right - places - 1).clamp_min(0)
        return torch.where(self.known, inner * change / (2 * self.steps), 0), right

    def filled(self) -> Tensor:
        """Return the curves (N, steps + 1), straight between known places."""
        places = torch.arange(self.steps + 1, device=self.values.device).expand_as(self.values)
        left = torch.where(self.known, places, 0).cummax(1).values
        right = torch.where(self.known, places, self.steps).flip(1).cummin(1).values.flip(1)
        share = (places - left) / (right - left).clamp_min(1)
        low, high = self.values.gather(1, left), self.values.gather(1, right)
        return low + share * (high - low)


def adaptive_curves(
    scorer: Scorer,
    ends: Tensor,
    prepared: Tensor,
    nothing: Tensor,
    ranks: Tensor,
    changed: Tensor,
    inserts: Tensor,
    score: Callable[[Tensor, Tensor], Tensor],
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Return curves (N, S + 1) of K x B ways between images, and at how many places (N,) each was asked.

    Args:
        scorer: the model.
        ends: (N, 2) the scores at both ends, kind by kind.
        prepared: (B, C, H, W), the images as the model takes them.
        nothing: (B, C, H, W), what stands where an image is taken away.
        ranks: (B, H, W) int32, each pixel's place in the order of change.
        changed: (S + 1,) how many pixels have changed at each place.
        inserts: (K,) bool, of each kind, whether pixels of the image come instead of going.
        score: from probabilities (M, classes) and the images (M,) that they are of to scores (M,).
        tolerance: of the area under each curve.
    """
    curves = SparseCurves(ends, len(changed) - 1)
    rows, places = curves.first_places()
    while len(rows):
        size = scorer.batch_size(prepared, len(rows))
        for some, where in zip(*(each.tensor_split(ceil(len(rows) / size)) for each in (rows, places))):
            of = some % len(prepared)
            top = ranks[of] < changed[where, None, None]
            shown = top == inserts[some // len(prepared), None, None]
            probabilities = scorer.score(torch.where(shown[:, None], prepared[of], nothing[of]))
            curves.values[some, where] = score(probabilities, of).to(curves.values)
        check_probabilities(curves.values[rows, places])
        rows, places = curves.next_places(tolerance)
    return curves.filled(), curves.known.sum(1)
