"""Images of a pool are selected by one logit as by two."""

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.acquisition import QUERY_STRATEGIES, Pool


class Pair(nn.Module):
    """The logits (0, z) of a model that returns z."""

    def __init__(self, one: nn.Module) -> None:
        super().__init__()
        self.one = one

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.one(x), (1, 0))


@pytest.mark.parametrize("name", ["uncertainty", "ceal", "coreset"])
@pytest.mark.parametrize("by", ["confidence", "margin", "entropy"])
def test_one_logit_selects_the_images_of_two(name: str, by: str) -> None:
    torch.manual_seed(0)
    one = TinyCNN(1).double()
    with torch.no_grad():
        one.classifier.weight *= 50
    batches = [sl.Batch(torch.rand(5, 3, 8, 8, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)) for _ in "ab"]
    options = {} if name == "coreset" else {"by": by}
    options |= {"threshold": 0.5} if name == "ceal" else {}
    picked = [QUERY_STRATEGIES[name](**options).select(Pool(m, batches, batches[:1]), 4) for m in (one, Pair(one))]
    assert picked[0].places == picked[1].places
    assert picked[0].pseudo_labels == picked[1].pseudo_labels
    assert len(set(picked[0].places)) == 4
