"""The maps of what a guide gave a model, a branch or groups of filters, as an explainer like any other."""

import copy

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import NotDefinedError, SightlineError
from sightline.explainers import EXPLAINERS, create_explainer
from sightline.guides.iccnn import ICCNN
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


@pytest.mark.parametrize("name", ["impactx", "attention_branch", "attention_pooling", "weighted_shap"])
def test_builtin_maps_need_neither_layer_nor_gradient(name: str) -> None:
    capabilities = EXPLAINERS[name].capabilities
    assert not any(capabilities[each] for each in ("needs_layer", "needs_gradient", "differentiable"))


# ---- groups of filters ----


class Planes(nn.Module):
    """The layer's four filters are the red plane, its negative, the green plane and twice the blue one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1, bias=False)
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            planes = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 2]])
            self.layer.weight.copy_(planes[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0, 0.1, 0], [-1.0, 0, 0.2, 0.1]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean((2, 3)))


GROUPS = [0, 0, 1, 1]


def scaled(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def test_the_group_that_adds_the_most_to_the_class_by_hand() -> None:
    images = torch.rand(3, 3, 4, 4) + torch.tensor([1.0, 0, 0])[:, None, None]  # the reds are the strongest
    explainer = create_explainer("iccnn", groups=GROUPS)
    red, others = scaled(images[:, 0]), scaled(images[:, 1] + 2 * images[:, 2])  # the negative of red is never positive
    torch.testing.assert_close(explainer(Planes(), images, 0, "layer"), red)
    torch.testing.assert_close(explainer(Planes(), images, 1, "layer"), others)  # where reds speak against the class
    torch.testing.assert_close(explainer(Planes(), images, torch.tensor([0, 1, 0]), "layer")[1], others[1])
    fixed = create_explainer("iccnn", groups=GROUPS, group=1)
    torch.testing.assert_close(fixed(Planes(), images, 0, "layer"), others)


def test_a_model_that_iccnn_trained_carries_its_groups() -> None:
    batch = batch_of(12, dtype=torch.float32)
    objective = sl.Objective(TinyCNN(width=6), guide := ICCNN(groups=2), layer="features.1")
    objective.on_epoch_start([batch], 0)
    keys = TinyCNN(width=6).state_dict().keys()
    assert objective.model.state_dict().keys() == keys
    given = create_explainer("iccnn", groups=guide.filter_groups.tolist())
    expected = given(objective.model, batch.images, layer="features.1")
    assert torch.equal(sl.explain(objective.model, batch.images, "iccnn"), expected)
    with pytest.raises(SightlineError, match=r"layer names features.3; name the layer of the groups, features.1"):
        sl.explain(objective.model, batch.images, "iccnn", layer="features.3")
    assert torch.equal(sl.explain(copy.deepcopy(objective.model), batch.images, "iccnn"), expected)


def test_invalid_groups_raise() -> None:
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(NotDefinedError, match="Planes has no groups of filters; give groups="):
        sl.explain(Planes(), images, "iccnn")
    for options, message in [
        ({"groups": [0, 1, 1]}, "groups has 3 entries; the layer has 4 filters"),
        ({"groups": GROUPS, "group": 2}, "group is 2; the layer has the groups 0 to 1"),
        ({"groups": [[0]]}, "groups must give every filter"),
        ({"groups": [-1, 0]}, "groups must give every filter"),
    ]:
        with pytest.raises(SightlineError, match=message):
            create_explainer("iccnn", **options)(Planes(), images, 0, "layer")
