"""The weights that a stage stands for, made of those that its training went through."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sightline.runs import recipe_parts, stage

Weights = dict[str, Tensor]


class Averaging:
    """Averages the weights of a model in a stage; the model itself keeps those that are trained.

    Statistics of batch norm are averaged as weights are. Whole numbers, such as the count of batches, are those of the model.

    Args:
        config: how.
        model: at the start of the stage.

    Attributes:
        kept: what a resumed run needs: the moving average, or the weights at the start of the stage.
        weights: what the stage stands for after the last epoch; `choose` sets it.
    """

    def __init__(self, config: stage.Averaging, model: nn.Module) -> None:
        self.config = config
        self.model = model
        self.kept: Weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.weights = self.kept

    def update(self, step: int) -> None:
        """Take the weights after an optimizer step of the stage, counted from 1."""
        if self.config.name == "ema":
            decay = min(self.config.decay, 1 - 1 / (step + 1))  # until then, the mean of all weights so far
            pairs = [(kept, now) for kept, now in self._pairs() if kept.is_floating_point()]
            averages, current = map(list, zip(*pairs))
            get_ema_multi_avg_fn(decay)(averages, current, step)

    def choose_best(
        self, validate: Callable[[], dict[str, float]], watch: recipe_parts.Watch | None
    ) -> dict[str, float]:
        """Validate the candidates, choose the best of several by a metric, the first of equal ones, and return its values."""
        best: dict[str, float] = {}
        for candidate in self.candidates():
            self.choose(candidate)
            with self.applied():
                values = candidate | validate()
            if not best or (watch is not None and watch.is_better(values[watch.metric], best[watch.metric])):
                best, weights = values, self.weights
        self.weights = weights
        return best

    def candidates(self) -> list[dict[str, float]]:
        """Return the facts of the weights that a validation chooses among; all but one need `save_best`."""
        if self.config.name == "ema":
            return [{}]
        alphas = self.config.alpha if isinstance(self.config.alpha, list) else [self.config.alpha]
        return [{"alpha": alpha} for alpha in alphas]

    def choose(self, candidate: Mapping[str, float]) -> Weights:
        """Make the weights of a candidate those that the stage stands for."""
        self.weights = {}
        for name, (kept, now) in zip(self.kept, self._pairs()):
            if not kept.is_floating_point():
                self.weights[name] = now.detach().clone()
            else:
                self.weights[name] = torch.lerp(kept, now.detach(), candidate.get("alpha", 0.0))
        return self.weights

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the weights that the stage stands for, and its own again afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.apply()
        try:
            yield
        finally:
            copy_weights(own, self.model.state_dict())

    def apply(self) -> None:
        """Let the model have the weights that the stage stands for, from now on."""
        copy_weights(self.weights, self.model.state_dict())

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.kept.values(), self.model.state_dict().values(), strict=True)


@torch.no_grad()
def copy_weights(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy the values of tensors into those of the same names."""
    for name, tensor in target.items():
        tensor.copy_(source[name])
