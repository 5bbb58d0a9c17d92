from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import sightline as sl
from sightline import SightlineError, evaluation
from sightline.cli.app import app
from sightline.evaluation.checkpoint import Conditions
from sightline.evaluation.comparison import ACCURACY, read_comparison
from sightline.reporting import comparison


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "b", "--against", "c", "d", "-o", "r.html"],
        ["a", "b", "-o", "r.html", "--against", "c", "d"],
        ["--against", "c", "d", "--output=r.html", "a", "b"],
        ["a", "b", "--against", "c", "--against", "d", "--output", "r.html"],
        ["a", "b", "--against=c", "d", "--output=r.html"],
    ],
)
def test_every_run_after_against_is_set_against(monkeypatch, arguments):
    calls = []
    monkeypatch.setattr(comparison, "compare", lambda *given, **_: calls.append(given) or given[-1])
    done = CliRunner().invoke(app, ["compare", *arguments])
    assert done.exit_code == 0, done.output
    assert calls == [([Path("a"), Path("b")], [Path("c"), Path("d")], Path("r.html"))]


@pytest.mark.parametrize("arguments", [["a"], ["a", "--against"], ["--against", "a"]])
def test_compare_without_one_side_ends_with_an_error(arguments):
    assert CliRunner().invoke(app, ["compare", *arguments]).exit_code == 2


def test_a_folder_that_is_not_a_run_is_named(tmp_path):
    done = CliRunner().invoke(app, ["compare", str(tmp_path), "--against", str(tmp_path / "b")])
    assert isinstance(done.exception, SightlineError)
    assert f"{tmp_path} is not a run folder" in str(done.exception)


def test_a_checkpoint_is_measured_as_the_run_was(tmp_path):
    recipe = sl.Recipe(
        name="digits", data={"name": "digits", "copies": 1, "size": 32}, image_size=32, model="sightline/lenet5",
        stages=[{"epochs": 1, "lr": 1e-3}],
    )  # fmt: skip
    run = sl.train(recipe, output=tmp_path / "run")
    evaluation.evaluate(run, ["test_shifted"], ["gaussian"], ["accuracy", "energy_in_mask"])
    weights = load_file(run.weights())
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "same.pth")
    with TemporaryDirectory() as folder:
        split = read_comparison([run.path], [tmp_path / "same.pth"], folder).splits[0]
        assert all(difference.value == 0 for difference in split.differences.values())
        assert len(split.differences) >= 2
    other = {key: torch.zeros_like(value) for key, value in weights.items()}
    torch.save(other, tmp_path / "zero.pth")
    page = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["compare", str(run.path), "--against", str(tmp_path / "zero.pth"), "-o", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "zero.pth is a checkpoint, so its training is not known." in text
    assert "The recipe of a checkpoint is not known." in text
    for given, words in (("zero.pth", "only checkpoints are given"), ("run", "is given twice")):
        with pytest.raises(SightlineError, match=words):
            comparison.compare([tmp_path / given], [tmp_path / ("same.pth" if given == "zero.pth" else given)], page)


def colored_squares(folder: Path) -> Path:
    """Images of two colors in class folders, with a file that cannot be read, and masks of their left halves."""
    random = np.random.default_rng(0)
    for kind, color in {"blue": (0, 0, 200), "red": (200, 0, 0)}.items():
        for number in range(6):
            pixels = np.clip(np.array(color) + random.normal(0, 20, (40, 40, 3)), 0, 255).astype(np.uint8)
            mask = np.zeros((40, 40), np.uint8)
            mask[:, :20] = 255
            for part, array in (("photos", pixels), ("masks", mask)):
                file = folder / part / kind / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file)
    (folder / "photos" / "red" / "torn.png").write_bytes(b"torn")
    return folder


def save_opposite_logits(file: Path, sign: float) -> None:
    """Save a random LeNet-5 of two classes whose first logit is minus the second; the other sign swaps them."""
    torch.manual_seed(1)
    model, _ = sl.load_model("sightline/lenet5", classes=2, size=32)
    state = model.state_dict()
    for key in list(state)[-2:]:
        state[key] = torch.stack([-sign * state[key][0], sign * state[key][0]])
    torch.save({"state_dict": state, "classes": ["blue", "red"]}, file)


def test_checkpoints_without_a_run_are_measured_on_named_images(tmp_path):
    folder = colored_squares(tmp_path)
    for name, sign in (("a", 1.0), ("b", -1.0)):
        (tmp_path / name).mkdir()
        save_opposite_logits(tmp_path / name / "best.pth", sign)
    page = tmp_path / "report.html"
    given = ["--model", "sightline/lenet5", "--size", "32", "--mean", "0.5", "--std", "0.25"]
    checkpoints = [str(tmp_path / "a" / "best.pth"), "--against", str(tmp_path / "b" / "best.pth")]
    data = ["--data", str(folder / "photos"), f"masks={folder / 'masks'}"]
    with pytest.warns(UserWarning, match="1 of 13 images cannot be read"):
        done = CliRunner().invoke(app, ["compare", *checkpoints, *given, *data, "-o", str(page)])
    assert done.exit_code == 0, (done.output, done.exception)
    text = page.read_text()
    assert "12 images in the split all images" in text
    assert "a/best.pth" in text
    assert "mean 0.5, 0.5, 0.5, std 0.25, 0.25, 0.25" in text
    conditions = Conditions("sightline/lenet5", folder / "photos", size=32, mean=[0.5], std=[0.25])
    with pytest.warns(UserWarning, match="1 of 13"), TemporaryDirectory() as work:
        found = read_comparison([tmp_path / "a" / "best.pth"], [tmp_path / "b" / "best.pth"], work, conditions)
    accuracy = found.splits[0].differences[ACCURACY]
    assert accuracy.ours[0] + accuracy.theirs[0] == pytest.approx(1)  # opposite logits give opposite answers


def test_a_model_that_always_gives_one_answer_is_at_chance(tmp_path):
    folder = colored_squares(tmp_path)
    (folder / "photos" / "green").mkdir()
    for number in range(6):
        Image.new("RGB", (40, 40), (number, 200, 0)).save(folder / "photos" / "green" / f"{number}.png")
    (folder / "photos" / "red" / "torn.png").unlink()
    for name in ("a", "b"):
        model, _ = sl.load_model("sightline/lenet5", classes=3, size=32)
        state = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
        torch.save(state, tmp_path / f"{name}.pth")
    conditions = Conditions("sightline/lenet5", folder / "photos", size=32)
    with TemporaryDirectory() as work:
        found = read_comparison([tmp_path / "a.pth"], [tmp_path / "b.pth"], work, conditions)
    difference = found.splits[0].differences[ACCURACY]
    assert difference.ours == pytest.approx([1 / 3])
    assert difference.by_chance


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "sightline/lenet5"], "need both their model and images"),
        (["--data", "digits"], "need both their model and images"),
        (["--size", "32"], "need both their model and images"),
        (["root=photos"], "no data is named; give --data NAME"),
        ([], "name their model and images by --model NAME --data folder root=FOLDER"),
        (["--model", "sightline/lenet5", "--data", "digits", "--mean", "a"], "--mean is 'a'; expected numbers"),
    ],
)
def test_checkpoints_without_a_run_and_data_raise_with_what_is_missing(tmp_path, arguments, words):
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    checkpoints = [str(tmp_path / "a.pth"), "--against", str(tmp_path / "b.pth")]
    done = CliRunner().invoke(app, ["compare", *checkpoints, *arguments])
    assert isinstance(done.exception, SightlineError)
    assert words in str(done.exception)


def test_a_run_has_a_model_and_images_of_its_own(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(SightlineError, match="is a run, which has its own"):
        comparison.compare([tmp_path / "run"], [tmp_path / "b.pth"], model="sightline/lenet5", data=tmp_path)
