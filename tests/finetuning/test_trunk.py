import pytest
import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.finetuning.trunk import Trunk


class Residual(nn.Module):
    """Two blocks with a residual connection around the second, batch norm, and a branch that runs beside it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        features = self.first(images)
        features = features + self.second(features)
        return self.head(features.mean((2, 3)))


class Tokens(nn.Module):
    """Decides by its number of places, as a vision transformer does about its position embedding."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 4, 4, 4)
        self.place = nn.Parameter(torch.randn(1, 16, 4))
        self.block = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, images):
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        if tokens.shape[1] != self.place.shape[1]:
            raise ValueError("another size")
        tokens = self.block(tokens + self.place)
        if tokens.shape[-1] != 4:
            raise ValueError("another width")
        return self.head(tokens.mean(1))


def freeze_all_but(model, *names):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(names))
    return model.eval()


def replay(trunk, model, values):
    with trunk.replaying(values):
        return model(torch.full((len(values[0]), 3, 16, 16), torch.nan))


@pytest.mark.parametrize(
    ("trained", "tapped", "values"),
    [(("head",), None, 1), (("head",), "second", 2), (("second.0", "head"), None, 1), (("second.1", "head"), None, 2)],
)
def test_the_rest_of_the_model_runs_from_what_crosses_the_cut(trained, tapped, values):
    torch.manual_seed(0)
    model, images = freeze_all_but(Residual(), *trained), torch.randn(5, 3, 16, 16)
    trunk = Trunk(model, tapped, torch.randn(3, 3, 16, 16))
    kept = trunk(images)
    assert len(kept) == values
    assert torch.allclose(replay(trunk, model, [each[[3, 1]] for each in kept]), model(images)[[3, 1]], atol=1e-6)
    assert torch.equal(model(images), model(images.clone()))  # the model is as before


def test_the_head_alone_needs_one_vector_an_image():
    model = freeze_all_but(Residual(), "head")
    assert Trunk(model, None, torch.randn(3, 3, 16, 16))(torch.randn(2, 3, 16, 16))[0].shape == (2, 4)


def test_gradients_of_what_is_trained_are_those_of_the_model():
    torch.manual_seed(0)
    model, images = freeze_all_but(Residual(), "second", "head"), torch.randn(4, 3, 16, 16)
    model.second.train()
    model(images).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    statistics = model.second[1].running_mean.clone()
    model.zero_grad()
    model.second[1].reset_running_stats()
    trunk = Trunk(model, None, images)
    replay(trunk, model, trunk(images)).square().sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(expected)
    assert all(torch.allclose(model.get_parameter(name).grad, each, atol=1e-5) for name, each in expected.items())
    assert torch.allclose(model.second[1].running_mean, statistics)


@pytest.mark.parametrize("tapped", [None, "block", "patch"])
def test_size_dependent_code_sees_the_real_image_size(tapped):
    model, images = freeze_all_but(Tokens(), "head"), torch.randn(4, 3, 16, 16)
    trunk = Trunk(model, tapped, images)
    assert torch.allclose(replay(trunk, model, trunk(images)), model(images), atol=1e-6)


def test_a_second_run_on_other_images_is_rejected():
    model = freeze_all_but(Residual(), "head")
    trunk = Trunk(model, None, torch.randn(3, 3, 16, 16))
    values = trunk(torch.randn(2, 3, 16, 16))
    with trunk.replaying(values):
        model(torch.zeros(2, 3, 16, 16))
        with pytest.raises(SightlineError, match="cache_features keeps no pixels"):
            model(torch.zeros(2, 3, 16, 16))


def test_a_model_whose_first_layer_is_trained_has_nothing_to_keep():
    with pytest.raises(SightlineError, match="nothing to keep"):
        Trunk(freeze_all_but(Residual(), "first"), None, torch.randn(3, 3, 16, 16))


def test_hooks_on_the_tapped_layer_act_on_what_is_kept():
    model, images = freeze_all_but(Residual(), "head"), torch.randn(3, 3, 16, 16)
    plain = model(images)
    model.second.register_forward_hook(lambda module, args, output: 2 * output)
    doubled = model(images)
    assert not torch.allclose(doubled, plain)
    trunk = Trunk(model, "second", images)
    assert torch.allclose(replay(trunk, model, trunk(images)), doubled, atol=1e-6)
    seen = []
    model.second.register_forward_hook(lambda module, args, output: seen.append(output))
    replay(trunk, model, trunk(images))
    assert len(seen) == 1  # the trunk calls no hook


def test_a_tapped_layer_may_hold_what_is_trained():
    model, images = freeze_all_but(Residual(), "second.1", "head"), torch.randn(3, 3, 16, 16)
    trunk, seen = Trunk(model, "second", images), []
    assert trunk.names == ["first", "second.0"]
    expected = model(images)
    model.second.register_forward_hook(lambda module, args, output: seen.append(output))
    assert torch.allclose(replay(trunk, model, trunk(images)), expected, atol=1e-6)
    assert torch.allclose(seen[0], model.second(model.first(images)), atol=1e-6)


class Output:
    """What a model of Hugging Face returns: the logits among other things."""

    def __init__(self, logits, hidden):
        self.logits, self.hidden = logits, hidden


class Described(Residual):
    """Returns an object."""

    def forward(self, images, hidden=None):
        return Output(super().forward(images), self.first(images) if hidden is None else hidden)


def test_of_an_object_the_logits_are_given():
    model, images = freeze_all_but(Described(), "head"), torch.randn(3, 3, 16, 16)
    trunk = Trunk(model, None, images)
    assert torch.allclose(replay(trunk, model, trunk(images)), model(images).logits, atol=1e-6)


class Pair(nn.Module):
    """A layer that returns more than a tensor."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, features):
        return self.layer(features), features


def test_a_tapped_layer_that_returns_several_tensors_runs_in_every_step():
    model = Residual()
    model.second = Pair()
    model.forward = lambda images: model.head(model.second(model.first(images))[0].mean((2, 3)))
    images, seen = torch.randn(3, 3, 16, 16), []
    trunk = Trunk(freeze_all_but(model, "head"), "second", images)
    assert trunk.names == ["first"]
    expected = model(images)
    model.second.register_forward_hook(lambda module, args, output: seen.append(output))
    assert torch.allclose(replay(trunk, model, trunk(images)), expected, atol=1e-6)
    assert len(seen) == 1
    assert len(seen[0]) == 2
