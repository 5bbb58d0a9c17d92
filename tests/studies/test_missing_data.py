"""Studies whose data is missing."""

from pathlib import Path

import pytest
import torch

from sightline.errors import SightlineError
from sightline.studies import read_study, shipped_studies

DIGITS = {"name": "digits", "copies": 1, "size": 32}
KEYS = {
    "data": DIGITS,
    "image_size": 32,
    "batch_size": 64,
    "cache_images": True,
    "stages": [{"epochs": 2, "lr": 4e-3}],
    "guide": None,
}
COMMON = {"paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy", "keys": KEYS}


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name.startswith("ec/")])
def test_missing_data_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGHTLINE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    study = read_study(*name.split("/"), ["seed=0"])
    with pytest.raises(SightlineError, match=r"VOC|stl10|CUB_200_2011|root|VOCdevkit"):
        study.prepare(torch.device("cpu"), tmp_path / "out")(study.parts()[0])
