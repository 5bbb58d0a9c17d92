import pytest
import torch
from drawn import Pictures

from networks import TinyCNN


@pytest.fixture
def pictures() -> Pictures:
    return Pictures()


@pytest.fixture
def model() -> TinyCNN:
    torch.manual_seed(0)
    return TinyCNN().eval()
