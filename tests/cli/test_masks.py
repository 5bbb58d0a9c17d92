import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from sightline import SightlineError, load_model
from sightline.cli.app import app

NAME = "sightline/small_cnn"
MODEL = ["--model", NAME, "--weights", "weights.safetensors", "--method", "eigencam"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the verb on four photographs of bright objects with masks."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("cat", "dog") * 2):
        image, mask = Path(f"images/{name}/{i}.png"), Path(f"truth/{name}/{i}.png")
        for file in (image, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 60, (40, 40, 3), dtype=np.uint8)
        pixels[12:28, 14:30] += 180
        Image.fromarray(pixels).save(image)
        inside = np.zeros((40, 40), dtype=np.uint8)
        inside[12:28, 14:30] = 1
        Image.fromarray(inside).save(mask)
    torch.manual_seed(0)
    save_file(load_model(NAME, classes=2)[0].state_dict(), "weights.safetensors")
    Path("boxes.csv").write_text("path,x1,y1,x2,y2\n0.png,10,8,34,32\n1.png,10,8,34,32\n2.png,10,8,34,32\n")

    def call(*arguments: str, verb: str = "masks", masks: str = "truth"):
        options = ["root=images", f"masks={masks}", "val=0", "test=0"]
        done = CliRunner().invoke(app, [verb, *(["folder"] if verb == "masks" else []), *options, *arguments])
        if done.exception:
            raise done.exception
        return done

    return call


def test_masks_from_boxes_are_written_and_resume(run) -> None:
    for _ in range(2):  # the second time there is nothing left to do
        done = run("--boxes", "boxes.csv")
        assert done.stdout == "masks\n"
        assert "3 masks of 4 images; 1 (25.0%) have no prompt" in done.stderr
        assert "with the true masks of 3 images" in done.stderr
        assert float(done.stderr.split("mean IoU ")[1].split()[0]) > 0.95
    assert sorted(str(p) for p in Path("masks").rglob("*.png")) == [
        "masks/cat/0.png", "masks/cat/2.png", "masks/dog/1.png",
    ]  # fmt: skip


def test_points_of_a_model_and_of_its_stored_maps(run) -> None:
    assert "4 masks of 4 images" in run(*MODEL).stderr
    store = [*MODEL[:4], "--methods", "eigencam", "--data", "folder", "--store", "maps", "--dtype", "float16"]
    run(*store, verb="explain")
    assert "4 masks of 4 images" in run("--maps", "maps", "-o", "stored").stderr
    for path in Path("masks").rglob("*.png"):  # the store rounds, which may shift a point
        with Image.open(path) as one, Image.open("stored" / path.relative_to("masks")) as other:
            assert (np.asarray(one) == np.asarray(other)).mean() > 0.9


def test_a_custom_segmenter_gets_points_and_box_and_writes_masks(run) -> None:
    Path("bright_pixels.py").write_text(
        "def cut(image, points, box):\n    assert points.shape[1:] == (2,) and len(points) and box.tolist() == [10, 8, 34, "
        "32]\n    return image[..., 0] > 120\n"
    )
    Path("boxes.csv").write_text("path,x1,y1,x2,y2\n" + "".join(f"{i}.png,10,8,34,32\n" for i in range(4)))
    done = run(
        *MODEL, "--threshold", "0", "--distance", "0.2", "--boxes", "boxes.csv", "--segmenter", "bright_pixels:cut"
    )
    assert "mean IoU 1.000 with the true masks of 4 images" in done.stderr
    with Path("masks/masks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"path": "../images/cat/0.png", "label": "cat", "mask": "cat/0.png", "split": "train"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no prompts: give --model"),
        (["--boxes", "nowhere.csv"], "nothing at nowhere.csv"),
        (["--boxes", "boxes.csv", "--segmenter", "sam"], "expected 'grabcut' or 'package.module:function'"),
        (["--boxes", "boxes.csv", "--threshold", "2"], "threshold is 2"),
        ([*MODEL, "--distance", "0"], "distance is 0"),
        ([*MODEL[:4], "--method", "gradcan"], "did you mean 'gradcam'"),
        ([*MODEL, "--maps", "maps"], "points come from one of them"),
        (["--maps", "maps"], "maps is not a store of maps"),
        (["--boxes", "boxes.csv", "--split", "test"], "unknown split 'test'"),
    ],
)
def test_masks_invalid_arguments_raise_and_write_nothing(run, arguments: list[str], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        run(*arguments)
    assert not Path("masks").exists()
