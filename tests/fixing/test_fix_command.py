"""`sightline fix` in one command."""

from pathlib import Path

import pytest
import torch
from cheats import SIZE, accuracy, cheating_model, write
from typer.testing import CliRunner

from sightline.cli.app import app

MODEL = """
from torch import nn

def make():
    first = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 64, 3, 2, 1), nn.ReLU())
    trunk = nn.Sequential(first, nn.Conv2d(64, 64, 3, 2, 1))
    return nn.Sequential(trunk, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
"""


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["fix", *arguments])
    return done.exit_code, f"{done.output}{done.exception or ''}"


def test_one_command_mends_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    seen, swapped = write(tmp_path / "seen", False, 12, 0), write(tmp_path / "swapped", True, 12, 1)
    (tmp_path / "reads_background.py").write_text(MODEL)
    torch.save({"state_dict": {f"module.{k}": v for k, v in cheating_model(seen).state_dict().items()}}, "mine.pth")
    given = [
        "--model",
        "reads_background:make",
        "--weights",
        "mine.pth",
        "--data",
        "seen/images",
        "--masks",
        "seen/masks",
    ]
    spec = ["--size", str(SIZE), "--mean", "0.5", "--std", "0.5", "--pretrained", "none"]
    code, output = run(*given, *spec, "-o", "fixed")
    assert code == 0, output
    assert "the accuracy rises from" in output
    assert f"input: {SIZE} x {SIZE} px" in output
    assert "mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5" in output
    assert "classes: 2" in output
    assert "'module.' was taken from the front" in output
    program = torch.export.load("fixed/model/model.pt2").module()
    assert accuracy(program, swapped) > 0.9
    code, output = run(*given, *spec, "-o", "fixed")
    assert code == 1
    assert "fixed is not empty; choose an empty folder" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --model NAME --weights FILE --data FOLDER"),
        (["--model", "timm/resnet18", "--data", "x", "--found", "--masks", "x"], "--found was given with --masks"),
        (["--model", "timm/resnet18", "--data", "x", "--found"], "weights were not given for timm/resnet18"),
    ],
)
def test_fix_missing_arguments_are_named(arguments: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = run(*arguments)
    assert code != 0
    assert message in output


def test_the_page_listens_at_the_given_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    seen = write(tmp_path / "seen", False, 4, 0)
    (tmp_path / "reads_grounds.py").write_text(MODEL)
    torch.save(cheating_model(seen).state_dict(), "mine.pth")
    given = ["--model", "reads_grounds:make", "--weights", "mine.pth", "--data", "seen/images", "--size", str(SIZE)]
    given += ["--mean", "0.5", "--std", "0.5", "--pretrained", "none"]
    code, output = run(*given, "--host", "203.0.113.1", "-o", "marked")  # kept for documentation: no machine has it
    assert code != 0
    assert "cannot serve at 203.0.113.1, port 8371" in output
