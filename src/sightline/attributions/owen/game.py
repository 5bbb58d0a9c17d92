"""The explained function of images of which only some parts are shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.attributions.owen.maskers import MaskedInputs
from sightline.attributions.owen.partition import Partition
from sightline.errors import SightlineError
from sightline.network.logits import class_scores, logits_of, probabilities_of
from sightline.network.targets import Targets, resolve_score, resolve_targets

Output = Literal["probability", "logits"]


@dataclass(frozen=True)
class Game:
    """The explained function of images of which only some parts are shown."""

    model: nn.Module
    score: Callable[[Any, Tensor], Tensor]
    masked: MaskedInputs
    partition: Partition

    def __call__(self, parts: Tensor, on: Tensor, images: Tensor, rows: int) -> Tensor:
        """Return scores (n, e, K) of the contexts `on` (n, e) of `parts`, for the images (n,), `rows` at a time."""
        many = parts.shape[1]
        down, across = max(1, rows // many), min(many, rows)
        scores = []
        for i in range(0, len(parts), down):
            which = images[i : i + down]
            row = []
            for j in range(0, many, across):
                part = parts[i : i + down, j : j + across]
                shown = self.partition.shown(part, on[i : i + down, j : j + across])
                answer = self.model(self.masked(shown, which))
                row.append(self.score(answer, which[:, None].expand_as(part).flatten()).unflatten(0, part.shape))
            scores.append(torch.cat(row, 1))
        return torch.cat(scores)


def explained_score(targets: Targets | Literal["all"], answer: Any, output: Output) -> Callable[[Any, Tensor], Tensor]:
    """Return a function from N inputs and the images they come from to scores (N, K); K = 1 except for all classes."""

    def explained(answer: Any) -> Tensor:
        return probabilities_of(answer) if output == "probability" else at_least_float32(class_scores(answer))

    if isinstance(targets, str):
        if targets != "all":
            raise SightlineError(f"targets is {targets!r}; expected class indices, None, a Target, a function or 'all'")
        return lambda answer, of: explained(answer)
    if targets is None or isinstance(targets, Tensor | int):
        classes = resolve_targets(targets, logits_of(answer))
        return lambda answer, of: explained(answer).gather(1, classes[of, None])
    score = resolve_score(targets, answer)
    return lambda answer, of: at_least_float32(score(answer, of))[:, None]
