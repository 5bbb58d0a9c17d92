"""Training on some of the images, as a list names them."""

from pathlib import Path

import pytest
import torch

from dots import KEYS, Dots
from sightline.data.loader import create_loader
from sightline.datasets.derived.subset import Listed, Subset, listed, read_list, write_list
from sightline.errors import SightlineError
from sightline.runs import Recipe
from sightline.training.build import build


def test_a_subset_is_those_images_numbered_again() -> None:
    whole = Dots(20, 0)
    subset = Subset(whole, [12, 3, 5])
    assert len(subset) == 3
    assert subset.labels.tolist() == [1, 0, 0]
    assert subset.group_ids.tolist() == [0, 1, 1]
    assert [subset.path(i) for i in range(3)] == ["dots/12.png", "dots/3.png", "dots/5.png"]
    for index, place in enumerate([12, 3, 5]):
        assert subset[index].index == index
        assert torch.equal(subset[index].image, whole[place].image)
        assert torch.equal(subset[index].mask, whole[place].mask)
    others = [Subset(whole, places, pseudo_labels) for places, pseudo_labels in
              [([3, 12, 5], {}), ([12, 3], {}), ([12, 3, 5], {3: 0}), ([12, 3, 5], {3: 1})]]  # fmt: skip
    assert len({subset.fingerprint, whole.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_a_guess_replaces_the_label_and_brings_no_annotation() -> None:
    subset = Subset(Dots(20, 0), [12, 3, 5], {3: 1})
    assert subset.labels.tolist() == [1, 1, 0]
    assert subset.has_mask.tolist() == [True, False, True]
    assert subset.groups == []
    (batch,) = create_loader(subset, size=32, batch_size=3, train=False)
    assert batch.labels.tolist() == [1, 1, 0]
    assert batch.has_mask.tolist() == [True, False, True]
    assert batch.groups is None


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    lines = [Listed(12, "dots/12.png"), Listed(3, "dots/3.png", "blue", 2, 0.25), Listed(5)]
    write_list(tmp_path / "list.csv", lines)
    assert read_list(tmp_path / "list.csv") == lines
    (tmp_path / "short.csv").write_text("index\n7\n0\n")
    assert read_list(tmp_path / "short.csv") == [Listed(7), Listed(0)]


def test_a_recipe_trains_on_what_its_list_names(tmp_path: Path) -> None:
    write_list(tmp_path / "list.csv", [Listed(12), Listed(3, pseudo_label="blue"), Listed(5)])
    splits = build(Recipe(**KEYS, train_samples=str(tmp_path / "list.csv"))).splits
    assert splits["train"].labels.tolist() == [1, 1, 0]
    plain = build(Recipe(**KEYS)).splits
    assert len(plain["train"]) == 20
    assert plain["test"].fingerprint == splits["test"].fingerprint
    fewer = build(Recipe(**KEYS, train_samples=str(tmp_path / "list.csv"), mask_fraction=0.5)).splits
    assert int(fewer["train"].has_mask.sum()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index\n", "names no image"),
        ("image\n3\n", r"has the columns \['image'\]; 'index' is missing"),
        ("index\n3\nx\n", "line 3: index, round or score is not a number: index=x"),
        ("index,round\n3,one\n", "line 2"),
        ("index\n3\n20\n", "image 20 does not exist: the data set has 20"),
        ("index\n-1\n", "image -1 does not exist"),
        ("index\n3\n3\n", "image 3 is listed twice"),
        ("index,pseudo_label\n3,bleu\n", "unknown class of image 3 .* did you mean 'blue'"),
        ("index,path\n3,elsewhere/4.png\n", "its image 3 is elsewhere/4.png, and here it is dots/3.png"),
    ],
)
def test_a_list_that_does_not_fit_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(SightlineError, match=message):
        listed(Dots(20, 0), tmp_path / "list.csv")


def test_a_missing_list_and_a_stray_guess_are_named(tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="train_samples: nothing at"):
        build(Recipe(**KEYS, train_samples=str(tmp_path / "none.csv")))
    with pytest.raises(SightlineError, match="a pseudo-label refers to image 4, which is not in the subset"):
        Subset(Dots(20, 0), [3], {4: 0})
