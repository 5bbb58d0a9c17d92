"""Commands whose work two processes share, started by torchrun: the results are those of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import sightline as sl
from sightline.data.map_store import MapStore

pytestmark = pytest.mark.slow
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node=2",
    "-m",
    "sightline",
    "--",
]
DIGITS = ["data.copies=1", "data.size=32", "image_size=32"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(arguments: list[str], folder: Path) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*TORCHRUN, *arguments], cwd=folder, env=ENVIRONMENT, text=True, **pipes)


def in_two(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    process = start(arguments, folder)
    output, errors = process.communicate(timeout=600)
    return process.returncode, output, errors


def in_one(arguments: list[str], folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "sightline", *arguments], cwd=folder, env=ENVIRONMENT, check=True, timeout=600
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchrun")
    sl.train("demo-cross-entropy", [*DIGITS, "stages=[{epochs: 1, lr: 0.002}]"], folder / "run", device="cpu")
    return folder


def test_a_run_is_evaluated_as_by_one_process(place: Path) -> None:
    """Test splits of 270 images are 9 batches: one process gets 5 of them, and the last one is not full."""
    options = ["--metrics", "accuracy,worst_group_accuracy,ece,miou,insertion,normalized_rfs", "--max-images-slow", "9"]
    in_one(["evaluate", "run", *options], place)
    evaluation = place / "run" / "evaluation"
    evaluation.rename(place / "of-one")
    code, _, errors = in_two(["evaluate", "run", *options], place)
    assert code == 0, errors
    assert errors.count("test_iid (n = 270)") == 1
    for split in ("test_iid", "test_shifted"):
        for file in ("samples.csv", "gallery/maps.safetensors"):
            assert (evaluation / split / file).read_bytes() == (place / "of-one" / split / file).read_bytes(), file
        one, two = (json.loads((each / split / "summary.json").read_text()) for each in (place / "of-one", evaluation))
        for first, second in zip(one["results"], two["results"], strict=True):
            assert (first["metric"], first["n"]) == (second["metric"], second["n"])
            for key in ("value", "low", "high"):
                assert first[key] == pytest.approx(second[key], abs=1e-6), first
        one, two = (json.loads((each / split / "curves.json").read_text()) for each in (place / "of-one", evaluation))
        scores = [each["gradcam"]["insertion"]["score"] for each in (one, two)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def test_maps_and_a_diagnosis_are_those_of_one_process(place: Path) -> None:
    maps = ["explain", "--run", "run", "--split", "test_iid", "--store"]
    in_one([*maps, "maps-of-one"], place)
    code, output, errors = in_two([*maps, "maps"], place)
    assert code == 0, errors
    assert output.strip() == "maps"
    one, two = (MapStore(place / name).read(range(270)) for name in ("maps-of-one", "maps"))
    assert one.equal(two)

    diagnosis = ["diagnose", "--run", "run", "--samples", "70", "-o"]
    in_one([*diagnosis, "one.html"], place)
    code, output, errors = in_two([*diagnosis, "two.html"], place)
    assert code == 0, errors
    assert output.strip().endswith("two.html")
    assert json.loads((place / "two.json").read_text()) == json.loads((place / "one.json").read_text())


def test_the_runs_of_a_table_and_the_images_of_a_grid_are_shared(place: Path) -> None:
    (place / "plan.yaml").write_text(
        "kind: training_runs\nrecipe: demo-cross-entropy\nsteps: [{name: train_first}]\nseeds: [3]\n"
        "keys: {data.copies: 1, data.size: 32, image_size: 32, stages: [{epochs: 1, lr: 0.002}]}\n"
        "columns: [test_iid/accuracy]\nvariants:\n  - {label: plain, keys: {guide: null}}\n"
        "  - {label: continued, uses: [first], keys: {guide: null}}\n"
        "  - {label: without its file, keys: {guide: null, model.weights: missing.safetensors}}\n"
    )
    grid = ["--explainers", "gradcam,gaussian", "--metrics", "energy_in_mask,coherency", "--num-images", "50"]
    for arguments in (["evaluate", "plan.yaml"], ["evaluate", "run", *grid]):
        in_one([*arguments, "-o", f"{arguments[1]}-of-one"], place)
        code, _, errors = in_two([*arguments, "-o", f"{arguments[1]}-of-two"], place)
        assert code == 0, errors
        tables = [(place / f"{arguments[1]}-of-{name}" / "table.csv").read_text() for name in ("one", "two")]
        assert tables[0].replace("-of-one", "") == tables[1].replace("-of-two", "")
    assert (
        "Left out, 1 parts" in errors or "Left out, 1 parts" in (place / "plan.yaml-of-two" / "report.md").read_text()
    )


def test_an_image_that_fails_ends_both_with_one_message(place: Path, tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "photos" / str(number % 5)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (6 * number, 0, 0)).save(folder / f"{number:02}.png")
    broken = tmp_path / "photos" / "4" / "39.png"  # the last one, in the batch of the second process
    broken.write_bytes(broken.read_bytes()[:-30])
    data = ["--data", "folder", "root=photos", "val=0", "test=0"]
    code, _, errors = in_two(["explain", "--run", str(place / "run"), *data, "--store", "maps"], tmp_path)
    assert code != 0
    (line,) = [each for each in errors.splitlines() if each.startswith("error:")]
    assert "39.png" in line
    assert line.startswith("error: process 2 of 2: ")
    assert not list(tmp_path.glob(".*lock"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_processes_end_when_one_is_killed_and_the_command_can_run_again(place: Path, tmp_path: Path) -> None:
    data = ["--data", "digits", "copies=8", "size=32"]
    arguments = ["explain", "--run", str(place / "run"), *data, "--store", "maps"]
    process = start(arguments, tmp_path)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "maps").glob("maps/c/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = [child for child in children if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes()]
    os.kill(int(second[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert errors.count("interrupted: another process has ended, or torchrun was stopped; run the same command") == 1
    code, _, errors = in_two(arguments, tmp_path)
    assert code == 0, errors
    assert MapStore(tmp_path / "maps").finished.all()


def test_a_command_that_works_in_one_process_says_so(tmp_path: Path) -> None:
    code, _, errors = in_two(["list", "explainers"], tmp_path)
    assert code != 0
    assert "2 processes were launched (WORLD_SIZE), and `sightline list` works in one" in errors
