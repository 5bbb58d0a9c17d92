"""The minimum of a smooth convex function, by L-BFGS."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

MAX_EVALUATIONS = 5000
POLISH = 100


def minimize(
    terms: Callable[[Tensor], Iterable[Tensor]], start: Tensor, tolerance: float, noise: float = 1e-15
) -> Tensor:
    """Return the parameters that minimize a convex function.

    A line search compares values, whose rounding hides a gradient of about the root of the noise. So steps of a line search
    come first, and full quasi-Newton steps, which need gradients alone, follow. Warns if the largest gradient is above ten
    times the tolerance in the end.

    Args:
        terms: from the parameters to scalars whose sum is minimized. Each is differentiated before the next one is asked for,
            so that only one of them keeps a graph in memory.
        start: parameters of any shape, float64.
        tolerance: largest absolute value of the gradient where the search ends.
        noise: the rounding of the function's values.
    """
    parameters = start.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=MAX_EVALUATIONS, max_eval=MAX_EVALUATIONS, tolerance_grad=tolerance, tolerance_change=noise,
        history_size=30, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def evaluate() -> Tensor:
        parameters.grad = None
        total = start.new_zeros(())
        for term in terms(parameters):
            term.backward()
            total += term.detach()
        return total

    def largest_gradient() -> float:
        evaluate()
        return float("nan") if parameters.grad is None else parameters.grad.abs().max().item()

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(evaluate)
        searched, reached = parameters.detach().clone(), largest_gradient()
        if reached > tolerance:
            optimizer.param_groups[0].update(line_search_fn=None, max_iter=POLISH, tolerance_change=0.0)
            optimizer.step(evaluate)
            if not (polished := largest_gradient()) <= reached:
                return _checked(searched, reached, tolerance)
            reached = polished
    return _checked(parameters.detach(), reached, tolerance)


def _checked(parameters: Tensor, gradient: float, tolerance: float) -> Tensor:
    if not gradient <= 10 * tolerance:
        warnings.warn(
            f"the fit stopped where the largest gradient is {gradient:.1e}; expected at most {tolerance:.0e}. A larger "
            "strength makes the fit easier",
            stacklevel=4,
        )
    return parameters
