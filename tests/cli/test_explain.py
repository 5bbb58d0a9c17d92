import json

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from sightline import SightlineError, load_model
from sightline.cli import app

NAME = "sightline/small_cnn"


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_noise((80, 60), 90).convert("RGB").save(path)
    return path


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model, _ = load_model(NAME, classes=3)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.fixture
def explain(photograph, tmp_path, monkeypatch):
    """Run the verb; gives the panel's figure, as it was saved."""
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))

    def run(*arguments, images=(photograph,)):
        output = tmp_path / "out" / "panel.png"
        done = CliRunner().invoke(app, ["explain", *map(str, images), *map(str, arguments), "-o", str(output)])
        if done.exception:
            raise done.exception
        assert done.output.strip().replace("\n", "") == str(output)
        with Image.open(output) as picture:
            assert picture.format == "PNG"
        return drawn[-1]

    return run


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def test_panel_of_several_methods(explain, weights, photograph):
    figure = explain("--model", NAME, "--weights", weights, "--methods", "gradcam,eigencam", images=[photograph] * 2)
    assert [a.get_title() for a in figure.axes] == ["image", "gradcam", "eigencam", "prediction", "", "", "", ""]
    assert figure.axes[0].get_xlabel() == "photo.png"
    shares = [float(t.rstrip("%")) for t in texts(figure)[1:6:2]]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert shares == sorted(shares, reverse=True)


def test_classes_from_a_file_and_a_target_by_name(explain, weights, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\nhen\n")
    options = ["--model", NAME, "--weights", weights, "--classes", tmp_path / "classes.txt", "--methods", "gradcam"]
    for target in ("dog", "1"):
        figure = explain(*options, "--target", target)
        assert {"cat", "dog", "hen"} < set(texts(figure))
        assert [t.get_text() for t in figure.axes[2].texts if t.get_weight() == "bold"] == ["dog"]


def test_imagenets_names_for_a_thousand_classes(explain, tmp_path):
    model, _ = load_model(NAME, classes=1000)
    save_file(model.state_dict(), tmp_path / "big.safetensors")
    figure = explain(
        "--model", NAME, "--weights", tmp_path / "big.safetensors", "--methods", "gradcam", "--target", "0"
    )
    assert "tench" in texts(figure)


def test_a_run_knows_its_model_and_classes(explain, weights, tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    weights.rename(folder / "checkpoints" / "last.safetensors")
    facts = {"classes": ["sky", "sea", "sand"], "model": {"name": NAME, "layer": None}}
    (folder / "run.json").write_text(
        json.dumps(facts | {"input_spec": {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [48, 48]}})
    )
    figure = explain("--run", folder, "--methods", "gradcam")
    assert {"sky", "sea", "sand"} < set(texts(figure))
    assert figure.axes[0].images[0].get_array().shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "explain needs a model"),
        (["--model", NAME], "--weights was not given"),
        (["--model", NAME, "--weights", "WEIGHTS", "--methods", "gradcan"], "did you mean 'gradcam'"),
        (["--model", NAME, "--weights", "WEIGHTS", "--target", "7"], "unknown class '7'"),
        (["--model", NAME, "--weights", "WEIGHTS", "--classes", "nowhere"], "there is no file 'nowhere'"),
        (["--run", "nowhere"], "nowhere is not a run folder"),
        (["--run", "nowhere", "--model", NAME], "a run knows its model"),
    ],
)
def test_bad_arguments(explain, weights, options, message):
    with pytest.raises(SightlineError, match=message):
        explain(*[weights if option == "WEIGHTS" else option for option in options])


def test_a_class_file_of_another_length(explain, weights, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(SightlineError, match="names 2 classes; the model has 3"):
        explain("--model", NAME, "--weights", weights, "--classes", tmp_path / "classes.txt")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_an_unreadable_image_is_named(explain, weights, tmp_path, content):
    broken = tmp_path / "broken.png"
    broken.write_bytes(content)
    with pytest.raises(SightlineError, match=f"cannot read the image {broken}"):
        explain("--model", NAME, "--weights", weights, images=[broken])


def test_a_missing_image_is_named(explain, weights, tmp_path):
    with pytest.raises(SightlineError, match=r"cannot read the image .*missing\.png"):
        explain("--model", NAME, "--weights", weights, images=[tmp_path / "missing.png"])
