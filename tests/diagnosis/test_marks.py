"""Diagnosis of models that read marks in the regions to avoid."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from sightline.data.dataset import ImageDataset, Sample
from sightline.diagnosis import diagnose
from sightline.diagnosis.page import write_diagnosis
from sightline.diagnosis.recommendations import TrainingConfig
from sightline.network.input_spec import InputSpec

SIDE = 20
SPEC = InputSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=(SIDE, SIDE))


class Stamped(ImageDataset):
    """A square whose red or green says the class, and a blue or black stamp that says it too."""

    def __init__(self, count: int = 40, known: bool = True) -> None:
        super().__init__(["red", "green"], [i % 2 for i in range(count)], [True] * count, has_avoid=[known] * count)

    def load(self, index: int) -> Sample:
        label = int(self.labels[index])
        pixels = torch.full((3, SIDE, SIDE), 127, dtype=torch.uint8)
        mask, avoid = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
        mask[7:13, 7:13], avoid[:4, :4] = 1, 1
        pixels[1 - label, 7:13, 7:13], pixels[label, 7:13, 7:13] = 0, 255
        pixels[2, :4, :4] = 255 * label
        known = tv_tensors.Mask(avoid) if self.has_avoid[index] else None
        return Sample(tv_tensors.Image(pixels), label, tv_tensors.Mask(mask), index, None, f"{index}", avoid=known)


class Reads(nn.Module):
    """A model of the square or of the stamp."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.layer = what, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x)
        if self.what == "object":
            return 8 * a[:, :2, 7:13, 7:13].mean((2, 3))
        blue = a[:, 2, :4, :4].mean((1, 2))
        return 8 * torch.stack([1 - blue, blue], 1)


def diagnosed(what: str, **options: object):
    data = options.pop("data", Stamped())
    return diagnose(Reads(what), data, explainer="hirescam", layer="layer", input_spec=SPEC, **options)


def test_a_model_of_the_stamp_leans_on_what_it_should_avoid(tmp_path: Path) -> None:
    training = TrainingConfig(data={"name": "folder", "root": "x"}, model={"name": "sightline/small_cnn"})
    found = diagnosed("stamp", training=training)
    assert found.verdict.answer == "leans on what it should avoid"
    assert "Accuracy falls by 100 points" in found.verdict.because
    values = {name: figure.value for name, figure in found.measurements.items()}
    assert (values["accuracy"], values["mark_swapped"], values["mark_pasted"], values["mark_loss"]) == (1, 0, 0, 1)
    assert values["mark_removed"] == pytest.approx(0.5)  # gray is between black and blue
    assert values["energy_in_avoid"] == pytest.approx(0.5)  # all of each map, and a black stamp has none
    first = found.recommendations[0]
    assert first.guide == "l1"
    assert '"region": "avoid"' in first.command
    page = write_diagnosis(found, tmp_path / "page.html").read_text()
    assert "leans on what it should avoid" in page
    assert "Effect of the regions to avoid" in page
    assert found.classes["red"]["mark_loss"][0] == 1


def test_a_model_of_the_object_does_not() -> None:
    found = diagnosed("object")
    assert found.verdict.answer == "looks at the object"
    values = {name: figure.value for name, figure in found.measurements.items()}
    assert (values["mark_removed"], values["mark_swapped"], values["mark_loss"]) == (1, 1, 0)
    assert values["energy_in_avoid"] == 0
    assert any("Without the marks in the regions to avoid" in line for line in found.verdict.findings)


def test_diagnosis_without_regions_to_avoid_does_not_mention_them() -> None:
    found = diagnosed("stamp", data=Stamped(known=False))
    assert found.verdict.answer == "leans on the background"
    assert not any("mark" in name or "avoid" in name for name in found.measurements)
