"""Attention pooling as a guide: its term, and whose gradient reaches it."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from differences import check_gradients
from torch import nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.guides import create_guide
from sightline.guides.attention_gate import attention_loss


def opened(gate: nn.Module) -> None:
    """Give the attention a view that differs from place to place."""
    with torch.no_grad():
        gate.weight.copy_(torch.linspace(-2, 3, gate.weight.numel()))


@pytest.mark.parametrize("detach", [False, True])
def test_the_guide_trains_attention_and_head(detach: bool) -> None:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of(2)
    guide = create_guide("attention_pooling", detach=detach)
    objective = sl.Objective(model, guide, task_weight=float(not detach))
    opened(guide.gate)
    seen = check_gradients(objective, batch)
    assert {"features.3.attention_pooling.weight", "features.3.attention_pooling.bias"} <= seen
    output = objective(batch)
    logits = guide.gate(F.softplus(model.features[:3](batch.images)))[..., 0]
    expected = attention_loss(logits, batch.masks.double(), 1 - batch.masks.double()).mean()
    torch.testing.assert_close(output["attention_pooling"], expected.detach())


def test_detached_the_masks_alone_train_the_attention() -> None:
    for detach in (False, True):
        torch.manual_seed(4)
        guide = sl.AttentionPooling(detach=detach, weight=0.0)
        objective = sl.Objective(TinyCNN().double(), guide)
        opened(guide.gate)
        objective(batch_of())["loss"].backward()
        assert bool(guide.gate.weight.grad.any()) is not detach


def test_attention_pooling_shares_a_model_with_guides_that_tap_it() -> None:
    model, batch = TinyCNN().double(), batch_of()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = sl.Objective(model, sl.SegmentOverlap(views=2) + sl.AttentionPooling(), layer="features.3")(batch)
    assert {"attention_pooling", "segment_overlap"} <= output.keys()


def test_images_without_an_object_weigh_nothing_and_are_counted() -> None:
    model, batch = TinyCNN().double(), batch_of()
    guide = sl.AttentionPooling()
    objective = sl.Objective(model, guide)
    opened(guide.gate)
    first = objective(sl.Batch(batch.images[:2], batch.labels[:2], masks=batch.masks[:2]))
    batch.masks[3] = 0
    batch.has_mask = torch.tensor([True, True, False, True])
    mixed = objective(batch)
    torch.testing.assert_close(mixed["attention_pooling"], first["attention_pooling"])
    assert int(mixed["n/attention_pooling/unannotated"]) == 2
