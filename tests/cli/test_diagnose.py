"""`sightline diagnose` on a user's own checkpoint and class folder, and on a run."""

import json

import torch
from torchvision.io import write_png
from typer.testing import CliRunner

import sightline as sl
from sightline.cli.app import app


def test_a_torchvision_checkpoint_and_a_class_folder(tmp_path) -> None:
    for name in ("cat", "dog"):
        for kind in ("photos", "masks"):
            (tmp_path / kind / name).mkdir(parents=True)
        for number in range(4):
            write_png(
                torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8), str(tmp_path / f"photos/{name}/{number}.png")
            )
            mask = torch.zeros(1, 40, 40, dtype=torch.uint8)
            mask[:, 10:30, 10:30] = 255
            write_png(mask, str(tmp_path / f"masks/{name}/{number}.png"))
    model, _ = sl.load_model("torchvision/mobilenet_v3_small", classes=2)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    given = [
        "diagnose", "--data", "folder", f"root={tmp_path / 'photos'}", f"masks={tmp_path / 'masks'}", "val=0", "test=2",
        "--model", "torchvision/mobilenet_v3_small", "--weights", str(tmp_path / "mine.pth"), "-o", str(tmp_path / "d.html"),
    ]  # fmt: skip
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.exception
    assert "Cannot tell: Only 4 images" in done.output
    assert "the data set's masks" in done.output
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["answer"] == "cannot tell"
    assert found["recommendations"][0]["command"].startswith(
        "sightline train demo-cross-entropy name=random_background"
    )
    assert (tmp_path / "d.html").is_file()


def test_a_model_must_be_named() -> None:
    done = CliRunner().invoke(app, ["diagnose", "--data", "digits"])
    assert isinstance(done.exception, sl.SightlineError)
    assert "no model was named" in str(done.exception)
