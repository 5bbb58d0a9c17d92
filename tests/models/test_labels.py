"""Names for the classes of a model."""

from torch import nn

from sightline.models.labels import default_class_names


def test_a_thousand_logits_are_named_as_in_imagenet() -> None:
    names = default_class_names(nn.Sequential(nn.Flatten(), nn.Linear(4, 1000)))
    assert len(names) == 1000
    assert names[0] == "tench"
    assert names[999] == "toilet tissue"


def test_other_logits_are_named_by_their_index() -> None:
    assert default_class_names(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))) == ["0", "1", "2"]


def test_one_logit_has_two_names() -> None:
    assert default_class_names(nn.Sequential(nn.Flatten(), nn.Linear(4, 1))) == ["0", "1"]
