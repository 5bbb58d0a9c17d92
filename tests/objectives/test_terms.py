"""A guide of a user's own that breaks the contract is named, with what to return; no number is NaN in silence."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.data.batch import Batch
from sightline.errors import NonFiniteLossError, SightlineError
from sightline.explainers import create_explainer
from sightline.guides import Guide, create_guide, from_config


class Own(Guide):
    """Returns what it is told to."""

    def __init__(self, masks: Any = None, values: Any = None) -> None:
        super().__init__()
        everyone = torch.ones(4, dtype=torch.bool)
        self.masks = {"own": everyone} if masks is None else masks
        self.values = {"own": torch.ones(4)} if values is None else values

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        return self.masks

    def losses(self, context: Any) -> dict[str, Tensor]:
        return self.values


class Weighs(Guide):
    """Weighs the task loss as it is told to."""

    def __init__(self, weights: Any) -> None:
        super().__init__()
        self.given = weights

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor | None:
        return self.given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": {"owm": torch.ones(4)}}, r"Own.sample_mask names the terms \['own'\] and losses \['owm'\]"),
        ({"values": {}}, r"\['own'\] and losses \[\]; both must name the same"),
        ({"values": torch.ones(4)}, "Own.losses returned a Tensor; expected a dict"),
        (
            {"values": {"own": torch.tensor(1.0)}},
            r"Own.losses returned torch.float32 \(\) for own; expected a float .*\(4,\)",
        ),
        ({"values": {"own": torch.ones(3)}}, r"returned torch.float32 \(3,\) for own"),
        ({"values": {"own": [1.0] * 4}}, "returned list for own"),
        ({"masks": {"own": torch.ones(4)}}, "Own.sample_mask returned torch.float32 .* expected a bool tensor"),
        ({"masks": {"own": torch.ones(4, 1, dtype=torch.bool)}}, r"Own.sample_mask returned torch.bool \(4, 1\)"),
        ({"masks": [torch.ones(4, dtype=torch.bool)]}, "Own.sample_mask returned a list"),
        (
            {"masks": {"task": torch.ones(4, dtype=torch.bool)}, "values": {"task": torch.ones(4)}},
            "a guide's term is called 'task', and an objective returns something else",
        ),
    ],
)
def test_values_that_a_guide_returns_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        sl.Objective(TinyCNN().double(), Own(**options))(batch_of())


@pytest.mark.parametrize("weights", [torch.ones(2), torch.ones(4, 1), torch.ones(4, dtype=torch.int64), [1.0] * 4])
def test_weights_of_the_images_are_checked(weights: Any) -> None:
    with pytest.raises(SightlineError, match=r"Weighs.sample_weights returned .*; expected a float tensor \(4,\)"):
        sl.Objective(TinyCNN().double(), Weighs(weights))(batch_of())


class Other(Own):
    """Another guide with a term of the same name."""


def test_two_guides_need_two_names() -> None:
    with pytest.raises(SightlineError, match="called 'own', and another guide has it too"):
        sl.Objective(TinyCNN().double(), Own() + Other())(batch_of())


def test_counts_are_checked_too() -> None:
    with pytest.raises(SightlineError, match=r"Own.sample_mask returned a list"):
        sl.Objective(TinyCNN().double(), Own(masks=[])).counts([batch_of()])


class Reads(Own):
    """Looks at the tapped layer, which it does not declare."""

    def losses(self, context: Any) -> dict[str, Tensor]:
        if self.values:
            context.raw_maps(create_explainer("gradcam"), context.batch.labels)
        return {"own": context.tapped[0].logits.sum(1)}


@pytest.mark.parametrize("values", [True, {}])
def test_a_guide_that_needs_the_tap_is_reported(values: Any) -> None:
    with pytest.raises(SightlineError, match="none has needs_tap = True"):
        sl.Objective(TinyCNN().double(), Reads(values=values), layer="features.2")(batch_of())


@pytest.mark.parametrize("guide", ["segment_overlap", sl.SegmentOverlap, 3])
def test_object_that_is_not_a_guide_raises(guide: Any) -> None:
    with pytest.raises(SightlineError, match="expected a guide such as"):
        sl.Objective(TinyCNN(), guide)


@pytest.mark.parametrize("scale", [math.nan, math.inf, "2", None])
def test_weights_are_finite_numbers(scale: Any) -> None:
    with pytest.raises(SightlineError, match=r"scale is .*; expected a finite number"):
        sl.SegmentOverlap() * scale
    with pytest.raises(SightlineError, match="scale is"):
        (sl.SegmentOverlap(weight=1) + create_guide("energy")) * scale
    if scale is not None:
        with pytest.raises(SightlineError, match="scale is"):
            from_config({"name": "segment_overlap", "scale": scale})
        with pytest.raises(SightlineError, match="task_weight is"):
            sl.Objective(TinyCNN(), task_weight=scale)
        with pytest.raises(SightlineError, match=r"weight is .*; expected a number"):
            sl.SegmentOverlap(weight=scale)


def test_a_weight_that_is_nan_stops_the_training() -> None:
    weights = torch.tensor([1.0, math.nan, 1.0, 1.0])
    with pytest.raises(NonFiniteLossError, match=r"the loss of 1 images is NaN or infinite \(indices \[1\]\)"):
        sl.Objective(TinyCNN().double(), Weighs(weights))(batch_of())
