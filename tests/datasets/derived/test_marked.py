"""Marks that give the class away."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from sightline.data import DATASETS, create_dataset
from sightline.data.dataset import InMemory, Sample
from sightline.data.loader import create_loader
from sightline.datasets.derived.marked import Marked
from sightline.datasets.derived.marks import MARKS, make_mark, make_variants
from sightline.errors import SightlineError
from sightline.verification.verify import verify_dataset

DIGITS = {"name": "digits", "copies": 1, "size": 48}
KINDS = ("text", "ruler", "patch", "border", "jpeg", "brightness")


def gray(count: int = 40, classes: tuple[str, ...] = ("a", "b"), size: tuple[int, int] = (40, 60)) -> InMemory:
    """Gray images without a mask."""
    image = tv_tensors.Image(torch.full((3, *size), 100, dtype=torch.uint8))
    return InMemory([Sample(image, i % len(classes), None, i, None, f"{i}") for i in range(count)], classes, "gray")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["random", "corner", "bottom_right"])
def test_the_region_is_exactly_what_the_mark_changed(kind: str, place: str) -> None:
    image = torch.randint(80, 120, (3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    options = {"kind": kind} | ({"place": place} if kind in ("text", "ruler", "patch") else {})
    for number, mark in enumerate(make_variants(options, 3)):
        changed, region = mark.put(image, torch.Generator().manual_seed(number))
        differs = (changed != image).any(0)
        assert not (differs & ~region).any()
        assert changed.dtype == torch.uint8
        if kind in ("text", "ruler", "patch"):
            assert (differs == region).float().mean() > 0.99  # a faint edge of a letter can leave a value as it is
            assert not region[:, :10].any()  # outside of the central square, which evaluation shows
            assert not region[:, 60:].any()
        if kind == "border":
            assert torch.equal(differs, region)
            assert region[:2].all()
            assert not region[2:-2, 2:-2].any()  # 4 % of 50 pixels
        if kind in ("jpeg", "brightness"):
            assert region.all()


def test_marks_change_the_pixels_of_their_region() -> None:
    image = torch.full((3, 20, 20), 100, dtype=torch.uint8)
    half = {"kind": "patch", "color": [200, 0, 100], "size": 0.2, "strength": 0.5, "place": "top_left"}
    changed, region = make_mark(half).put(image, torch.Generator())
    expected = torch.zeros(20, 20, dtype=torch.bool)
    expected[:4, :4] = True  # a fifth of 20 pixels; the margin of 2 % is none here
    assert torch.equal(region, expected)
    assert changed[:, 0, 0].tolist() == [150, 50, 100]
    assert (changed[:, ~expected] == 100).all()
    bright, _ = make_mark({"kind": "brightness", "factor": 1.4}).put(image, torch.Generator())
    assert (bright == 140).all()
    wide = make_mark({"kind": "text", "text": "a very long line of text", "size": 0.5})
    assert wide.put(image, torch.Generator())[1].any()  # fits, though the letters are small
    noisy = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    losses = []
    for quality in (5, 50, 90):
        compressed, _ = make_mark({"kind": "jpeg", "quality": quality}).put(noisy, torch.Generator())
        losses.append((compressed.float() - noisy.float()).square().mean())
    assert losses[0] > losses[1] > losses[2] > 0


def test_each_split_has_the_marks_that_its_name_states() -> None:
    plain = create_dataset(**DIGITS)
    splits = create_dataset("marked", source=DIGITS, mark={"kind": "patch"})
    assert list(splits) == ["train", "val", "test_swapped", "test_same", "test_removed"]
    assert splits.main_test == "test_swapped"
    train, labels = splits["train"], splits["test_same"].labels
    assert torch.equal(train.owners, train.labels)
    assert torch.equal(splits["test_same"].owners, labels)
    assert (splits["test_removed"].owners == -1).all()
    swapped = splits["test_swapped"].owners
    assert (swapped != labels).all()
    assert swapped.min() >= 0
    assert len(set(swapped[labels == 0].tolist())) == len(plain.classes) - 1  # each other class comes up
    for index in range(5):
        source = plain["test_shifted"][index]
        removed, same, other = (splits[f"test_{test}"][index] for test in ("removed", "same", "swapped"))
        assert torch.equal(removed.image, source.image)
        assert not removed.avoid.any()
        assert torch.equal(same.avoid, other.avoid)  # in equal places
        inside = same.avoid.bool()
        assert torch.equal(same.image[:, ~inside], other.image[:, ~inside])
        assert not torch.equal(same.image, other.image)
        for sample in (removed, same, other):
            assert torch.equal(sample.mask, source.mask)
            assert (sample.label, sample.path) == (source.label, source.path)
    name = plain.classes[int(labels[0])]
    assert train.groups[splits["test_removed"][0].group] == f"{name} without a mark"
    assert train.groups[splits["test_same"][0].group] == f"{name} with the mark of {name}"
    assert not verify_dataset("marked", {"source": DIGITS, "mark": {"kind": "text"}}).problems


@pytest.mark.parametrize("rest", ["none", "other"])
def test_correlation_is_a_share_of_each_class_and_a_larger_one_keeps_what_a_smaller_one_has(rest: str) -> None:
    marks = make_variants({"kind": "patch"}, 2)
    found = [Marked(gray(), marks, split="train", correlation=c, rest=rest) for c in (0.0, 0.5, 0.75, 1.0)]
    own = [each.owners == each.labels for each in found]
    assert [int(each.sum()) for each in own] == [0, 20, 30, 40]
    for label in (0, 1):
        assert int((own[2] & (found[2].labels == label)).sum()) in (14, 15, 16)
    assert (own[1] <= own[2]).all()
    others = found[1].owners[~own[1]]
    assert (others == -1).all() if rest == "none" else (others == 1 - found[1].labels[~own[1]]).all()


def test_draws_depend_only_on_seed_split_and_index() -> None:
    marks = make_variants({"kind": "text", "place": "random"}, 2)
    first, again, other, third = (
        Marked(gray(), marks, split=split, seed=seed)
        for split, seed in (("train", 0), ("train", 0), ("train", 1), ("val", 0))
    )
    assert all(torch.equal(first[i].image, again[i].image) for i in (3, 0, 7))
    assert first.fingerprint == again.fingerprint
    assert not all(torch.equal(first[i].avoid, other[i].avoid) for i in range(4))
    assert not all(torch.equal(first[i].avoid, third[i].avoid) for i in range(4))
    assert len({each.fingerprint for each in (first, other, third)}) == 3
    stronger = make_variants({"kind": "text", "place": "random", "strength": 0.5}, 2)
    assert Marked(gray(), stronger, split="train").fingerprint != first.fingerprint


def test_one_class_alone_can_have_a_mark() -> None:
    marks = {"7": {"kind": "ruler", "color": [255, 255, 255]}}
    names = create_dataset(**DIGITS).classes
    splits = create_dataset("marked", source=DIGITS, marks={names[1]: marks["7"]}, tests=["swapped", "same"])
    train, swapped = splits["train"], splits["test_swapped"]
    assert (train.owners == torch.where(train.labels == 1, 1, -1)).all()
    assert (swapped.owners[swapped.labels == 1] == -1).all()  # the others have none to give
    assert set(swapped.owners[swapped.labels != 1].tolist()) == {-1, 1}


def test_a_region_of_the_source_stays_one_and_marks_reach_batches() -> None:
    source = gray(4)
    kept = torch.zeros(40, 60, dtype=torch.uint8)
    kept[20, 30], kept[21, 30] = 1, 255
    source = InMemory([replace(source[i], avoid=tv_tensors.Mask(kept)) for i in range(4)], source.classes, "kept")
    marked = Marked(source, make_variants({"kind": "patch"}, 2), split="train")
    assert marked[0].avoid[20:22, 30].tolist() == [1, 255]
    (batch,) = create_loader(marked, size=40, batch_size=4, train=False)
    assert batch.has_avoid.all()
    shown = batch.avoid.as_subclass(Tensor) == 1
    away = (batch.images - 100 / 255).abs().amax(1) > 0.2
    assert torch.equal(away | (batch.avoid != 0), shown | (batch.avoid == 255))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of them"),
        ({"mark": {"kind": "text"}, "marks": {}}, "give one of them"),
        ({"mark": {"size": 0.2}}, "expected a kind: border, brightness, jpeg, patch, ruler, text"),
        ({"mark": {"kind": "tex"}}, "'text'"),
        ({"mark": {"kind": "text", "quality": 3}}, "quality"),
        ({"mark": {"kind": "jpeg", "quality": 3}}, "all classes would have the same mark"),
        ({"mark": {"kind": "text", "size": 2.0}}, "size is 2.0"),
        ({"mark": {"kind": "text", "strength": 0.0}}, "strength is 0.0"),
        ({"mark": {"kind": "text", "place": "middle"}}, "place"),
        ({"mark": {"kind": "border", "size": 0.5}}, "less than half"),
        ({"marks": {}}, "at least one class"),
        ({"marks": {"dog": {"kind": "text"}}}, "'dog'"),
        ({"mark": {"kind": "text"}, "correlation": 1.5}, "correlation is 1.5"),
        ({"mark": {"kind": "text"}, "rest": "all"}, "rest"),
        ({"mark": {"kind": "text"}, "tests": ["swaped"]}, "'swapped'"),
    ],
)
def test_marked_with_invalid_options_raises(options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        DATASETS.create("marked", **{"source": DIGITS, **options})


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("patch", {"color": [0, 0, 300]}),
        ("jpeg", {"quality": 0}),
        ("brightness", {"factor": 0.0}),
        ("text", {"text": " "}),
    ],
)
def test_wrong_values_of_a_mark_are_named(kind: str, option: dict[str, object]) -> None:
    with pytest.raises(SightlineError, match=next(iter(option))):
        make_mark({"kind": kind, **option})


def test_marks_of_all_kinds_are_listed() -> None:
    assert tuple(MARKS.names()) == tuple(sorted(KINDS))
