"""What a model expects of its input, and how images become it."""

import pytest
import torch

import sightline as sl
from sightline.network.input_spec import to_inputs

SPEC = sl.InputSpec((0.5, 0.25), (0.5, 0.25), (4, 4))


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel() -> None:
    inputs = SPEC.normalize(torch.tensor([1.0, 0.0])[None, :, None, None])
    assert inputs.flatten().tolist() == [1.0, -1.0]


def test_normalize_wrong_images_raises() -> None:
    with pytest.raises(sl.SightlineError, match="images have 3 channels; the input spec is for 2"):
        SPEC.normalize(torch.rand(1, 3, 4, 4))
    with pytest.raises(sl.SightlineError, match=r"images range over \[2, 2\]; expected \[0, 1\]"):
        SPEC.normalize(torch.full((1, 2, 4, 4), 2.0))


def test_to_inputs_without_a_spec_returns_the_images() -> None:
    images = torch.randn(1, 2, 4, 4)
    assert to_inputs(images, None) is images
    assert torch.equal(to_inputs(images.sigmoid(), SPEC), SPEC.normalize(images.sigmoid()))


def test_input_spec_invalid_values_raise() -> None:
    with pytest.raises(sl.SightlineError, match="expected one per channel"):
        sl.InputSpec((0.5,), (0.5, 0.5), (4, 4))
    with pytest.raises(sl.SightlineError, match="every value must be positive"):
        sl.InputSpec((0.5,), (0.0,), (4, 4))
