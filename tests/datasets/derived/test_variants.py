"""Data sets in ImageNet-9's variants."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from layouts import write_image, write_mask
from sightline import data
from sightline.data.dataset import InMemory, Sample
from sightline.data.loader import create_loader
from sightline.datasets.derived.variants import BackgroundVariant, MaskedImages
from sightline.errors import SightlineError
from sightline.regions.backgrounds import VARIANTS, vary

SHOWS_NO_OBJECT = ("no_fg", "only_bg_b", "only_bg_t")


def objects(count: int = 12, classes: int = 3, unmasked: tuple[int, ...] = ()) -> InMemory:
    """16 x 16 images: image i has the colour (i, 50 + i, 200) around an object of colour (100 + i, 150 + i, 0)."""
    samples = []
    for i in range(count):
        mask = torch.zeros(16, 16, dtype=torch.uint8)
        mask[4 : 10 + i % 3, 5:11] = 1
        image = torch.tensor([i, 50 + i, 200], dtype=torch.uint8)[:, None, None].repeat(1, 16, 16)
        image[:, mask == 1] = torch.tensor([100 + i, 150 + i, 0], dtype=torch.uint8)[:, None]
        known = None if i in unmasked else tv_tensors.Mask(mask)
        samples.append(Sample(tv_tensors.Image(image), i % classes, known, i, None, f"object{i}"))
    return InMemory(samples, [f"class{c}" for c in range(classes)], "objects")


def colours(image: Tensor, where: Tensor) -> set[tuple[int, ...]]:
    return {tuple(pixel.tolist()) for pixel in image[:, where].T}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_show_only_the_pixels_that_they_define(variant: str) -> None:
    source = objects()
    squares = MaskedImages(source, size=16)
    found = BackgroundVariant(squares, variant)
    assert len(found) == len(source)
    for i, sample in enumerate(found[k] for k in range(len(found))):
        mask = source[i].mask == 1
        own, around = {(100 + i, 150 + i, 0)}, {(i, 50 + i, 200)}
        assert (sample.label, sample.path, sample.index) == (i % 3, f"object{i}", i)
        if variant in SHOWS_NO_OBJECT:
            assert colours(sample.image, ~mask) == around
            assert colours(sample.image, mask) == (around if variant == "only_bg_t" else {(0, 0, 0)})
            assert not sample.mask.any()
            continue
        assert colours(sample.image, mask) == own
        assert torch.equal(sample.mask == 1, mask)
        if variant == "only_fg":
            assert colours(sample.image, ~mask) == {(0, 0, 0)}
        elif variant == "original":
            assert torch.equal(sample.image, source[i].image)
        else:
            (other,) = colours(sample.image, ~mask)  # one background, without the object that was on it
            giver = other[0]
            assert other == (giver, 50 + giver, 200)
            assert giver != i
            assert giver == squares.givers[variant][i]
            classes = {"mixed_same": [i % 3], "mixed_next": [(i + 1) % 3]}.get(variant, [0, 1, 2])
            assert giver % 3 in classes
            assert found.groups[sample.group] == f"class{i % 3} on class{giver % 3} backgrounds"


def test_the_same_seed_gives_the_same_images_and_another_one_others() -> None:
    def made(seed: int, variant: str = "mixed_rand") -> BackgroundVariant:
        return BackgroundVariant(MaskedImages(objects(30), size=16, seed=seed), variant)

    first, again, other = made(0), made(0), made(1)
    assert first.givers == again.givers != other.givers
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.fingerprint != made(0, "mixed_same").fingerprint
    assert all(torch.equal(first[i].image, again[i].image) for i in range(30))
    assert set(first.group_ids.tolist()) == set(range(9))  # with 30 images, every pair of classes


def test_images_that_lack_a_variant_are_left_out_of_all_and_named() -> None:
    source = objects(12, unmasked=(0, 7))
    full, empty = source._samples[4].mask, source._samples[5].mask
    full.fill_(1)
    empty.fill_(0)
    squares = MaskedImages(source, size=16)
    sets = [BackgroundVariant(squares, variant) for variant in VARIANTS]
    for made in sets:
        assert made.skipped == ["object0", "object4", "object5", "object7"]
        assert [made.path(i) for i in range(len(made))] == [f"object{i}" for i in (1, 2, 3, 6, 8, 9, 10, 11)]
    assert not {0, 4, 5, 7} & {giver for givers in squares.givers.values() for giver in givers}
    # Class 1 has but the images 1 and 10 left; without one of them the other has no background of its own class.
    lonely = MaskedImages(objects(12, unmasked=(1, 4, 7)), size=16)
    assert 10 not in lonely.indices
    with pytest.raises(SightlineError, match="none of the 4 images has all variants: 1 have masks, and 1 of these"):
        MaskedImages(objects(4, unmasked=(0, 1, 2)), size=16)


def test_inpainted_backgrounds_need_no_rectangle() -> None:
    source = objects(6, classes=2)
    for sample in source._samples:  # a frame whose box is the image
        sample.mask[:], sample.mask[4:12, 4:12] = 1, 0
    with pytest.raises(SightlineError, match="0 of these an object and a background"):
        MaskedImages(source, size=16)
    squares = MaskedImages(source, size=16, fill="inpaint")
    mixed = BackgroundVariant(squares, "mixed_next")
    assert len(mixed) == 6
    image, mask = squares.read(0)
    scene = BackgroundVariant(squares, "only_bg_t")[squares.givers["mixed_next"][0]].image
    assert torch.equal(mixed[0].image, vary("mixed_next", image, mask, scene))


def test_squares_are_cut_as_evaluation_does() -> None:
    image = torch.arange(12 * 20, dtype=torch.uint8).reshape(1, 12, 20).repeat(3, 1, 1)
    mask = torch.zeros(12, 20, dtype=torch.uint8)
    mask[3:6, 8:12] = 1
    samples = [Sample(tv_tensors.Image(image), i % 2, tv_tensors.Mask(mask), i, None, str(i)) for i in range(4)]
    squares = MaskedImages(InMemory(samples, ["a", "b"], 0), size=12)
    assert torch.equal(squares.read(0)[0], image[:, :, 4:16])
    batch = next(iter(create_loader(BackgroundVariant(squares, "mixed_same"), size=12, batch_size=4, train=False)))
    assert torch.equal(batch.masks[0], mask[:, 4:16])
    assert batch.groups.tolist() == [0, 3, 0, 3]


def test_variants_by_name_are_made_from_folders(tmp_path: Path) -> None:
    values = np.zeros((24, 32))
    values[6:14, 10:20] = 1
    for part, each in (("train", 6), ("test", 4)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(each):
                file = f"{part}/{name}/{i}.png"
                write_image(tmp_path / "images" / file, (50 * label, 10 * i, 200))
                if (part, name, i) != ("test", "cat", 3):
                    write_mask(tmp_path / "masks" / file, values)
    source = {"name": "folder", "root": str(tmp_path / "images"), "masks": str(tmp_path / "masks"), "val": 2}
    splits = data.create_dataset("background_variants", source=source, size=24, train="mixed_rand")
    assert set(splits) == {"train", "val", "test", *VARIANTS}
    assert len(splits["test"]) == 8
    assert all(len(splits[v]) == 7 for v in VARIANTS)
    facts = splits.describe()
    assert facts["mixed_same"]["skipped"] == [str(tmp_path / "images/test/cat/3.png")]
    assert facts["mixed_next"]["groups"] == {
        "cat on cat backgrounds": 0, "cat on dog backgrounds": 3, "dog on cat backgrounds": 4, "dog on dog backgrounds": 0
    }  # fmt: skip
    assert splits["train"].groups
    assert splits["train"][0].image.shape == (3, 24, 24)
    some = data.create_dataset("background_variants", source=source, size=24, variants=["mixed_same", "mixed_rand"])
    assert set(some) == {"train", "val", "test", "mixed_same", "mixed_rand"}
    assert some["mixed_rand"].fingerprint == splits["mixed_rand"].fingerprint
    assert not some["train"].groups


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": {}}, "needs the name of a data set"),
        ({}, "none of the 2 images has all variants: 0 have masks"),
        ({"size": 4}, "size is 4; expected a whole number >= 8"),
        ({"fill": "tiles"}, "did you mean 'tile'"),
        ({"variants": ["mixed_random"]}, "did you mean 'mixed_rand'"),
        ({"train": "mixed"}, "unknown variant 'mixed'"),
    ],
)
def test_variants_invalid_sources_raise(options: dict[str, object], message: str, tmp_path: Path) -> None:
    given = {"source": {"name": "folder", "root": str(tmp_path), "val": 0}} | options
    write_image(tmp_path / "train/cat/1.png")
    write_image(tmp_path / "train/dog/1.png")
    write_image(tmp_path / "test/cat/1.png")
    write_image(tmp_path / "test/dog/1.png")
    with pytest.raises(SightlineError, match=message):
        data.create_dataset("background_variants", **given)
