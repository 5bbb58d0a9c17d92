from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from layouts import write_csv, write_image, write_mask
from sightline import data
from sightline._core.seeding import generator
from sightline.data.dataset import InMemory
from sightline.datasets.derived.recompose import Placement, Recompose, assign_scenes, compose
from sightline.errors import SightlineError

Make = Callable[..., InMemory]


@pytest.mark.parametrize("feather", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.3, 0.75, 1.0])
def test_compose_puts_the_object_inside_the_mask_and_the_scene_outside(
    make_objects: Make, make_scenes: Make, scale: float, feather: float
) -> None:
    source, scene = make_objects()[0], make_scenes()[0].image
    picture, mask = compose(source.image, source.mask == 1, scene, Placement(0, scale, 0.5, 0.25), feather)
    inside = mask == 1
    assert torch.equal(picture[:, ~inside], scene[:, ~inside])
    assert set(mask.unique().tolist()) <= {0, 1}
    red = picture[:, inside]
    if feather == 0:  # red exactly: neither the blue around the object nor the scene shows through
        assert (red == torch.tensor([255, 0, 0])[:, None]).all()
    else:
        assert (red[0] > 200).any()  # in the middle it is whole
        assert (red[0] < 255).any()  # and at the border it is not
    longer = round(40 * scale)  # the object is 16 x 8
    assert inside.any(0).sum() == longer
    assert inside.any(1).sum() == round(longer / 2)
    assert inside.sum() == longer * round(longer / 2)


def test_box_placement_uses_the_free_space(make_objects: Make, make_scenes: Make) -> None:
    source, scene = make_objects()[0], make_scenes()[0].image
    for across, down, corner in ((0, 0, (0, 0)), (1, 1, (20, 30)), (0.5, 0, (10, 0))):
        _, mask = compose(source.image, source.mask == 1, scene, Placement(0, 0.5, across, down), 0)
        ys, xs = mask.nonzero(as_tuple=True)
        assert (xs.min().item(), ys.min().item()) == corner


def test_an_object_at_its_own_size_is_copied_pixel_by_pixel(make_scenes: Make) -> None:
    draw = generator(0)
    image = torch.randint(0, 256, (3, 20, 20), generator=draw, dtype=torch.uint8)
    inside = torch.rand(20, 20, generator=draw) < 0.5
    inside[0, 0] = inside[19, 19] = True
    scene = make_scenes()[0].image
    picture, mask = compose(image, inside, scene, Placement(0, 0.5, 0.5, 0.5), 0)
    expected = scene.clone()
    expected[:, 10:30, 10:30] = torch.where(inside, image, scene[:, 10:30, 10:30])
    assert torch.equal(picture, expected)
    assert torch.equal(mask[10:30, 10:30] == 1, inside)
    assert mask.sum() == inside.sum()


@pytest.mark.parametrize(
    ("own", "counts"), [(1.0, [20, 0, 0, 0]), (0.95, [19, 1]), (0.0, [0, 7]), (0.25, [5, 5, 5, 5])]
)
def test_correlation_is_an_exact_count(own: float, counts: list[int]) -> None:
    labels = torch.arange(4).repeat(20)
    assigned = assign_scenes(labels, 4, own, generator(0))
    for label in range(4):
        found = assigned[labels == label].bincount(minlength=4)
        assert found[label] == counts[0]
        others = [n for c, n in enumerate(found.tolist()) if c != label]
        assert sum(others) == 20 - counts[0]
        assert max(others) - min(others) <= 1
        assert max(others) == max(counts[1:])


def test_groups_are_class_and_scene(make_objects: Make, make_scenes: Make) -> None:
    made = Recompose(make_objects(40), make_scenes(), split="train", correlation=0.8, size=40)
    assert made.groups == ["a on a scenes", "a on b scenes", "b on a scenes", "b on b scenes"]
    assert made.group_ids.bincount().tolist() == [16, 4, 4, 16]
    assert Recompose(make_objects(40), make_scenes(), split="t", correlation="uniform").group_ids.bincount(
        minlength=4
    ).tolist() == [10, 10, 10, 10]
    for row, group in zip(made.record(), made.group_ids):
        assert row["group"] == made.groups[group] == f"{row['class']} on {row['background_class']} scenes"


def test_the_record_says_what_was_done(make_objects: Make, make_scenes: Make) -> None:
    objects, scenes = make_objects(), make_scenes()
    made = Recompose(objects, scenes, split="test", correlation=0.0, size=40, feather=0)
    paths = [scenes[i].path for i in range(len(scenes))]
    for row in made.record():
        sample = made[row["index"]]
        ys, xs = sample.mask.nonzero(as_tuple=True)
        assert row["box"] == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert 0.5 <= row["scale"] <= 0.9
        assert row["object"] == sample.path
        scene = scenes[paths.index(row["background"])]
        assert made.classes[scene.label] == row["background_class"] != row["class"]
        outside = sample.mask == 0
        assert torch.equal(sample.image[:, outside], scene.image[:, outside])


def test_the_draw_depends_only_on_seed_split_and_index(make_objects: Make, make_scenes: Make) -> None:
    def make(count: int = 20, **options: object) -> Recompose:
        return Recompose(make_objects(count), make_scenes(), **{"split": "train", "size": 40, **options})

    one = make()
    later = one[13]
    assert torch.equal(later.image, make()[13].image)  # whatever was loaded before
    assert one.fingerprint == make().fingerprint
    assert one.placements == make(count=30).placements[:20]
    for other in (make(seed=1), make(split="test"), make(correlation=0.0)):
        assert other.fingerprint != one.fingerprint
        assert not torch.equal(other[13].image, later.image)
    own, misleading = make(split="test", correlation=1.0), make(split="test", correlation=0.0)
    assert all(torch.equal(own[i].mask, misleading[i].mask) for i in range(20))  # the backgrounds alone differ


def test_recompose_invalid_objects_or_scenes_raise(make_objects: Make, make_scenes: Make) -> None:
    objects, scenes = make_objects(), make_scenes()
    with pytest.raises(SightlineError, match="scenes are for the classes"):
        Recompose(objects, make_scenes(("a", "c")), split="train")
    with pytest.raises(SightlineError, match="a mask for every object; the image at 0"):
        Recompose(make_scenes(), scenes, split="train")
    with pytest.raises(SightlineError, match=r"correlation is 1\.2"):
        Recompose(objects, scenes, split="train", correlation=1.2)
    with pytest.raises(SightlineError, match="correlation is 'random'"):
        Recompose(objects, scenes, split="train", correlation="random")
    for option, value in {"scale": (0.9, 0.5), "size": 4, "feather": -1}.items():
        with pytest.raises(SightlineError, match=f"{option} is"):
            Recompose(objects, scenes, split="train", **{option: value})
    one_sided = InMemory([scenes[i] for i in range(3)], ["a", "b"], "one-sided")
    with pytest.raises(SightlineError, match="class 'b' has no scene"):
        Recompose(objects, one_sided, split="train")
    hollow = InMemory([objects[0], objects[1]], ["a", "b"], "hollow")
    hollow[1].mask.zero_()
    with pytest.raises(SightlineError, match="object1 holds no object"):
        Recompose(hollow, scenes, split="train")[1]


@pytest.fixture
def backgrounds(tmp_path: Path) -> Path:
    """Three scenes for each of three breeds: in folders, and listed in a CSV file under two labels a breed."""
    rows = []
    for label, breed in enumerate(("Abyssinian", "american bulldog", "Bengal")):
        for i in range(3):
            path = write_image(tmp_path / "scenes" / breed / f"{i}.png", (0, 80 * label, 60 * i), (50, 60))
            rows.append({"path": path.relative_to(tmp_path).as_posix(), "label": 10 * label + min(i, 1)})
    write_csv(tmp_path / "scenes.csv", rows)
    return tmp_path


def test_recomposed_has_five_splits_with_the_stated_scenes(pets_folder: Path, backgrounds: Path) -> None:
    source = {"name": "pets", "root": str(pets_folder), "val": 3, "per_class": 4}
    splits = data.create_dataset(
        "recomposed", source=source, backgrounds=str(backgrounds / "scenes"), val_scenes=1, size=32
    )
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 12,
        "val": 9,
        "val_shifted": 9,
        "test_shifted": 12,
        "test_iid": 12,
    }
    records = {name: split.record() for name, split in splits.items()}
    scenes = {name: {row["background"] for row in rows} for name, rows in records.items()}
    objects = {name: {row["object"] for row in rows} for name, rows in records.items()}
    assert not (scenes["val"] | scenes["val_shifted"]) & (scenes["train"] | scenes["test_shifted"] | scenes["test_iid"])
    assert objects["val"] == objects["val_shifted"]
    assert objects["test_shifted"] == objects["test_iid"]
    assert not objects["train"] & objects["val"]
    assert not (objects["train"] | objects["val"]) & objects["test_shifted"]
    for name, rows in records.items():
        own = {row["class"] == row["background_class"] for row in rows}
        assert own == {name in ("train", "val", "test_iid")}
    assert source["name"] == "pets"  # the caller's options are not touched


def test_validation_has_the_training_correlation(pets_folder: Path, backgrounds: Path) -> None:
    splits = data.create_dataset(
        "recomposed",
        source={"name": "pets", "root": str(pets_folder), "val": 5},
        backgrounds=str(backgrounds / "scenes"),
        correlation=0.8,
    )
    own = {name: sum(r["class"] == r["background_class"] for r in split.record()) for name, split in splits.items()}
    assert own == {"train": 12, "val": 12, "val_shifted": 0, "test_shifted": 0, "test_iid": 12}


def test_scenes_of_a_csv_are_chosen_by_label(pets_folder: Path, backgrounds: Path) -> None:
    splits = data.create_dataset(
        "recomposed",
        source={"name": "pets", "root": str(pets_folder), "val": 0},
        backgrounds=str(backgrounds / "scenes.csv"),
        scenes={"Abyssinian": [0, 1], "american bulldog": [10, 11], "Bengal": [21]},
        val_scenes=0,
    )
    assert list(splits) == ["train", "test_shifted", "test_iid"]
    assert len(splits["train"]) == 30
    assert splits["train"].scenes.labels.bincount().tolist() == [3, 3, 2]


def test_recomposed_invalid_options_raise(pets_folder: Path, backgrounds: Path, tmp_path: Path) -> None:
    source = {"name": "pets", "root": str(pets_folder)}
    folder = str(backgrounds / "scenes")
    with pytest.raises(SightlineError, match="needs the name of a data set"):
        data.create_dataset("recomposed", source={"root": "x"}, backgrounds=folder)
    with pytest.raises(SightlineError, match="expected the classes"):
        data.create_dataset("recomposed", source=source, backgrounds=folder, scenes={"Abyssinian": ["Abyssinian"]})
    breeds = ("Abyssinian", "american bulldog", "Bengal")
    with pytest.raises(SightlineError, match=r"scenes of 'Abyssinian': .* has no file, folder or label 'moon'"):
        data.create_dataset("recomposed", source=source, backgrounds=folder, scenes={b: ["moon"] for b in breeds})
    with pytest.raises(SightlineError, match="is a scene of 'Abyssinian' and of 'american bulldog'"):
        data.create_dataset("recomposed", source=source, backgrounds=folder, scenes={b: ["Bengal"] for b in breeds})
    with pytest.raises(SightlineError, match="leave 0 of them to train on"):
        data.create_dataset("recomposed", source=source, backgrounds=folder, val_scenes=3)
    with pytest.raises(SightlineError, match="unknown split 'val'"):
        data.create_dataset("recomposed", source={**source, "val": 0}, backgrounds=folder)
    with pytest.raises(SightlineError, match="backgrounds: nothing at"):
        data.create_dataset("recomposed", source=source, backgrounds=str(tmp_path / "absent"))


def test_any_masked_folder_can_be_recomposed(backgrounds: Path, tmp_path: Path) -> None:
    mask = torch.zeros(24, 32)
    mask[4:20, 8:24] = 255
    for name in ("Abyssinian", "Bengal"):
        for i in range(5):
            write_image(tmp_path / "mine" / name / f"{i}.jpg")
            write_mask(tmp_path / "masks" / name / f"{i}.png", mask.numpy())
    splits = data.create_dataset(
        "recomposed",
        source={
            "name": "folder",
            "root": str(tmp_path / "mine"),
            "masks": str(tmp_path / "masks"),
            "val": 1,
            "test": 1,
        },
        backgrounds=str(backgrounds / "scenes"),
    )
    assert splits["test_shifted"].group_ids.tolist() == [1, 2]


def test_real_pets_on_real_scenes_give_the_five_splits(data_folder: Path) -> None:
    splits = data.create_dataset(
        "recomposed",
        source={"name": "pets", "root": str(data_folder / "pets"), "val": 20, "per_class": 30},
        backgrounds=str(data_folder / "imagenet1k-sample/labels.csv"),
        scenes={
            "Abyssinian": [970, 976, 977, 978, 979, 980],
            "american bulldog": [508, 580, 620, 673, 681, 743],
            "Bengal": [453, 509, 548, 559, 831, 846],
        },
        val_scenes=2,
    )
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 90,
        "val": 60,
        "val_shifted": 60,
        "test_shifted": 298,
        "test_iid": 298,
    }
    assert splits["train"][0].image.shape == (3, 160, 160)
