from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from layouts import write_image, write_mask
from sightline.cli.app import app
from sightline.data.official import OFFICIAL, Official
from sightline.errors import SightlineError
from sightline.verification.verify import download_dataset, verify_dataset


@pytest.fixture(autouse=True)
def _small_official_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OFFICIAL, "pets", Official("somewhere", 30, 12))


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["data", *arguments])
    return done.exit_code, done.output


def test_a_complete_dataset_has_no_problems(pets_folder: Path) -> None:
    found = verify_dataset("pets", {"root": str(pets_folder)})
    assert found.images == {"train": 24, "val": 6, "test": 12}
    assert found.counts == {"train": (30, 30), "test": (12, 12)}
    assert found.problems == found.unlisted == []
    code, printed = run("check", "pets", f"root={pets_folder}")
    assert code == 0
    assert "nothing is wrong" in printed


def test_every_kind_of_problem_is_listed(pets_folder: Path) -> None:
    masks = pets_folder / "annotations/trimaps"
    (pets_folder / "images/Bengal_12.jpg").unlink()
    (masks / "Bengal_0.png").unlink()
    (pets_folder / "images/Bengal_1.jpg").write_bytes(b"no picture")
    content = (masks / "Bengal_2.png").read_bytes()
    (masks / "Bengal_2.png").write_bytes(content[: len(content) // 2])
    write_mask(masks / "Bengal_3.png", np.ones((10, 10)))
    write_mask(masks / "Bengal_13.png", np.full((24, 32), 2))
    write_mask(masks / "Bengal_4.png", np.full((24, 32, 3), (9, 0, 0)))
    write_image(pets_folder / "images/Siamese_1.jpg")
    found = verify_dataset("pets", {"root": str(pets_folder), "val": 0})
    stems = {
        kind: [next(Path(word).stem for word in line.replace(":", "").split() if "Bengal" in word) for line in lines]
        for kind, lines in found.found["train"].items()
    }
    assert {kind: sorted(some) for kind, some in stems.items() if some and kind != "mismatched"} == {
        "missing": ["Bengal_0"],
        "corrupt": ["Bengal_1", "Bengal_2"],
        "unclear": ["Bengal_4"],
    }
    (mismatch,) = found.found["train"]["mismatched"]
    assert "Bengal_3" in mismatch
    assert "10 x 10" in mismatch
    assert {kind: len(some) for kind, some in found.found["test"].items() if some} == {"missing": 1, "empty mask": 1}
    assert [Path(file).stem for file in found.unlisted] == ["Siamese_1"]
    assert len(found.problems) == 7

    code, printed = run("check", "pets", f"root={pets_folder}")
    assert code == 1
    assert "Bengal_12" in printed
    assert "1 images belong to no split" in printed
    assert found.classes["train"] == {"Abyssinian": 10, "american bulldog": 10, "Bengal": 10}
    assert "train: 3 classes: Abyssinian 8, american bulldog 8, Bengal 8" in printed


def test_numbers_that_are_not_the_official_ones(pets_folder: Path) -> None:
    lines = (pets_folder / "annotations/test.txt").read_text().splitlines()
    (pets_folder / "annotations/test.txt").write_text("\n".join(lines[1:]))
    found = verify_dataset("pets", {"root": str(pets_folder)})
    assert found.problems == ["test: 11 images, and officially 12"]
    assert len(found.unlisted) == 1
    assert (
        verify_dataset("pets", {"root": str(pets_folder), "per_class": 2}).counts == {}
    )  # part of the set was asked for


def test_masks_may_be_missing_in_a_folder(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(3):
            write_image(tmp_path / "images" / name / f"{i}.png")
    write_mask(tmp_path / "masks/cat/0.png", np.ones((24, 32)))
    options = {"root": str(tmp_path / "images"), "masks": str(tmp_path / "masks"), "val": 0, "test": 0}
    found = verify_dataset("folder", options)
    assert len(found.found["train"]["without mask"]) == 5
    assert found.problems == []
    assert found.counts == {}
    (tmp_path / "images/cat/1.png").write_bytes(b"")
    skipped = verify_dataset("folder", options | {"skip_corrupt": True})
    assert len(skipped.problems) == 1


def test_sets_that_are_no_files() -> None:
    found = verify_dataset("digits")
    assert found.problems == found.unlisted == []
    assert sum(found.images.values()) > 100


def test_dataset_without_download_error_names_the_source() -> None:
    with pytest.raises(
        SightlineError, match=r"'cub' cannot be fetched by torchvision; get it from https://www\.vision\.caltech"
    ):
        download_dataset("cub")
    with pytest.raises(SightlineError, match="made of your own files"):
        download_dataset("folder")


def test_fetching_asks_torchvision(pets_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(root: str, target_types: str, download: bool) -> None:
        asked.append((root, download))
        pets_folder.rename(Path(root) / "oxford-iiit-pet")

    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet", fetch)
    root = str(pets_folder.parent)
    code, printed = run("prepare", "pets", f"root={root}")
    assert code == 0, printed
    assert asked == [(root, True)]
    assert "train: 30 images, as officially" in printed


def test_the_list() -> None:
    code, printed = run("list")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    assert {"5,994", "5,794"} <= set(rows["cub"])
    assert {"931", "925", "prepare"} <= set(rows["voc"])


def test_a_name_is_needed() -> None:
    done = CliRunner().invoke(app, ["data", "check"])
    assert isinstance(done.exception, SightlineError)
    assert "needs the name of a data set" in str(done.exception)
