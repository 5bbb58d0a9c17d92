"""Groups of filters that respond similarly: their similarity, the grouping by it, and how coherent groups are.

"Interpretable Compositional Convolutional Neural Networks" (Shen et al., IJCAI 2021), section 3.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.optional import requires_extra
from sightline.errors import SightlineError

# A filter whose variance is this small relative to its mean square is constant except for rounding.
CONSTANT = 1e-10


def filter_similarity(
    activations: Tensor, shares: Tensor | None = None, total: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> Tensor:
    """Pearson correlation + 1 of every two filters' maps, over images and places.

    Each place is centered on its mean over the images: s_ij = 1 + sum_I <x_i^I - mu_i, x_j^I - mu_j> / (sigma_i sigma_j), where
    mu_i is filter i's mean map, and sigma_i^2 the sum of squares of what is left. Where filters respond in every image, such as
    at the border, says nothing then. A filter that never changes correlates with none: 1, also with itself.

    Args:
        activations: (B, C, h, w), float32 at least.
        shares: (B,) how much each image counts; default: 1.
        total: sums a tensor over processes, differentiably.

    Returns:
        (C, C) in [0, 2], with a gradient.
    """
    x = activations.flatten(2)  # (B, C, h w)
    shares = x.new_ones(len(x)) if shares is None else shares.to(x)
    weight = shares[:, None, None]
    first = total(torch.cat([(weight * x).sum(0).flatten(), (weight * x.square()).sum((0, 2)), shares.sum()[None]]))
    sums, squares, count = first.split([x[0].numel(), x.shape[1], 1])
    centered = weight * (x - (sums / count.clamp_min(1)).view_as(x[0]))
    rows = centered.transpose(0, 1).flatten(1)  # (C, B h w)
    return _correlation(total(rows @ rows.T), squares) + 1


class Moments:
    """What is kept of the filters' maps in a pass over many images, in double precision, for their similarity.

    Attributes:
        values: on the CPU, one after the other: the number of images, the summed maps (C, h, w), and the summed products
            (C, C); those of several processes add up. Empty before the first batch.
    """

    def __init__(self) -> None:
        self.values = torch.empty(0, dtype=torch.float64)
        self._shape = (0, 0)

    def add(self, activations: Tensor) -> None:
        """Count in the maps (B, C, h, w) of a batch.

        Raises:
            SightlineError: they are of another size than those before.
        """
        x = activations.detach().flatten(2)
        x = (x.cpu() if x.device.type == "mps" else x).double()  # MPS has no double precision
        rows = x.transpose(0, 1).flatten(1)
        count = x.new_tensor([float(len(x))])
        values = torch.cat([count, x.sum(0).flatten(), (rows @ rows.T).flatten()]).cpu()
        shape = (x.shape[1], x.shape[2])
        if len(self.values) and shape != self._shape:
            raise SightlineError(f"filters' maps have {shape} channels and places, and had {self._shape}; use one size")
        self._shape = shape
        self.values = self.values + values if len(self.values) else values

    def similarity(self) -> Tensor:
        """As `filter_similarity` of all images at once (C, C), in double precision on the CPU.

        Raises:
            SightlineError: no image was counted, or some activation was NaN or infinite.
        """
        if not len(self.values) or self.values[0] == 0:
            raise SightlineError("filters cannot be grouped: no image was given")
        if not self.values.isfinite().all():
            raise SightlineError(
                "filters cannot be grouped: their activations are NaN or infinite; is the model finite?"
            )
        channels, places = self._shape
        count, sums, products = self.values.split([1, channels * places, channels**2])
        maps, products = sums.view(channels, places), products.view(channels, channels)
        return _correlation(products - maps @ maps.T / count, products.diagonal()) + 1


def _correlation(products: Tensor, squares: Tensor) -> Tensor:
    """Correlations (C, C) by centered products (C, C); 0 for filters that are constant relative to their squares (C,)."""
    variance = products.diagonal()
    varies = variance > CONSTANT * squares
    scale = torch.where(varies, variance, 1.0).rsqrt() * varies
    return scale[:, None] * products * scale


def spectral_groups(similarity: Tensor, groups: int) -> Tensor:
    """Which group (C,) each filter belongs to, in 0 .. groups - 1, by spectral clustering of their similarity.

    Equal similarities give equal groups.

    Args:
        similarity: (C, C), symmetric, not negative.
        groups: how many, of at least 2.

    Raises:
        SightlineError: there are fewer filters than groups.
    """
    with requires_extra("cluster", "the guide 'iccnn'"):
        from sklearn.cluster import SpectralClustering

    if groups > len(similarity):
        raise SightlineError(
            f"groups is {groups}; the layer has {len(similarity)} filters, and no more groups than that"
        )
    symmetric = ((similarity + similarity.T) / 2).clamp_min(0).double().cpu().numpy()
    clustering = SpectralClustering(groups, affinity="precomputed", random_state=0)
    return torch.from_numpy(clustering.fit_predict(symmetric)).long()


def membership(assigned: Tensor, groups: int) -> Tensor:
    """(C, K) float: 1 where a filter is in a group; `assigned` is (C,)."""
    return F.one_hot(assigned, groups).to(torch.float32)


def part_coherence(similarity: Tensor, members: Tensor) -> Tensor:
    """How similar filters of one group are, relative to all: the sum over groups of within-group / all similarity.

    Args:
        similarity: (C, C).
        members: (C, K), see `membership`.

    Returns:
        A scalar: 1 where all filters are equally similar, up to K where filters are like none outside their group.
    """
    members = members.to(similarity)
    toward = members.T @ similarity  # (K, C)
    return _ratio((toward * members.T).sum(1), toward.sum(1)).sum()


def group_activity(activations: Tensor, members: Tensor) -> Tensor:
    """How strongly each image drives each group (B, K): the mean of its filters' positive activations (B, C, h, w)."""
    strength = activations.clamp_min(0).mean((2, 3))
    return strength @ (members / members.sum(0).clamp_min(1)).to(strength)


def class_coherence(
    activity: Tensor, labels: Tensor, classes: int, total: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> Tensor:
    """How similarly images of one class drive the groups, relative to all: sum over classes of within-class / all similarity.

    The similarity of two images is the cosine of their groups' activities. Summed over pairs of images it is a product of
    sums over images, so no pair has to be looked at.

    Args:
        activity: (B, K), not negative.
        labels: (B,) in 0 .. classes - 1.
        classes: how many classes there are; those without an image add nothing.
        total: sums a tensor over processes, differentiably.

    Returns:
        A scalar: 1 where all images are equally similar, up to the number of classes in the images.
    """
    directions = F.normalize(activity, dim=1)
    sums = total(F.one_hot(labels, classes).to(directions).T @ directions)  # (classes, K)
    return _ratio(sums.square().sum(1), sums @ sums.sum(0)).sum()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where the whole is 0."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)
