import copy

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.metrics import pearson, sanity_check, spearman


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return TinyCNN()


def test_spearman_equals_scipy_with_ties() -> None:
    first, second = torch.rand(4, 7, 5), torch.rand(4, 7, 5)
    first[1], second[1] = first[1].round(decimals=1), second[1].round(decimals=1)
    expected = [scipy.stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second)]
    torch.testing.assert_close(spearman(first, second), torch.tensor(np.array(expected)))
    torch.testing.assert_close(spearman(first, first**3), torch.ones(4, dtype=torch.float64))
    assert spearman(first, torch.zeros(4, 7, 5)).tolist() == [0] * 4
    assert pearson(first, torch.full((4, 7, 5), 0.3)).tolist() == [0] * 4


def test_modules_forget_from_the_last_to_the_first(model: nn.Module) -> None:
    before = copy.deepcopy(model.state_dict())
    images, states = torch.rand(2, 3, 16, 16), []

    class Recorder(sl.Explainer):
        def explain(self, model: nn.Module, inputs: Tensor, targets: object, layer: object) -> Tensor:
            states.append(copy.deepcopy(model.state_dict()))
            return inputs[:, 0]

    check = sanity_check(model, Recorder(), images)
    assert check.modules == ["classifier", "head.2", "features.2", "features.0"]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
        assert torch.equal(states[0][name], before[name])
    for step, state in enumerate(states[1:]):
        for name, weight in state.items():
            forgotten = name.rpartition(".")[0] in check.modules[: step + 1]
            assert torch.equal(weight, before[name]) != forgotten
    assert check.spearman.shape == check.ssim.shape == (4, 2)
    # This explainer never looks at the model, which the test exposes.
    torch.testing.assert_close(check.spearman, torch.ones(4, 2, dtype=torch.float64))
    torch.testing.assert_close(check.ssim, torch.ones(4, 2))


def test_maps_that_explain_the_model_change(model: nn.Module) -> None:
    images = torch.rand(4, 3, 16, 16)
    state = torch.get_rng_state()
    check = sanity_check(model, "layercam", images, layer="features.3")
    assert torch.equal(torch.get_rng_state(), state)
    assert check.spearman[-1].mean() < 0.9
    again = sanity_check(model, "layercam", images, layer="features.3")
    assert torch.equal(check.spearman, again.spearman)
    other = sanity_check(model, "layercam", images, layer="features.3", seed=1)
    assert not torch.equal(check.spearman, other.spearman)


def test_named_modules_forget_with_all_that_is_inside(model: nn.Module) -> None:
    states = []

    class Recorder(sl.Explainer):
        def explain(self, model: nn.Module, inputs: Tensor, targets: object, layer: object) -> Tensor:
            states.append(copy.deepcopy(model.state_dict()))
            return inputs[:, 0]

    check = sanity_check(model, Recorder(), torch.rand(1, 3, 16, 16), modules=["head", "features"])
    assert check.modules == ["head", "features"]
    changed = [{n for n, w in state.items() if not torch.equal(w, model.state_dict()[n])} for state in states]
    names = set(model.state_dict())
    assert changed == [set(), {n for n in names if "head" in n}, {n for n in names if "classifier" not in n}]


def test_parameters_without_a_start_are_shuffled() -> None:
    class Attention(nn.Module):
        """Parameters of its own, and a projection whose weights are used without a call."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.arange(1.0, 4))
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).mT * self.scale
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))

    scales = []

    class Recorder(sl.Explainer):
        def explain(self, model: nn.Module, inputs: Tensor, targets: object, layer: object) -> Tensor:
            scales.append(model.scale.tolist())
            return inputs[:, 0]

    check = sanity_check(Attention(), Recorder(), torch.rand(1, 3, 12, 12), seed=1)
    assert check.modules == ["head", "attention.out_proj", "attention", ""]
    assert scales[:4] == [[1, 2, 3]] * 4
    assert scales[4] != [1, 2, 3]
    assert sorted(scales[4]) == [1, 2, 3]


def test_sanity_check_invalid_arguments_raise(model: nn.Module) -> None:
    images = torch.rand(1, 3, 16, 16)
    with pytest.raises(sl.SightlineError, match="unknown module 'haed'; did you mean 'head'"):
        sanity_check(model, "gaussian", images, modules=["haed"])
    with pytest.raises(sl.SightlineError, match="no parameters"):
        sanity_check(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "gaussian", images)
    with pytest.raises(sl.SightlineError, match="11 pixels"):
        sanity_check(model, "gaussian", images[..., :8])
