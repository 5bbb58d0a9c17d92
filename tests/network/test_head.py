"""Which layer classifies."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from networks import TinyCNN, Wrapper
from sightline.errors import SightlineError
from sightline.network.branch import Branch
from sightline.network.features import DeepFeatures
from sightline.network.head import head_name, reorder_head

timm = pytest.importorskip("timm")


class HeadFirst(nn.Module):
    """Registers its head first, and an auxiliary head last that has no part in the output."""

    def __init__(self, net: nn.Module, features: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, 3)
        self.net = net
        self.auxiliary = nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        self.auxiliary(x)
        return self.head(x)


class TwoHeads(TinyCNN):
    """Averages two heads, as distilled transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.distilled = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.features(x))
        return (self.classifier(x) + self.distilled(x)) / 2


class Branched(TinyCNN):
    def __init__(self) -> None:
        super().__init__()
        self.branch = Branch()
        self.branch.add_module("fc", nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.branch.get_submodule("fc")(super().forward(x))


def tiny(**options) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=12, img_size=32, **options)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (tiny, ("head",)),
        (lambda: Wrapper(tiny()), ("net.head",)),
        (lambda: nn.Sequential(nn.Identity(), Wrapper(tiny())), ("1.net.head",)),
        (lambda: HeadFirst(tiny(num_classes=0), 12), ("head",)),
        (lambda: HeadFirst(tiny(num_classes=7), 7), ("head",)),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1, embed_dim=12), ("head", "head_dist")),
        (torchvision.models.squeezenet1_1, ("classifier.1",)),
        (lambda: Wrapper(torchvision.models.squeezenet1_1()), ("net.classifier.1",)),
        (TinyCNN, ("classifier",)),
        (TwoHeads, ("classifier", "distilled")),
        (Branched, ("classifier",)),
    ],
)
def test_the_head_is_what_makes_the_output(build, names: tuple[str, ...]) -> None:
    assert head_name(build().eval()) == names


def test_features_before_the_head_of_a_wrapped_model_are_those_of_the_bare_one() -> None:
    net, images = tiny(num_classes=3).eval(), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(DeepFeatures(Wrapper(net))(images), DeepFeatures(net)(images))
    torch.testing.assert_close(DeepFeatures(HeadFirst(net, 3))(images), net(images))


def test_without_a_layer_with_weights_there_is_no_head() -> None:
    with pytest.raises(SightlineError, match="Flatten has no linear or convolution layer"):
        head_name(nn.Flatten())


POOLED = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("model", [TinyCNN(), TwoHeads(), HeadFirst(POOLED, 5)])
def test_logits_of_a_head_are_put_in_another_order(model: nn.Module) -> None:
    image = torch.rand(2, 3, 8, 8)
    before = model.eval()(image)
    reorder_head(model, [2, 0, 1])
    assert torch.equal(model(image), before[:, [2, 0, 1]])


def test_a_single_logit_changes_its_sign_where_its_classes_change_places() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    image = torch.rand(2, 3, 2, 2)
    before = model(image)
    reorder_head(model, [0, 1])
    assert torch.equal(model(image), before)
    reorder_head(model, [1, 0])
    assert torch.equal(model(image), -before)


def test_a_head_without_a_row_for_each_logit_is_rejected() -> None:
    with pytest.raises(SightlineError, match=r"shapes \[\(4, 12\), \(4,\)\]; expected one row for each of 3 classes"):
        reorder_head(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), [2, 0, 1])
