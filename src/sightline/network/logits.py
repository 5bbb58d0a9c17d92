"""The logits in what a classifier returned, and what they say about its classes.

A classifier of two classes may return one logit z an image: sigmoid(z) is the probability of class 1, the other class is 0.
It is the classifier whose two logits are (0, z): probabilities, cross-entropy and every gradient of them are equal. `logits_of`
returns these two, so only what a class is explained by (`class_scores`) and what a model returns (`returned_logits`) differ.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.tensors import at_least_float32
from sightline.errors import SightlineError


def returned_logits(output: Any) -> Tensor:
    """Return the logits (B, n) in what a classifier returned; n may be 1.

    Args:
        output: a tensor, an object with `.logits`, or a mapping with the key `logits`.

    Raises:
        SightlineError: it is something else.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(logits, Tensor) and logits.ndim == 2:
        return logits
    came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(output).__name__
    raise SightlineError(
        f"the model returned {came}; expected logits (B, K), (B, 1) of a single logit, or an object or mapping with logits; "
        "wrap a model that returns something else in a module that returns its logits"
    )


def logits_of(output: Any) -> Tensor:
    """Return a logit for each class (B, K), K >= 2; of a single logit z, (0, z)."""
    logits = returned_logits(output)
    return F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits


def class_scores(output: Any) -> Tensor:
    """Return the score (B, K) that each class is explained by: its logit; of a single logit z, (-z, z).

    The logit 0 of the pair (0, z) is a constant, which no map can explain.
    """
    logits = returned_logits(output)
    return torch.cat([-logits, logits], 1) if logits.shape[1] == 1 else logits


def probabilities_of(output: Any) -> Tensor:
    """Return the probability (B, K) of each class, float32 at least: the softmax; of a single logit, by the sigmoid."""
    return at_least_float32(logits_of(output)).softmax(1)


def class_count(logits: int) -> int:
    """Return how many classes so many logits tell apart: as many, and two for a single logit."""
    return max(2, logits)


def hits(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether (B,) the class of the highest score (B, K) is the label (B,), or one of the labels (B, K)."""
    predicted = scores.argmax(1)
    return predicted == labels if labels.ndim == 1 else labels.gather(1, predicted[:, None])[:, 0] > 0
