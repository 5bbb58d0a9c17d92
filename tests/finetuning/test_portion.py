import pytest
import torch
from torch import nn

from sightline.errors import SightlineError
from sightline.finetuning.portion import check_layer, modules_from


class Beside(nn.Module):
    """Registered in another order than it runs; a branch runs beside the second layer, and one layer twice."""

    def __init__(self, twice=False):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.blocks = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
        self.branch = nn.Conv2d(4, 4, 1)
        self.unused = nn.Linear(1, 1)
        self.act = nn.ReLU()
        self.twice = twice

    def forward(self, images):
        features = self.act(self.blocks(self.act(images)))
        features = self.branch(self.branch(features)) if self.twice else features + self.branch(features)
        return self.head(self.act(features).mean((2, 3)))


def names_from(model, layer):
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in modules_from(model, layer, torch.zeros(1, 3, 4, 4))]


def test_names_from_lists_the_modules_from_a_layer_to_the_output():
    model = Beside()
    assert names_from(model, "head") == ["head"]
    assert names_from(model, "branch") == ["branch", "head"]
    assert names_from(model, "blocks.1") == [
        "blocks.1",
        "branch",
        "head",
    ]  # the activation has no weights and runs before
    assert names_from(model, "blocks.1.1") == ["blocks.1.1", "branch", "head"]
    assert names_from(model, "blocks") == ["blocks", "branch", "head"]


def test_layers_that_cannot_be_trained_from():
    with pytest.raises(SightlineError, match=r"'unused' runs no times.*such as 'head'"):
        names_from(Beside(), "unused")
    with pytest.raises(SightlineError, match="'branch' runs 2 times"):
        names_from(Beside(twice=True), "branch")
    with pytest.raises(SightlineError, match="did you mean 'branch'"):
        check_layer(Beside(), "branches", "stages.0.trainable.from")
