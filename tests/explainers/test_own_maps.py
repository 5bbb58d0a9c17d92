"""The maps that two-branch models make themselves, as an explainer like any other."""

import pytest
import torch

import sightline as sl
from networks import TinyCNN
from sightline.explainers import EXPLAINERS
from sightline.models.two_branch import SelfExplaining, attach_two_branch


def test_the_own_map_is_the_positive_part_scaled() -> None:
    torch.manual_seed(0)
    model, images = TinyCNN().double(), torch.rand(3, 3, 8, 8, dtype=torch.float64)
    branch = attach_two_branch(model, 8)
    with torch.no_grad():
        branch.decoder.output.weight.mul_(100)  # far enough from its bias to have both signs
        branch.decoder.output.bias.sub_(SelfExplaining(model)(images).maps.median())
    signed = SelfExplaining(model)(images).maps.detach()
    assert signed.min() < 0 < signed.max()
    found = sl.explain(model, images, "impactx")
    low, high = signed.relu().amin((1, 2), keepdim=True), signed.relu().amax((1, 2), keepdim=True)
    torch.testing.assert_close(found, (signed.relu() - low) / (high - low))
    assert torch.equal(found, sl.explain(model, images, "impactx", torch.tensor([0, 1, 2])))


def test_a_map_of_another_size_is_resized_to_the_image() -> None:
    model = TinyCNN()
    attach_two_branch(model, 16)
    assert sl.explain(model, torch.rand(2, 3, 8, 8), "impactx").shape == (2, 8, 8)


@pytest.mark.parametrize("name", ["impactx", "attention_branch", "weighted_shap"])
def test_they_need_neither_layer_nor_gradient(name: str) -> None:
    capabilities = EXPLAINERS[name].capabilities
    assert not any(capabilities[each] for each in ("needs_layer", "needs_gradient", "differentiable"))
