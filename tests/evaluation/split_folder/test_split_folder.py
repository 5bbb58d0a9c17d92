import csv
import errno
import json
import resource
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from sightline.errors import RunFailedError
from sightline.evaluation import Curve, Evaluation, Result, SavedImages
from sightline.evaluation.split_folder.folder import check_writable, read_evaluation, write_evaluation

FACTS = {"split": "test", "checkpoint": "checkpoints/last.safetensors", "model_fingerprint": "0" * 16}


@pytest.fixture
def evaluation() -> Evaluation:
    gallery = SavedImages(
        index=torch.tensor([4, 7]),
        images=torch.full((2, 3, 6, 5), 128, dtype=torch.uint8),
        masks=torch.tensor([0, 1, 255], dtype=torch.uint8).repeat(2, 6, 2)[..., :5].contiguous(),
        has_mask=torch.tensor([True, False]),
        maps={"gradcam": torch.arange(60, dtype=torch.uint8).view(2, 6, 5)},
    )
    samples = {
        "index": torch.tensor([4, 7]),
        "label": torch.tensor([0, 1]),
        "predicted": torch.tensor([0, 2]),
        "probability": torch.tensor([0.9, 0.4]),
        "correct": torch.tensor([1, 0]),
        "group": torch.tensor([0, 3]),
        "miou@gradcam": torch.tensor([0.25, torch.nan]),
    }
    results = [
        Result("accuracy", None, 0.5, 0, 1, 2, True),
        Result("miou", "gradcam", 0.25, 0.25, 0.25, 1, True),
        Result("deletion", "gradcam", 0.5, 0.4, 0.6, 2, False),
    ]
    at = torch.linspace(0, 1, 5)
    curves = {"gradcam": {"insertion": Curve(at, at), "deletion": Curve(at, 1 - at)}}
    facts = {"n": 2, "target": "predicted", "slow_n": 2, "seed": 0, "left_out": {}}
    return Evaluation(results, samples, curves, gallery, facts)


def test_files_hold_what_was_found(evaluation: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation" / "test"
    write_evaluation(evaluation, folder, FACTS, paths=["a,b.jpg", "c.jpg"])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["results"][2] == {
        "metric": "deletion", "explainer": "gradcam", "value": 0.5, "low": 0.4, "high": 0.6, "n": 2,
        "higher_is_better": False,
    }  # fmt: skip
    assert {"split", "n", "checkpoint", "model_fingerprint", "seed", "target", "left_out"} <= set(summary)
    rows = list(csv.DictReader((folder / "samples.csv").open(newline="")))
    assert rows == [
        {"index": "4", "path": "a,b.jpg", "label": "0", "predicted": "0", "probability": "0.9", "correct": "1",
         "group": "0", "miou@gradcam": "0.25"},
        {"index": "7", "path": "c.jpg", "label": "1", "predicted": "2", "probability": "0.4", "correct": "0",
         "group": "3", "miou@gradcam": ""},
    ]  # fmt: skip
    assert json.loads((folder / "curves.json").read_text()) == {
        "gradcam": {
            "insertion": {"at": [0, 0.25, 0.5, 0.75, 1], "score": [0, 0.25, 0.5, 0.75, 1]},
            "deletion": {"at": [0, 0.25, 0.5, 0.75, 1], "score": [1, 0.75, 0.5, 0.25, 0]},
        }
    }
    maps = load_file(folder / "gallery" / "maps.safetensors")
    assert maps["index"].tolist() == [4, 7]
    assert torch.equal(maps["gradcam"], evaluation.gallery.maps["gradcam"])
    assert [Image.open(folder / "gallery" / "images" / f"{i}.jpg").size for i in (4, 7)] == [(5, 6), (5, 6)]
    assert [p.name for p in (folder / "gallery" / "masks").iterdir()] == ["4.png"]
    assert Image.open(folder / "gallery" / "masks" / "4.png").getpixel((2, 0)) == 255
    assert [p.name for p in folder.parent.iterdir()] == ["test"]


def test_the_report_reads_them(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path / "test", FACTS)
    read = read_evaluation(tmp_path / "test")
    assert {key.column: value for key, value in read.results.items()} == {
        result.column: result.value for result in evaluation.results
    }
    assert read.gallery.mask(4).sum() == 12
    assert read.gallery.mask(7) is None
    assert read.curves["gradcam"]["deletion"].tolist() == [[0, 0.25, 0.5, 0.75, 1], [1, 0.75, 0.5, 0.25, 0]]


def test_a_second_evaluation_takes_the_place_of_the_first(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path / "test", FACTS)
    bare = Evaluation(evaluation.results[:1], evaluation.samples, {}, None, evaluation.facts)
    write_evaluation(bare, tmp_path / "test", FACTS)
    assert len(json.loads((tmp_path / "test" / "summary.json").read_text())["results"]) == 1
    assert not (tmp_path / "test" / "gallery").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["test"]


def test_a_disk_that_fills_up_leaves_the_old_files(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path / "test", FACTS)
    before = {p: p.read_bytes() for p in (tmp_path / "test").rglob("*") if p.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))  # files of more than 300 bytes cannot be written
    try:
        with pytest.raises(RunFailedError, match=f"cannot write {tmp_path}.*File too large"):
            write_evaluation(evaluation, tmp_path / "test", FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_folder_that_cannot_be_written_to_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(RunFailedError, match="Not a directory"):
        check_writable(tmp_path / "file" / "evaluation")

    def read_only(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", read_only)
    with pytest.raises(RunFailedError, match=f"cannot write {tmp_path}.*: Read-only file system; name another output"):
        check_writable(tmp_path)
