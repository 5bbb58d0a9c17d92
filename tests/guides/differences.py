"""Gradients of an objective against central differences, in double precision."""

import pytest
import torch

import sightline as sl


def check_gradients(objective: sl.Objective, batch: sl.Batch, weight: float = 1.0) -> set[str]:
    """Compare a few entries of every parameter's gradient of `weight` times the loss; the names that have one."""
    names, parameters = zip(*objective.model.named_parameters())
    gradients = torch.autograd.grad(weight * objective(batch)["loss"], parameters, allow_unused=True)
    seen = set()
    for name, parameter, gradient in zip(names, parameters, gradients):
        flat = parameter.detach().reshape(-1)
        for place in torch.randperm(len(flat))[:4].tolist():
            original, step = flat[place].item(), 1e-5
            values = []
            for shifted in (original + step, original - step):
                flat[place] = shifted
                values.append(weight * objective(batch)["loss"].item())
            flat[place] = original
            numeric = (values[0] - values[1]) / (2 * step)
            analytic = 0.0 if gradient is None else gradient.reshape(-1)[place].item()
            assert analytic == pytest.approx(numeric, abs=1e-7, rel=1e-4), name
            if abs(analytic) > 1e-5:
                seen.add(name)
    return seen
