import contextlib
import os
import pty
import re
import subprocess
import sys

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from run_folders import begin_run
from sightline import SightlineError, load_model
from sightline.cli.app import app

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
        assert done.stdout.strip().replace("\n", "") == str(output)
        with Image.open(output) as picture:
            assert picture.format == "PNG"
        return drawn[-1]

    return run


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def test_panel_has_a_column_per_method_and_sorted_predictions(explain, weights, photograph):
    figure = explain("--model", NAME, "--weights", weights, "--methods", "gradcam,eigencam", images=[photograph] * 2)
    assert [a.get_title() for a in figure.axes] == ["image", "gradcam", "eigencam", "prediction", "", "", "", ""]
    assert figure.axes[0].get_xlabel() == "photo.png"
    shares = [float(t.rstrip("%")) for t in texts(figure)[1:6:2]]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert shares == sorted(shares, reverse=True)


def test_bfloat16_draws_other_maps_of_the_same_prediction(explain, weights):
    options = ["--model", NAME, "--weights", weights, "--methods", "gradcam"]
    exact, rounded = (explain(*options, "--precision", precision) for precision in ("fp32", "bf16"))
    assert texts(exact) == texts(rounded)
    maps = [figure.axes[1].images[-1].get_array() for figure in (exact, rounded)]
    assert 0 < abs(maps[0].astype(float) - maps[1].astype(float)).max() < 0.2 * maps[0].max()


def test_target_by_name_or_index_uses_the_class_file(explain, weights, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\nhen\n")
    options = ["--model", NAME, "--weights", weights, "--classes", tmp_path / "classes.txt", "--methods", "gradcam"]
    for target in ("dog", "1"):
        figure = explain(*options, "--target", target)
        assert {"cat", "dog", "hen"} < set(texts(figure))
        assert [t.get_text() for t in figure.axes[2].texts if t.get_weight() == "bold"] == ["dog"]


def test_one_logit_is_two_classes(explain, tmp_path):
    torch.manual_seed(0)
    model, _ = load_model(NAME, classes=1)
    save_file(model.state_dict(), tmp_path / "one.safetensors")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    figure = explain(
        "--model", NAME, "--weights", tmp_path / "one.safetensors", "--classes", tmp_path / "classes.txt",
        "--methods", "gradcam", "--target", "cat",
    )  # fmt: skip
    assert {"cat", "dog"} < set(texts(figure))
    assert sum(float(text.rstrip("%")) for text in texts(figure) if text.endswith("%")) == pytest.approx(100, abs=0.2)
    assert [t.get_text() for t in figure.axes[2].texts if t.get_weight() == "bold"] == ["cat"]


def test_against_draws_the_map_of_the_contrast(explain, weights, tmp_path):
    """The picture of the contrast is that of its map, and swapping the two classes gives another one."""
    given = ("--model", NAME, "--weights", weights, "--methods", "gradcam", "--target", "1")

    def shown(*more):
        figure = explain(*given, *more)
        return figure.axes[1].images[-1].get_array()

    alone, against, following = shown(), shown("--against", "2"), shown("--against", "next")
    assert (alone != against).any()
    assert any((following == each).all() for each in (shown("--against", "0"), against))
    with pytest.raises(SightlineError, match="same class"):
        explain(*given, "--against", "1")


def test_imagenets_names_for_a_thousand_classes(explain, tmp_path):
    model, _ = load_model(NAME, classes=1000)
    save_file(model.state_dict(), tmp_path / "big.safetensors")
    figure = explain(
        "--model", NAME, "--weights", tmp_path / "big.safetensors", "--methods", "gradcam", "--target", "0"
    )
    assert "tench" in texts(figure)


def test_a_run_knows_its_model_and_classes(explain, weights, tmp_path):
    run = begin_run(tmp_path / "run", NAME, ["sky", "sea", "sand"], 48)
    weights.rename(run.last)
    figure = explain("--run", run.path, "--methods", "gradcam")
    assert {"sky", "sea", "sand"} < set(texts(figure))
    assert figure.axes[0].images[0].get_array().shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no model was named"),
        (["--model", NAME], "weights were not given"),
        (["--model", NAME, "--weights", "WEIGHTS", "--methods", "gradcan"], "did you mean 'gradcam'"),
        (["--model", NAME, "--weights", "WEIGHTS", "--target", "7"], "unknown class '7'"),
        (["--model", NAME, "--weights", "WEIGHTS", "--classes", "nowhere"], "there is no file 'nowhere'"),
        (
            ["--model", NAME, "--weights", "WEIGHTS", "--precision", "fp8"],
            "precision is 'fp8'; expected 'fp32' or 'bf16'",
        ),
        (["--run", "nowhere"], "nowhere is not a run folder"),
        (["--run", "nowhere", "--model", NAME], "a run knows its model"),
    ],
)
def test_explain_invalid_arguments_raise(explain, weights, options, message):
    with pytest.raises(SightlineError, match=message):
        explain(*[weights if option == "WEIGHTS" else option for option in options])


def test_a_class_file_of_another_length_raises(explain, weights, tmp_path):
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
    with pytest.raises(SightlineError, match=r"nothing at .*missing\.png"):
        explain("--model", NAME, "--weights", weights, images=[tmp_path / "missing.png"])


def test_the_maps_of_a_data_set_are_kept(tmp_path, weights):
    from sightline.data.map_store import MapStore

    data = sightline_data(tmp_path)
    options = [
        "--model",
        NAME,
        "--weights",
        str(weights),
        "--data",
        "folder",
        "--split",
        "train",
        "--methods",
        "layercam",
    ]
    for _ in range(2):  # the second time there is nothing left to do
        done = CliRunner().invoke(app, ["explain", f"root={data}", *options, "--store", str(tmp_path / "maps")])
        assert done.exit_code == 0, done.exception
    store = MapStore(tmp_path / "maps")
    assert store.finished.all()
    assert store.metadata["method"] == "layercam"
    assert store.read([0]).max() == 1


@pytest.mark.slow
def test_two_processes_fill_a_store_and_only_rank_0_logs(tmp_path, weights):
    from sightline.data.map_store import MapStore

    program = tmp_path / "command.py"  # a file, because the second process is started from it
    program.write_text("from sightline.cli import main\nmain()\n")
    options = ["--model", NAME, "--weights", weights, "--data", "folder", "--store", tmp_path / "maps", "--devices", 2]
    done = subprocess.run(
        [sys.executable, program, "explain", f"root={sightline_data(tmp_path)}", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'maps'}\n"
    assert MapStore(tmp_path / "maps").finished.all()


def sightline_data(tmp_path):
    """A folder a class, with one picture each in train and test."""
    for split in ("train", "test"):
        for name in ("cat", "dog", "hen"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            Image.effect_noise((60, 50), 90).convert("RGB").save(folder / "0.png")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "folder"], "--data was given without --store"),
        (["--store", "S"], "no dataset is named"),
        (["--store", "S", "--data", "folder", "--methods", "gradcam,layercam"], "names 2 methods"),
        (["--store", "S", "--data", "folder", "--target", "3"], "--target is '3'"),
        ([], "no image was given"),
    ],
)
def test_store_invalid_arguments_raise_and_write_nothing(weights, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["explain", "--model", NAME, "--weights", str(weights), *options])
    assert isinstance(done.exception, SightlineError)
    assert message in str(done.exception)
    assert not (tmp_path / "S").exists()


def test_a_method_that_is_not_defined_says_so_in_its_place(explain, tmp_path):
    model, _ = load_model("torchvision/mobilenet_v3_small", classes=3)
    save_file(model.state_dict(), tmp_path / "mobile.safetensors")
    options = ["--model", "torchvision/mobilenet_v3_small", "--weights", tmp_path / "mobile.safetensors"]
    figure = explain(*options, "--methods", "gradcam,guided_backprop")
    assert figure.axes[2].get_title() == "guided_backprop"
    assert [t.get_text() for t in figure.axes[2].texts] == ["not defined\nfor this model"]


@pytest.mark.slow
def test_many_images_show_their_progress_on_a_terminal(photograph, weights, tmp_path):
    """Counts of images, of each method and of all, as a person at a terminal sees them."""
    terminal, end = pty.openpty()
    arguments = [photograph] * 36 + ["--model", NAME, "--weights", weights, "--methods", "gradcam,eigencam"]
    start = [sys.executable, "-c", "from sightline.cli import main; main()"]
    command = [*start, "explain", *map(str, arguments), "-o", str(tmp_path / "panel.png")]
    done = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end, env={**os.environ, "COLUMNS": "100"})
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the command has ended
        while some := os.read(terminal, 65536):
            shown += some
    os.close(terminal)
    assert done.wait() == 0, shown.decode()
    text = shown.decode()
    counts = [int(count) for count in re.findall(r"(\d+)/72", text)]
    assert "explaining by" in text  # a bar is drawn ten times a second, so that a fast method may not be named
    assert counts == sorted(counts)
    assert counts[-1] == 72
    assert "drawing" in text


def test_a_folder_stands_for_its_images(explain, weights, tmp_path):
    (tmp_path / "many" / "inner").mkdir(parents=True)
    for name in ("b.png", "inner/a.jpg"):
        Image.effect_noise((40, 30), 90).convert("L").save(tmp_path / "many" / name)
    (tmp_path / "many" / "notes.txt").write_text("no image")
    figure = explain("--model", NAME, "--weights", weights, "--methods", "gradcam", images=[tmp_path / "many"])
    assert [axes.get_title() for axes in figure.axes] == ["image", "gradcam", "prediction", "", "", ""]  # two rows
