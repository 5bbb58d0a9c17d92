from pathlib import Path

import pytest
import torch

from sightline import data
from sightline.errors import SightlineError


def test_pets_official_layout_gives_splits_and_classes(pets_folder: Path) -> None:
    splits = data.create_dataset("pets", root=str(pets_folder), val=0.2)
    assert {name: len(split) for name, split in splits.items()} == {"train": 24, "val": 6, "test": 12}
    assert splits.classes == ["Abyssinian", "american bulldog", "Bengal"]  # the official order, renumbered from 0
    for split in splits.values():
        assert split.labels.bincount().tolist() == [len(split) // 3] * 3
        for i in range(len(split)):
            sample = split[i]
            assert Path(sample.path).stem.rpartition("_")[0].replace("_", " ") == split.classes[sample.label]
    test = {Path(splits["test"][i].path).stem for i in range(12)}
    assert test == {f"{breed}_{i}" for breed in ("Abyssinian", "american_bulldog", "Bengal") for i in range(10, 14)}
    paths = [splits[name][i].path for name in splits for i in range(len(splits[name]))]
    assert len(set(paths)) == 42


@pytest.mark.parametrize(("border", "value"), [("object", 1), ("ignore", 255)])
def test_trimap_border_becomes_the_requested_value(pets_folder: Path, border: str, value: int) -> None:
    mask = data.create_dataset("pets", root=str(pets_folder), border=border)["train"][0].mask
    assert mask[0, 0] == 0
    assert mask[10, 15] == 1
    assert mask[4, 6] == value


def test_validation_is_a_count_and_training_sets_nest(pets_folder: Path) -> None:
    def names(split: data.ImageDataset) -> set[str]:
        return {split[i].path for i in range(len(split))}

    small = data.create_dataset("pets", root=str(pets_folder), val=3, per_class=2)
    large = data.create_dataset("pets", root=str(pets_folder), val=3, per_class=5)
    assert small["val"].labels.bincount().tolist() == [3, 3, 3]
    assert small["train"].labels.bincount().tolist() == [2, 2, 2]
    assert names(small["train"]) < names(large["train"])
    assert names(small["val"]) == names(large["val"])
    assert "val" not in data.create_dataset("pets", root=str(pets_folder), val=0)
    other = data.create_dataset("pets", root=str(pets_folder), val=3, per_class=2, seed=1)
    assert names(other["train"]) != names(small["train"])


def test_breeds_are_chosen_and_renumbered(pets_folder: Path) -> None:
    splits = data.create_dataset("pets", root=str(pets_folder), breeds=["Bengal", "Abyssinian"])
    assert splits.classes == ["Abyssinian", "Bengal"]
    assert splits["test"].labels.bincount().tolist() == [4, 4]
    with pytest.raises(SightlineError, match="unknown breed 'Bengel'; did you mean 'Bengal'"):
        data.create_dataset("pets", root=str(pets_folder), breeds=["Bengel"])
    with pytest.raises(SightlineError, match="two or more"):
        data.create_dataset("pets", root=str(pets_folder), breeds=["Bengal"])


def test_torchvision_s_folder_is_found(pets_folder: Path, tmp_path: Path) -> None:
    pets_folder.rename(tmp_path / "oxford-iiit-pet")
    assert len(data.create_dataset("pets", root=str(tmp_path))["test"]) == 12


def test_the_fingerprint_follows_the_content(pets_folder: Path) -> None:
    root = str(pets_folder)
    one = data.create_dataset("pets", root=root)["train"].fingerprint
    assert one == data.create_dataset("pets", root=root)["train"].fingerprint
    moved = pets_folder.rename(pets_folder.parent / "elsewhere")
    assert one == data.create_dataset("pets", root=str(moved))["train"].fingerprint
    assert one != data.create_dataset("pets", root=str(moved), seed=1)["train"].fingerprint
    assert one != data.create_dataset("pets", root=str(moved), border="ignore")["train"].fingerprint


def test_pets_invalid_options_raise(pets_folder: Path, tmp_path: Path) -> None:
    root = str(pets_folder)
    with pytest.raises(SightlineError, match="nothing at"):
        data.create_dataset("pets", root=str(tmp_path / "absent"))
    with pytest.raises(SightlineError, match="official layout"):
        data.create_dataset("pets", root=str(tmp_path))
    with pytest.raises(SightlineError, match="border is 'objects'; expected 'object' or 'ignore'"):
        data.create_dataset("pets", root=root, border="objects")
    with pytest.raises(SightlineError, match="leave 8 of them to train on; expected at least 9"):
        data.create_dataset("pets", root=root, val=2, per_class=9)
    with pytest.raises(SightlineError, match=r"val is 1\.5"):
        data.create_dataset("pets", root=root, val=1.5)
    with pytest.raises(SightlineError, match="did you mean 'border'"):
        data.create_dataset("pets", root=root, borders="object")
    (pets_folder / "annotations/trimaps/Bengal_3.png").unlink()
    with pytest.raises(SightlineError, match=r"1 files are missing.*Bengal_3\.png"):
        data.create_dataset("pets", root=root)


def test_relative_roots_are_found_below_sightline_data(pets_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_DATA", str(pets_folder.parent))
    assert len(data.create_dataset("pets", root="pets")["test"]) == 12


def test_real_pets_have_the_published_counts(data_folder: Path) -> None:
    splits = data.create_dataset("pets", root=str(data_folder / "pets"), val=20)
    assert splits.classes == ["Abyssinian", "american bulldog", "Bengal"]
    assert splits["train"].labels.bincount().tolist() == [80, 80, 80]
    assert splits["val"].labels.bincount().tolist() == [20, 20, 20]
    assert splits["test"].labels.bincount().tolist() == [98, 100, 100]
    share = torch.stack([(splits["test"][i].mask == 1).float().mean() for i in range(0, 298, 30)]).mean()
    assert 0.15 < share < 0.7
