from typing import Any

import pytest
import torch

from sightline._core.devices import pick_device
from sightline.errors import SightlineError


def test_pick_device_names_and_devices_give_the_device() -> None:
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cpu:0:1", 3.5])
def test_pick_device_unknown_name_raises(device: Any) -> None:
    with pytest.raises(SightlineError, match=r"device is .*; expected 'cpu', or a GPU such as 'cuda'"):
        pick_device(device)


@pytest.mark.parametrize("device", ["cuda:99", "xpu:99", "meta", "cpu:7"])
def test_a_device_that_is_not_here(device: str) -> None:
    with pytest.raises(SightlineError, match=f"device is '{device}'; PyTorch finds .* here"):
        pick_device(device)
