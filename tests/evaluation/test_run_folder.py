import numpy as np
import pytest

from run_folders import write_run
from sightline import SightlineError
from sightline.evaluation.run_folder import read_run
from sightline.evaluation.split_folder.folder import Key


def test_reads_what_was_written(tmp_path):
    run = read_run(
        write_run(tmp_path / "run", name="so", seed=4, splits=("test", "val"), n=6, correct=[1, 1, 0, 1, 0, 1])
    )
    assert run.seed == 4
    assert sorted(run.evaluations) == ["test", "val"]
    test = run.evaluations["test"]
    assert test.n == 6
    assert test.results[Key("accuracy", None)] == pytest.approx(4 / 6)
    assert test.samples.correct.tolist() == [1, 1, 0, 1, 0, 1]
    assert test.samples.values["energy_in_mask@gradcam"].shape == (6,)
    assert test.curves["gradcam"]["insertion"].shape == (2, 225)
    assert run.history["epoch"].tolist() == list(range(12))
    assert test.gallery.image(3).shape == (3, 48, 48)
    assert test.gallery.mask(3).any()


def test_samples_are_put_in_order(tmp_path):
    path = write_run(tmp_path / "run", n=4, correct=[1, 0, 0, 1]) / "evaluation" / "test" / "samples.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[::-1]]))
    samples = read_run(tmp_path / "run").evaluations["test"].samples
    assert samples.index.tolist() == [0, 1, 2, 3]
    assert samples.correct.tolist() == [1, 0, 0, 1]
    assert samples.row(2) == 2


def test_a_value_that_is_not_defined_is_nan_and_no_result(tmp_path):
    test = read_run(write_run(tmp_path / "run", masks=False)).evaluations["test"]
    assert np.isnan(test.samples.values["energy_in_mask@gradcam"]).all()
    assert Key("energy_in_mask", "gradcam") not in test.results
    assert test.gallery.mask(0) is None


def test_folder_without_run_json_raises(tmp_path):
    with pytest.raises(SightlineError, match=r"is not a run folder: it holds no run\.json"):
        read_run(tmp_path)


def test_a_run_without_evaluation_raises_with_the_command(tmp_path):
    path = write_run(tmp_path / "run", splits=())
    with pytest.raises(SightlineError, match=f"{path} has not been evaluated; run `sightline evaluate {path}`"):
        read_run(path)


def test_an_evaluation_that_is_being_written_is_not_read(tmp_path):
    path = write_run(tmp_path / "run")
    (path / "evaluation" / ".val.0123.tmp").mkdir()
    (path / "evaluation" / ".val.0123.tmp" / "summary.json").write_text("{")
    assert list(read_run(path).evaluations) == ["test"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", "{}"),
        ("evaluation/test/summary.json", ""),
        ("evaluation/test/curves.json", "[1]"),
        ("evaluation/test/curves.json", '{"gradcam": {"insertion": {}}}'),
        ("recipe.yaml", "a: ["),
        ("evaluation/test/summary.json", "{}"),
        ("evaluation/test/samples.csv", "index,path\n0,x\n"),
        ("evaluation/test/samples.csv", ""),
        ("metrics.csv", "epoch,loss\n0,nonsense\n"),
    ],
)
def test_a_damaged_file_raises_with_its_name_and_a_remedy(tmp_path, file, content):
    path = write_run(tmp_path / "run")
    (path / file).write_text(content)
    with pytest.raises(SightlineError, match=f"{path / file}") as caught:
        read_run(path)
    assert any(word in str(caught.value) for word in ("evaluate the run again", "give the command", "YAML"))


@pytest.mark.parametrize("file", ["run.json", "recipe.yaml", "metrics.csv", "evaluation/test/samples.csv"])
def test_a_file_that_is_not_utf8_is_named(tmp_path, file):
    path = write_run(tmp_path / "run")
    (path / file).write_bytes("épaule".encode("latin-1") + (path / file).read_bytes())
    with pytest.raises(SightlineError, match=f"{path / file}"):
        read_run(path)


def test_a_damaged_gallery_is_named(tmp_path):
    path = write_run(tmp_path / "run")
    file = path / "evaluation" / "test" / "gallery" / "maps.safetensors"
    file.parent.mkdir(exist_ok=True)
    for content in (b"", b"nonsense", b"\xff" * 64):
        file.write_bytes(content)
        with pytest.raises(SightlineError, match=f"cannot read {file}: .*; evaluate the run again"):
            _ = read_run(path).evaluations["test"].gallery
