"""How similar two maps are."""

import torch
from scipy.stats import rankdata
from torch import Tensor

from sightline._core.tensors import check_maps, has_contrast


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's r (B,) of maps (B, H, W), in [-1, 1] and in fp64; 0 where one of the two is constant."""
    check_maps(first)
    check_maps(second, first.shape)
    a, b = (m.flatten(1).double() - m.flatten(1).double().mean(1, keepdim=True) for m in (first, second))
    spread = a.norm(dim=1) * b.norm(dim=1)
    constant = ~(has_contrast(first) & has_contrast(second))
    return torch.where(constant, 0.0, (a * b).sum(1) / torch.where(constant, 1.0, spread)).clamp(-1, 1)


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation (B,) of maps (B, H, W), in [-1, 1]; equal values share their mean rank, 0 as in `pearson`."""
    check_maps(first)
    check_maps(second, first.shape)
    ranked = pearson(_ranks(first), _ranks(second))
    return torch.where(has_contrast(first) & has_contrast(second), ranked, 0)


def _ranks(maps: Tensor) -> Tensor:
    ranks = rankdata(maps.flatten(1).cpu().numpy(), axis=1)
    return torch.from_numpy(ranks).to(maps.device).view(maps.shape)
