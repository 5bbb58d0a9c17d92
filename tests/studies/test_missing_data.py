"""Studies whose data is missing."""

from pathlib import Path

import pytest
import torch

from sightline.errors import MissingFileError, SightlineError
from sightline.studies import read_study, reproduce, shipped_studies


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name.startswith("ec/")])
def test_missing_data_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGHTLINE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    study = read_study(*name.split("/"), ["seed=0"])
    with pytest.raises(SightlineError, match=r"VOC|stl10|CUB_200_2011|root|VOCdevkit"):
        study.prepare(torch.device("cpu"), tmp_path / "out")(study.parts()[0])


@pytest.fixture
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGHTLINE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_nothing_here")
@pytest.mark.parametrize(
    ("paper", "item", "source"),
    [
        ("ria", "table-2", "https://github.com/mmoayeri/RIVAL10"),
        ("ec", "table-4", "https://github.com/MadryLab/backgrounds_challenge"),
        ("ec", "figure-9ab", "http://roozbehm.info/pascal-parts"),
        ("lots", "figure-5.7", "`sightline data prepare pets root=FOLDER`"),
    ],
)
def test_missing_data_is_named_with_its_source(paper: str, item: str, source: str, tmp_path: Path) -> None:
    with pytest.raises(SightlineError) as caught:
        reproduce(paper, item, output=tmp_path / "out")
    assert source in str(caught.value)


@pytest.mark.usefixtures("_nothing_here")
def test_boxes_without_weights_are_no_result_of_a_table_whose_data_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"ria/table-1: root: nothing at RIVAL10"):
        reproduce("ria", "table-1", output=tmp_path / "out")


@pytest.mark.usefixtures("_nothing_here")
@pytest.mark.parametrize("item", ["table-5.2", "figure-4.1", "figure-5.3", "section-6.2"])
def test_the_study_is_named_once(item: str, tmp_path: Path) -> None:
    with pytest.raises(SightlineError) as caught:
        reproduce("lots", item, output=tmp_path / "out")
    assert str(caught.value).count(f"lots/{item}") == 1
    assert "--splits" not in str(caught.value)  # the data is missing, not a split
