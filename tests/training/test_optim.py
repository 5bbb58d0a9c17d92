import math

import pytest
import torch
from torch import nn

from sightline.runs.recipe_parts import Optimizer
from sightline.runs.stage import Schedule
from sightline.training.optim import create_optimizer, rate


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # From weight 2 with gradient 4 at lr 0.1; the first step of Adam is lr * sign(gradient).
        (Optimizer(name="sgd", momentum=0.0), [2 - 0.4, 2 - 0.8]),
        (Optimizer(name="sgd", momentum=0.5), [2 - 0.4, 2 - 0.4 - 0.1 * (4 + 0.5 * 4)]),
        (Optimizer(name="sgd", momentum=0.0, weight_decay=1.0), [2 - 0.1 * (4 + 2), 1.4 - 0.1 * (4 + 1.4)]),
        (Optimizer(name="adam"), [1.9, 1.8]),
        (Optimizer(name="adamw", weight_decay=0.5), [2 * (1 - 0.05) - 0.1, 1.8 * (1 - 0.05) - 0.1]),
    ],
    ids=lambda value: value.name if isinstance(value, Optimizer) else "",
)
def test_two_steps_of_every_optimizer_give_the_expected_weights(config, expected):
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = create_optimizer(config, [weight], lr=0.1)
    for value in expected:
        weight.grad = torch.tensor([4.0])
        optimizer.step()
        assert weight.item() == pytest.approx(value, abs=1e-6)


def test_constant_is_one_throughout():
    assert [rate(Schedule(), step, 6, 2) for step in range(6)] == [1] * 6


def test_cosine_runs_from_one_towards_zero_over_the_stage():
    values = [rate(Schedule(name="cosine"), step, 8, 2) for step in range(9)]
    assert values == pytest.approx([math.cos(math.pi * step / 16) ** 2 for step in range(9)])
    assert values[0] == 1
    assert values[8] == pytest.approx(0)


def test_step_counts_in_epochs():
    schedule = Schedule(name="step", every=2, factor=0.1)
    assert [rate(schedule, step, 10, 2) for step in range(0, 10, 2)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert rate(schedule, 3, 10, 2) == 1


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_warmup_rises_linearly_and_then_the_schedule_begins_at_one(name):
    schedule = Schedule(name=name, warmup=0.4)
    assert [rate(schedule, step, 10, 5) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
