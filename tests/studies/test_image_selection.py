"""Which images a study explains: held-out ones, by place, class and file."""

from pathlib import Path

import pytest

from layouts import write_image
from sightline.errors import SightlineError
from sightline.runs.recipe_parts import Data
from sightline.studies import reproduce
from sightline.studies.image_selection import ImageSelection

MODEL = "model={name: sightline/small_cnn, size: 32}"
GRID = [
    "models=[{label: net, name: sightline/small_cnn, size: 32}]", "explainers=[gradcam]", "metrics={complexity: {}}",
    "num_images=2", "paper_values={}",
]  # fmt: skip
STUDIES = {
    "figure-5.3": [MODEL, "num_images=2", "columns=[{label: map, name: gradcam}]"],
    "figure-4.2": [MODEL, "options={iterations: 2}"],
    "figure-A.4": [MODEL, "image=0", "method={label: map, name: gradcam}"],
    "section-6.2": [
        MODEL, "num_images=2", "method={label: map, name: gaussian, options: {sigma: 0.2}}", "axes={sigma: [0.2]}",
        "metrics={complexity: {}}",
    ],
    "table-5.2": GRID,
}  # fmt: skip


@pytest.fixture
def training_alone(tmp_path: Path) -> str:
    """A data set without a test split."""
    lines = ["path,label"]
    for number in range(4):
        write_image(tmp_path / f"{number}.png", (60 * number, 10, 10))
        lines.append(f"{number}.png,{number % 2}")
    (tmp_path / "images.csv").write_text("\n".join(lines) + "\n")
    return f"data={{name: csv, path: '{tmp_path / 'images.csv'}', test: 0, val: 0}}"


@pytest.mark.parametrize("item", STUDIES)
def test_training_images_are_not_explained_unless_asked_for(item: str, training_alone: str, tmp_path: Path) -> None:
    with pytest.raises(
        SightlineError,
        match=rf"lots/{item}: the splits are train; expected one of test, .* or name a split by split=NAME",
    ):
        reproduce("lots", item, [training_alone, *STUDIES[item]], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_images_are_explained_if_asked_for(training_alone: str, tmp_path: Path) -> None:
    folder = reproduce(
        "lots", "figure-5.3", [training_alone, *STUDIES["figure-5.3"], "split=train"], output=tmp_path / "out"
    )
    assert (folder / "figure.png").is_file()


def test_a_split_that_is_not_there_is_named() -> None:
    with pytest.raises(SightlineError, match="unknown split 'tset'"):
        _ = ImageSelection(Data(name="digits"), "a study", "tset").held_out


WNIDS = {"n01440764": "tench", "n02007558": "flamingo", "n04254777": "sock"}


@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_classes_are_told_by_name_where_folders_are_named_by_wnids(name: str, tmp_path: Path) -> None:
    for part in ("train", "test" if name == "folder" else "val"):
        for wnid in WNIDS:
            for number in range(2):
                write_image(tmp_path / part / wnid / f"{part}_{number}.JPEG")
    options = {"val": 0} if name == "folder" else {"per_class": 1}
    selection = ImageSelection(Data(name=name, root=str(tmp_path), **options), "a study")
    place = selection.find("flamingo")
    assert Path(selection.path(place)).parent.name == "n02007558"
    assert selection.label(place) == "flamingo"
    assert selection.classes == [*WNIDS.values()]
    with pytest.raises(SightlineError, match="unknown class of an image: 'flamengo'; did you mean 'flamingo'"):
        selection.find("flamengo")


def test_all_thousand_names_differ_and_stand_where_models_have_them() -> None:
    timm_data = pytest.importorskip("timm.data")
    from sightline.datasets.imagenet_names import imagenet_classes, imagenet_wnids, names_of_wnids

    classes, info = imagenet_classes(), timm_data.ImageNetInfo("imagenet-1k")
    assert len(set(classes)) == 1000
    told = [info.index_to_description(place).partition(",")[0] for place in range(1000)]
    assert [place for place in range(1000) if classes[place] != told[place]] == [
        134,
        639,
    ]  # crane bird, maillot tank suit
    assert names_of_wnids(imagenet_wnids()) == classes
    assert names_of_wnids([imagenet_wnids()[806], "n00000001"]) == ["sock", "n00000001"]
