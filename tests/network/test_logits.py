"""One logit: probabilities, losses and scores in closed form, and targets that explain the predicted side."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sightline.errors import SightlineError
from sightline.network.logits import class_count, class_scores, logits_of, probabilities_of, returned_logits
from sightline.network.targets import Contrast, joint, resolve_score

Z = torch.tensor([[2.0], [-3.0]])
EACH = torch.arange(2)


def test_one_logit_is_a_pair() -> None:
    assert logits_of(SimpleNamespace(logits=Z)).tolist() == [[0, 2], [0, -3]]
    assert class_scores(Z).tolist() == [[-2, 2], [3, -3]]
    assert returned_logits(Z) is Z
    torch.testing.assert_close(probabilities_of(Z.half())[:, 1], Z[:, 0].sigmoid())
    labels = torch.tensor([0, 0])
    torch.testing.assert_close(
        F.cross_entropy(logits_of(Z), labels), F.binary_cross_entropy_with_logits(Z[:, 0], labels.float())
    )
    assert [class_count(n) for n in (1, 2, 5)] == [2, 2, 5]
    several = torch.rand(2, 3)
    assert logits_of(several) is several
    assert class_scores(several) is several


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, [2.0, 3.0]),
        (0, [-2.0, 3.0]),
        (1, [2.0, -3.0]),
        (torch.tensor([0, 1]), [-2.0, -3.0]),
        (Contrast(), [2.0, 3.0]),
        (Contrast(0), [-2.0, 3.0]),
        (Contrast(1, 0), [2.0, -3.0]),
        (joint(0), [-2.0, 3.0]),
        (lambda output: output[:, 0], [2.0, -3.0]),
    ],
)
def test_scores_of_one_logit_are_those_of_its_two_classes(targets: Any, expected: list[float]) -> None:
    assert resolve_score(targets, Z)(Z, EACH).tolist() == expected
    assert math.isclose(float(resolve_score(targets, Z)(Z, EACH[:1].repeat(2))[0]), expected[0])


def test_one_logit_invalid_targets_raise() -> None:
    with pytest.raises(SightlineError, match=r"range over \[2, 2\]; the model has classes 0 .. 1"):
        resolve_score(2, Z)
    with pytest.raises(SightlineError, match="same class"):
        resolve_score(Contrast(1, 1), Z)
    with pytest.raises(SightlineError, match="cancel; name one"):
        resolve_score(joint(0, 1), Z)(Z, EACH)
