"""The minimum of a smooth convex function, by Newton's method with conjugate gradients."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_STEPS = 100
MAX_PRODUCTS = 500
DECREASE = 1e-4  # of what the slope promises, which a step must bring (Armijo)

Linear = Callable[[Tensor], Iterable[Tensor]]
Losses = Sequence[Callable[[Tensor], Tensor]]


def minimize(linear: Linear, losses: Losses, start: Tensor, tolerance: float, noise: float = 1e-14) -> Tensor:
    """Return the parameters that minimize a sum of convex functions of linear functions.

    Each step solves for Newton's direction by conjugate gradients, the more exactly the smaller the gradient is, and halves it
    until the sum decreases. The search ends by the gradient, because values near the minimum differ by less than their
    rounding. Warns if the tolerance is not reached.

    Args:
        linear: from the parameters to one tensor for each summand, each linear in the parameters, without a constant. One of
            them is differentiated before the next one is asked for, so only one keeps a graph in memory.
        losses: from each of these tensors to a scalar; convex.
        start: parameters of any shape, float64.
        tolerance: largest absolute value of the gradient where the search ends.
        noise: the rounding of the sum, relative to it.

    References:
        Nocedal and Wright, "Numerical Optimization", 2006, algorithm 7.1 (line search Newton-CG).
    """
    with torch.inference_mode(False), torch.enable_grad():
        now = _evaluate(linear, losses, start)
        for _ in range(MAX_STEPS):
            if now.gradient.abs().max() <= tolerance:
                return now.parameters
            step = _newton_step(linear, losses, now)
            slope = (now.gradient * step).sum()
            after = None
            while after is None and step.abs().max() > 0:
                trial = _evaluate(linear, losses, now.parameters + step)
                if trial.value <= now.value + DECREASE * slope + noise * now.value.abs():
                    after = trial
                step, slope = step / 2, slope / 2
            if after is None:
                break
            now = after
    if not (largest := now.gradient.abs().max().item()) <= tolerance:
        warnings.warn(
            f"the fit stopped where the largest gradient is {largest:.1e}; expected at most {tolerance:.0e}. A larger "
            "strength makes the fit easier",
            stacklevel=3,
        )
    return now.parameters


@dataclass(frozen=True)
class _Point:
    """Some parameters with the sum there, its gradient, and the values of the linear functions."""

    parameters: Tensor
    value: Tensor
    gradient: Tensor
    images: list[Tensor]


def _evaluate(linear: Linear, losses: Losses, at: Tensor) -> _Point:
    parameters = at.detach().clone().requires_grad_()
    value, gradient, images = at.new_zeros(()), torch.zeros_like(at), []
    for image, loss in zip(linear(parameters), losses, strict=True):
        term = loss(image)
        gradient += torch.autograd.grad(term, parameters)[0]
        value = value + term.detach()
        images.append(image.detach())
    return _Point(parameters.detach(), value, gradient, images)


def _newton_step(linear: Linear, losses: Losses, now: _Point) -> Tensor:
    """Solve `Hessian @ step = -gradient` by conjugate gradients, which need products with the Hessian alone."""
    step, residual = torch.zeros_like(now.gradient), -now.gradient
    direction, squares = residual, residual.square().sum()
    goal = squares.sqrt() * min(0.25, squares.sqrt().sqrt().item())
    for _ in range(MAX_PRODUCTS):
        if squares.sqrt() <= goal:
            break
        product = _hessian_product(linear, losses, now, direction)
        curvature = (direction * product).sum()
        if curvature <= 0:  # only rounding makes it so
            break
        length = squares / curvature
        step = step + length * direction
        residual = residual - length * product
        before, squares = squares, residual.square().sum()
        direction = residual + squares / before * direction
    return step if step.any() else -now.gradient


def _hessian_product(linear: Linear, losses: Losses, now: _Point, direction: Tensor) -> Tensor:
    """Return A' L'' A v, the losses' second derivative L'' being taken between the linear functions A and their transposes."""
    vector = direction.detach().clone().requires_grad_()
    product = torch.zeros_like(vector)
    for change, loss, image in zip(linear(vector), losses, now.images, strict=True):
        at = image.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(at), at, create_graph=True)
        (curved,) = torch.autograd.grad(slope, at, change.detach())
        product += torch.autograd.grad(change, vector, curved)[0]
    return product
