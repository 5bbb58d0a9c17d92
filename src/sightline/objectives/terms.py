"""What a guide adds to one step, checked: a guide of a user's own that breaks the contract is named, with what to return."""

from typing import Any

import torch
from torch import Tensor

from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.objectives.base import Context, Guide

RESERVED = frozenset({"loss", "task", "logits", "maps"})  # what an objective returns in addition to the terms


def guide_terms(guide: Guide, context: Context) -> list[tuple[str, Tensor, Tensor]]:
    """Return the name, the values (B,) and the mask (B,) bool of every term of a guide.

    Raises:
        SightlineError: the guide's `sample_mask` or `losses` returns something else, or they name different terms.
    """
    masks = sample_masks(guide, context.batch)
    values = _checked(guide, "losses", guide.losses(context), len(context.batch))
    if masks.keys() != values.keys():
        raise SightlineError(
            f"{type(guide).__name__}.sample_mask names the terms {sorted(masks)} and losses {sorted(values)}; both must "
            "name the same"
        )
    return [(name, each, masks[name]) for name, each in values.items()]


def sample_masks(guide: Guide, batch: Batch) -> dict[str, Tensor]:
    """Return which images (B,) bool each term of a guide averages over.

    Raises:
        SightlineError: the guide's `sample_mask` returns something else.
    """
    return _checked(guide, "sample_mask", guide.sample_mask(batch), len(batch), masks=True)


def sample_weights_of(guide: Guide, logits: Tensor, batch: Batch) -> Tensor | None:
    """Return the weights (B,) of the task loss that a guide gives, or None.

    Raises:
        SightlineError: the guide's `sample_weights` returns something else.
    """
    weights = guide.sample_weights(logits, batch)
    if weights is None:
        return None
    return _checked(guide, "sample_weights", {"the weights": weights}, len(batch))["the weights"]


def check_names(names: list[str]) -> None:
    """Raise if two terms of an objective have one name, or one is called as something else that the objective returns."""
    for number, name in enumerate(names):
        if name in RESERVED or name in names[:number]:
            why = "an objective returns something else by this name" if name in RESERVED else "another guide has it too"
            raise SightlineError(f"a guide's term is called {name!r}, and {why}; give the term another name")


def _checked(guide: Guide, method: str, found: Any, size: int, masks: bool = False) -> dict[str, Tensor]:
    kind = "bool" if masks else "float"
    if not isinstance(found, dict):
        raise SightlineError(
            f"{type(guide).__name__}.{method} returned a {type(found).__name__}; expected a dict from the name of each term "
            f"to a {kind} tensor ({size},)"
        )
    for name, values in found.items():
        fits = isinstance(values, Tensor) and values.shape == (size,)
        if not fits or (values.dtype == torch.bool if masks else values.is_floating_point()) is False:
            came = f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise SightlineError(
                f"{type(guide).__name__}.{method} returned {came} for {name}; expected a {kind} tensor ({size},), one value "
                "an image"
            )
    return found
