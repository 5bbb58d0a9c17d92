import csv
import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from run_folders import begin_run
from sightline import SightlineError, load_model
from sightline.cli.app import app

SMALL = "sightline/small_cnn"
VIT = "timm/test_vit"  # timm's own model for tests


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two class folders of noise with masks beside them."""
    for name in ("cat", "dog"):
        for i in range(2):
            image, mask = tmp_path / f"images/{name}/{i}.png", tmp_path / f"truth/{name}/{i}.png"
            for file in (image, mask):
                file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((80, 60 + 20 * i), 90).convert("RGB").save(image)
            picture = Image.new("L", (80, 60 + 20 * i))
            picture.paste(1, (10, 10, 50, 50))
            picture.save(mask)
    return tmp_path


@pytest.fixture
def run(photographs, monkeypatch):
    """Run the verb on the photographs; gives the rows of its CSV file."""
    monkeypatch.chdir(photographs)

    def call(*arguments: str, masks: bool = True):
        options = ["root=images", "val=0", "test=0", *(["masks=truth"] if masks else [])]
        done = CliRunner().invoke(app, ["boxes", "folder", *options, *arguments])
        if done.exception:
            raise done.exception
        return done

    return call


def rows() -> list[dict[str, str]]:
    with Path("boxes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_lost_with_local_weights_writes_one_box_per_image_and_resumes(run) -> None:
    save_file(timm.create_model("test_vit", num_classes=3).state_dict(), "vit.safetensors")
    arguments = ["--detector", "lost", "--model", VIT, "--weights", "vit.safetensors", "--set", "size=64"]
    for _ in range(2):  # the second time there is nothing left to do
        done = run(*arguments)
        assert done.stdout == "boxes.csv\n"
        assert "4 boxes in 4 images; 0 have none" in done.stderr
        assert "against the masks of 4 images" in done.stderr
    assert [row["path"] for row in rows()] == [f"images/{name}/{i}.png" for name in ("cat", "dog") for i in range(2)]
    assert all(0 <= float(row["x1"]) < float(row["x2"]) <= 80.01 for row in rows())
    with pytest.raises(SightlineError, match="belongs to other work: size is 64 there and 32 here"):
        run(*arguments[:-1], "size=32")


def test_saliency_of_a_classifier_and_of_a_run(run) -> None:
    torch.manual_seed(0)
    save_file(load_model(SMALL, classes=2)[0].state_dict(), "small.safetensors")
    run("--detector", "saliency", "--model", SMALL, "--weights", "small.safetensors", "--set", "explainer=eigencam")
    boxes = rows()
    assert len(boxes) == 4
    side = load_model(SMALL, classes=2)[1].size[0]
    Path("small.safetensors").rename(begin_run(Path("run"), SMALL, ["cat", "dog"], side, layer="features.3").last)
    with pytest.raises(SightlineError, match=r"layer is None there and 'features\.3' here"):
        run("--detector", "saliency", "--run", "run", "--set", "explainer=eigencam")


def test_annotations_become_coco(run) -> None:
    Path("drawn.csv").write_text(
        "path,x1,y1,x2,y2\ncat/0.png,10,10,50,50\ndog/0.png,70,10,90,20\ndog/1.png,90,0,99,9\n"
    )
    done = run("--detector", "annotations", "--set", "file=drawn.csv", "-o", "out/boxes.json")
    assert "2 boxes in 4 images; 2 have none" in done.stderr
    assert "1 reached beyond their image" in done.stderr
    assert "1 had no area in their image" in done.stderr
    assert "CorLoc 0.250 against the masks of 4 images" in done.stderr
    content = json.loads(Path("out/boxes.json").read_text())
    assert content["images"][0]["file_name"] == "../images/cat/0.png"
    assert [found["bbox"] for found in content["annotations"]] == [[10, 10, 40, 40], [70, 10, 10, 10]]


def test_boxes_without_masks_are_not_evaluated(run) -> None:
    Path("drawn.csv").write_text("path,x1,y1,x2,y2\ncat/0.png,10,10,50,50\n")
    done = run("--detector", "annotations", "--set", "file=drawn.csv", masks=False)
    assert done.stderr == "1 boxes in 4 images; 3 have none\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "lots"], "did you mean 'lost'"),
        (["--detector", "annotations"], "needs 'file'"),
        (["--detector", "annotations", "--set", "file=nowhere.csv"], "nothing at nowhere.csv"),
        (["--detector", "saliency"], "no model was named"),
        (
            ["--detector", "lost", "--model", "torchvision/resnet18", "--weights", "nowhere.pth"],
            "nothing at nowhere.pth",
        ),
        (["--split", "tests"], "unknown split 'tests'"),
        (["--weights", "nowhere.pth", "--set", "sizes=64"], "unknown option of 'lost': 'sizes'"),
        (["--weights", "nowhere.pth", "--set", "size=abc"], "size is 'abc'; expected a whole number or null"),
        (["--weights", "nowhere.pth", "--set", "model=timm/vit"], "--set model was given; name the model by --model"),
        (["--weights", "nowhere.pth", "-o", "boxes.txt"], r"boxes.txt has the suffix '.txt'; expected .csv or .json"),
    ],
)
def test_boxes_invalid_arguments_raise_and_write_nothing(run, arguments: list[str], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        run(*arguments)
    assert not Path("boxes.csv").exists()
