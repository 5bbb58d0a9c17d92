"""`sightline diagnose` on a user's own checkpoint and class folder, and on a run."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torchvision.io import write_png
from typer.testing import CliRunner

import sightline as sl
from sightline.cli.app import app
from sightline.runs import load_run

PHOTOS = 6  # of each class


def image(number: int, name: str) -> torch.Tensor:
    """A red or green square of its own shade on a ground of its own shade."""
    pixels = torch.full((3, 40, 40), 10 * number, dtype=torch.uint8)
    pixels[("cat", "dog").index(name), 10:30, 10:30] = 250 - 10 * number
    return pixels


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with images of two classes, masks and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        for kind in ("photos", "masks"):
            Path(kind, name).mkdir(parents=True)
        for number in range(PHOTOS):
            write_png(image(number, name), f"photos/{name}/{number}.png")
            mask = torch.zeros(1, 40, 40, dtype=torch.uint8)
            mask[:, 10:30, 10:30] = 255
            write_png(mask, f"masks/{name}/{number}.png")
    model, _ = sl.load_model("sightline/small_cnn", classes=2)
    torch.save(model.state_dict(), "mine.pth")
    return tmp_path


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    return done


GIVEN = (
    "diagnose", "--data", "folder", "root=photos", "--model", "sightline/small_cnn", "--weights", "mine.pth",
    "-o", "d.html",
)  # fmt: skip


def test_a_torchvision_checkpoint_on_few_images_gets_no_verdict_and_a_recommendation(place) -> None:
    with pytest.warns(UserWarning, match="12 images .* too few"):
        done = run(*GIVEN, "masks=masks")
    assert "Cannot tell: Only 12 images" in done.output
    assert "the masks of the dataset" in done.output
    found = json.loads(Path("d.json").read_text())
    assert found["answer"] == "cannot tell"
    assert found["recommendations"][0]["command"].startswith(
        "sightline train demo-cross-entropy name=random_background"
    )
    facts = found["facts"]
    assert (facts["folder"], facts["weights"]) == ("folder root=photos masks=masks", "mine.pth")
    page = Path("d.html").read_text()
    for shown in ("mine.pth", "root=photos", "64 x 64", facts["date"], facts["parameters"], "0.5, 0.5, 0.5"):
        assert shown in page


@pytest.mark.filterwarnings("ignore:.*too few")
def test_recommendation_without_annotation_runs_and_is_not_repeated(place) -> None:
    run(*GIVEN, "test=2", "val=2")
    advice = json.loads(Path("d.json").read_text())["recommendations"][0]
    assert advice["guide"] == "random_background"
    small = ["image_size=32", "stages=[{epochs: 1, lr: 0.001}]"]
    run(*shlex.split(advice["first"])[1:])
    run(*shlex.split(advice["command"])[1:], *small, "--output", "new", "--no-evaluate")
    assert len(list(Path("found-masks").rglob("*.png"))) == 2 * (PHOTOS - 4)

    run("diagnose", "--run", "new", "-o", "after.html")
    after = json.loads(Path("after.json").read_text())
    assert after["preprocessing"] is None  # a run knows how its own images were prepared
    facts = after["facts"]
    assert (facts["run"], facts["images"], facts["seen in training"]) == (
        "new",
        4,
        0,
    )  # the split test: others are derived
    assert "random_background" not in [each["guide"] for each in after["recommendations"]]
    run("diagnose", "--run", "new", "--data", "folder", "root=photos", "-o", "after.html")
    after = json.loads(Path("after.json").read_text())
    facts = after["facts"]
    assert after["preprocessing"] is not None
    assert (facts["images"], facts["seen in training"]) == (2 * PHOTOS, 2 * (PHOTOS - 4))


@pytest.mark.filterwarnings("ignore:.*too few", "ignore:.*in another order")
def test_the_recommended_training_sees_images_as_this_command_was_told(place) -> None:
    Path("names.txt").write_text("dog\ncat\n")
    told = ("--size", "48", "--mean", "0.4,0.5,0.6", "--std", "0.25", "--classes", "names.txt")
    run(*GIVEN, "masks=masks", *told)
    advice = json.loads(Path("d.json").read_text())["recommendations"][0]
    with pytest.warns(UserWarning, match="the head was put in the order of the data"):
        run(*shlex.split(advice["command"])[1:], "stages=[{epochs: 1, lr: 1e-12}]", "--output", "new", "--no-evaluate")
    loaded = load_run("new", "cpu")
    assert loaded.input_spec == sl.InputSpec((0.4, 0.5, 0.6), (0.25, 0.25, 0.25), (48, 48))
    assert loaded.classes == ["cat", "dog"]
    given = torch.load("mine.pth")
    assert torch.allclose(loaded.model.state_dict()["head.weight"].cpu(), given["head.weight"].flip(0), atol=1e-6)
    run("evaluate", "new", "-o", "table", "--num-images", "2", "--explainers", "gradcam", "--metrics", "coherency")
    assert (
        "48 x 48 px (the shorter side is resized, the center is kept), mean 0.4, 0.5, 0.6"
        in Path("table/report.md").read_text()
    )


@pytest.mark.filterwarnings("ignore:.*too few", "ignore:.*cannot be read")
def test_the_recommended_commands_leave_out_images_that_cannot_be_read(place) -> None:
    for name in ("cat", "dog"):
        Path("photos", name, "torn.png").write_bytes(b"torn")
    run(*GIVEN, "test=2", "val=2")
    advice = json.loads(Path("d.json").read_text())["recommendations"][0]
    run(*shlex.split(advice["first"])[1:])
    small = ["image_size=32", "stages=[{epochs: 1, lr: 0.001}]"]
    run(*shlex.split(advice["command"])[1:], *small, "--output", "new", "--no-evaluate")
    assert load_run("new", "cpu").run.facts["data"]["train"]["skipped"]


@pytest.mark.filterwarnings("ignore:.*too few")
def test_a_folder_is_taken_where_a_dataset_is_named(place) -> None:
    run(*["photos" if each == "folder" else each for each in GIVEN if each != "root=photos"], "masks=masks")
    found = json.loads(Path("d.json").read_text())
    assert found["facts"]["folder"] == "folder root=photos masks=masks"
    assert '"root": "photos"' in found["recommendations"][0]["command"]
    checked = CliRunner().invoke(app, ("data", "check", "photos", "test=1", "val=1"))
    assert "train: 2 classes: cat 4, dog 4" in checked.output
    run("masks", "export", "photos", "masks=masks", "--to", "coco", "-o", "masks.json")
    assert len(json.loads(Path("masks.json").read_text())["annotations"]) == 2 * PHOTOS
    run("masks", "photos", "--center", "-o", "found")
    assert list(Path("found").rglob("*.png"))
    given = ("--model", "sightline/small_cnn", "--weights", "mine.pth", "--data", "photos")
    run("evaluate", *given, "--explainers", "gradcam", "--metrics", "coherency", "-o", "table")
    run("explain", *given, "--store", "maps")
    assert Path("table/report.md").is_file()
    assert list(Path("maps").iterdir())


def test_a_model_must_be_named() -> None:
    done = CliRunner().invoke(app, ["diagnose", "--data", "digits"])
    assert isinstance(done.exception, sl.SightlineError)
    assert "no model was named" in str(done.exception)


@pytest.mark.filterwarnings("ignore:.*too few")
def test_classes_in_another_order_are_recognized_and_said(place) -> None:
    state = torch.load("mine.pth")
    state["head.weight"], state["head.bias"] = state["head.weight"].flip(0), state["head.bias"].flip(0)
    torch.save({"state_dict": state, "classes": ["dog", "cat"]}, "mine2.pth")
    run(*GIVEN, "masks=masks")
    first = json.loads(Path("d.json").read_text())
    with pytest.warns(UserWarning, match="in another order"):
        done = run(*[each.replace("mine.pth", "mine2.pth") for each in GIVEN], "masks=masks")
    assert "classes: 2: dog, cat" in done.stderr
    second = json.loads(Path("d.json").read_text())
    assert second["confusions"] == first["confusions"]
    assert second["measurements"]["accuracy"] == first["measurements"]["accuracy"]
