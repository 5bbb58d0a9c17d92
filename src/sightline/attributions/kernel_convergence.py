"""When KernelSHAP has enough coalitions: standard errors of its regression.

Covert and Lee, "Improving KernelSHAP: Practical Shapley Value Estimation Using Linear Regression" (AISTATS 2021), stop when the
largest standard error is a small share of the range of the values. They take errors from repeated regressions; here they are
the robust ("sandwich") errors of the one regression, which hold for random coalitions and any model.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

CHECKED = 128  # coalitions, after each of which the regression may be finished; a power of two


def values_and_errors(shown: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values (M,) of M parts and their standard errors (M,).

    Args:
        shown: (n, M), which parts each coalition shows; the first shows all, the second none, and the others are draws from the
            Shapley kernel.
        scores: (n,) of the coalitions.
    """
    shown, scores = shown.cpu().double(), scores.cpu().double()
    full, empty = scores[:2]
    shown, scores = shown[2:], scores[2:]
    # The values sum to full - empty: the last one is what the others leave.
    design = shown[:, :-1] - shown[:, -1:]
    answers = scores - empty - shown[:, -1] * (full - empty)
    inverse = torch.linalg.pinv(design.T @ design)
    values = inverse @ (design.T @ answers)
    residuals = answers - design @ values
    meat = (design * residuals[:, None]).T @ (design * residuals[:, None])
    covariance = inverse @ meat @ inverse * len(design) / max(1, len(design) - design.shape[1])
    last = (covariance.sum()).clamp_min(0).sqrt()
    return (
        torch.cat([values, (full - empty - values.sum())[None]]),
        torch.cat([covariance.diagonal().clamp_min(0).sqrt(), last[None]]),
    )


def until_converged(
    draw: Callable[..., Iterator[Tensor]], scores_of: Callable[[], Tensor], tolerance: float
) -> Callable[..., Iterator[Tensor]]:
    """Return a generator of coalitions that ends once the largest standard error is at most this share of the values' range.

    Args:
        draw: the generator of coalitions (1, M).
        scores_of: returns the scores of the coalitions that have been evaluated.
        tolerance: the share.
    """

    def coalitions(original: Any, **options: Any) -> Iterator[Tensor]:
        drawn: list[Tensor] = []
        for coalition in draw(original, **options):
            if len(drawn) % CHECKED == 0 and len(drawn) > 2 + 2 * coalition.shape[1]:
                values, errors = values_and_errors(torch.cat(drawn), scores_of())
                if errors.max() <= tolerance * (values.max() - values.min()):
                    return
            drawn.append(coalition)
            yield coalition

    return coalitions
