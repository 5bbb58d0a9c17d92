"""Models of the current folder and of Hugging Face's folders, from the command line and in recipes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.io import write_png
from typer.testing import CliRunner

from networks import TinyCNN
from sightline import InputSpec, SightlineError, data, load_model
from sightline.cli.app import app
from sightline.models import open_model
from sightline.runs import read_recipe
from sightline.training.build import build

CODE = """
import torch
from torch import nn
from sightline import InputSpec

class Net(nn.Module):
    def __init__(self, num_classes=2):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, num_classes)
    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))

class Strict(Net):
    def __init__(self, n_classes):
        super().__init__(n_classes)

def with_spec():
    return Net(), InputSpec((0.1,) * 3, (0.2,) * 3, (20, 20))

def nothing():
    return 3

def failing():
    raise RuntimeError("no such thing")

def asking(width):
    return Net()
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"nets_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_class_and_a_function_of_the_current_folder_open(code: str) -> None:
    opened = open_model(f"{code}:Net", size=16)
    assert opened.count == 2
    assert opened.input_spec.size == (16, 16)
    assert "assumed to be that of ImageNet" in " ".join(opened.notes)
    assert open_model(f"{code}:with_spec").input_spec == InputSpec((0.1,) * 3, (0.2,) * 3, (20, 20))
    given = open_model(f"{code}:Net", size=16, mean=[0.5], std=[0.25, 0.5, 1])
    assert given.input_spec == InputSpec((0.5,) * 3, (0.25, 0.5, 1), (16, 16))
    assert not given.notes


def test_a_function_gets_the_number_of_classes_of_the_weights(code: str) -> None:
    model, _ = load_model(f"{code}:Strict", classes=5)
    save_file(model.state_dict(), "five.safetensors")
    opened = open_model(f"{code}:Strict", "five.safetensors", size=16)
    assert opened.count == 5
    assert torch.equal(opened.model.fc.weight, model.fc.weight)


def test_a_recipe_trains_a_function(code: str) -> None:
    changes = [
        "name=mine", "data={name: digits, copies: 1, size: 16}", f"model={code}:Net", "image_size=16",
        "stages=[{epochs: 1, lr: 0.01}]", "guide=null",
    ]  # fmt: skip
    recipe = read_recipe("demo-cross-entropy", changes)
    assert build(recipe).model.fc.out_features == len(recipe.data.create().classes)
    with pytest.raises(
        SightlineError, match=r"a model of 2 logits and .* are needed; give the function a parameter num_cl"
    ):
        build(read_recipe(recipe, [f"model={code}:with_spec"]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "returned int; expected an nn.Module"),
        ("failing", "failed: RuntimeError: no such thing"),
        ("asking", "needs width"),
        ("missing", "cannot be imported"),
    ],
)
def test_a_function_that_makes_no_model(code: str, name: str, words: str) -> None:
    with pytest.raises(SightlineError, match=words):
        open_model(f"{code}:{name}", size=16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": [123.7, 116.3, 103.5]}, "divide them by 255"),
        ({"std": [0.1, 0.2]}, "std has 2 values; expected one, or one for each of 3"),
        ({"classes": ["a", "b"]}, "names 2 classes; the model has 3"),
        ({"classes": "nowhere.txt"}, "there is no file 'nowhere.txt'"),
    ],
)
def test_values_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SightlineError, match=words):
        open_model(TinyCNN(), size=16, **options)


def test_a_size_that_the_model_refuses() -> None:
    model, _ = load_model("timm/test_vit", classes=2)
    with pytest.raises(SightlineError, match=r"does not take images of 40 x 40 pixels .* --size"):
        open_model(model, size=40)


def test_weights_of_a_library_model_must_be_named() -> None:
    with pytest.raises(SightlineError, match="weights were not given"):
        open_model("sightline/lenet5")


def hugging_face(folder: Path, **changes: Any) -> Any:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3,
        id2label={0: "cat", 1: "dog", 2: "emu"}, label2id={"cat": 0, "dog": 1, "emu": 2},
    )  # fmt: skip
    torch.manual_seed(0)
    model = ResNetForImageClassification(config).eval()
    model.save_pretrained(folder, **changes)
    values = {
        "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "do_normalize": True, "do_rescale": True,
        "rescale_factor": 1 / 255, "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return model


@pytest.mark.parametrize("changes", [{}, {"max_shard_size": "10KB"}])
def test_a_model_folder_of_hugging_face_opens(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = hugging_face(tmp_path, **changes)
    assert (tmp_path / "model.safetensors.index.json").exists() == bool(changes)
    opened = open_model(f"hf:{tmp_path}")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(opened.model(images).logits, model(images).logits)
    assert opened.classes == ["cat", "dog", "emu"]
    assert opened.input_spec == InputSpec((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), (32, 32))


def test_the_weights_of_a_folder_must_be_all_there(tmp_path: Path) -> None:
    model = hugging_face(tmp_path)
    state = {key: value for key, value in model.state_dict().items() if "classifier" not in key}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(SightlineError, match="2 are missing or of another shape, such as classifier"):
        open_model(f"hf:{tmp_path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SightlineError, match=r"has no config\.json"):
        open_model(f"hf:{tmp_path / 'empty'}")


def test_a_model_folder_of_timm_opens(tmp_path: Path) -> None:
    model, _ = load_model("timm/test_resnet", classes=3)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "test_resnet", "num_classes": 3, "label_names": ["a", "b", "c"],
        "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.3] * 3, "input_size": [3, 48, 48]},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    opened = open_model(f"hf:{tmp_path}")
    assert opened.input_spec == InputSpec((0.1,) * 3, (0.3,) * 3, (48, 48))
    assert opened.classes == ["a", "b", "c"]
    assert torch.equal(opened.model.fc.weight, model.fc.weight)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for each in range(8):
            image = torch.full((3, 16, 16), 20 + 60 * number + each, dtype=torch.uint8)
            write_png(image, str(tmp_path / "photos" / name / f"{each}.png"))
    return tmp_path / "photos"


def test_classes_in_another_order_are_matched_by_name(folder: Path) -> None:
    images = data.create_dataset("folder", root=str(folder), val=0, test=0.5)["test"]
    opened = open_model(TinyCNN(), size=16, classes=["cat", "ant", "bee"])
    with pytest.warns(UserWarning, match="in another order; they were matched by name"):
        matched = opened.match(images)
    assert [opened.names[matched[index].label] for index in range(len(images))] == [
        images.classes[images[index].label] for index in range(len(images))
    ]
    assert open_model(TinyCNN(), size=16).match(images) is images
    with pytest.raises(SightlineError, match=r"4 classes without names and the data has 3; .* --classes FILE"):
        open_model(TinyCNN(classes=4), size=16).match(images)


def test_every_command_takes_preprocessing_options_and_prints_them(folder: Path, code: str) -> None:
    Path("names.txt").write_text("cat\nant\nbee\n")
    model, _ = load_model(f"{code}:Net", classes=3)
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, "mine.pth")
    common = [
        "--model", f"{code}:Net", "--weights", "mine.pth", "--size", "24", "--mean", "0.5", "--std", "0.25",
        "--classes", "names.txt",
    ]  # fmt: skip
    options = [f"root={folder}", "val=0", "test=0.5"]
    with pytest.warns(UserWarning, match="in another order"):
        shown = CliRunner().invoke(app, ["diagnose", "--data", "folder", *options, *common, "-o", "d.html"])
    assert shown.exit_code == 0, shown.exception
    assert "24 x 24 px" in json.loads(Path("d.json").read_text())["facts"]["input"]
    explained = CliRunner().invoke(
        app, ["explain", str(folder / "ant" / "0.png"), *common, "--methods", "gradcam", "--layer", "conv"]
    )
    assert explained.exit_code == 0, explained.exception
    for done in (shown, explained):
        assert "input: 24 x 24 px (the shorter side is resized, the center is kept), mean 0.5, 0.5, 0.5" in done.output
        assert "classes: 3: cat, ant, bee" in done.output
        assert "'module.' was taken from the front of" in done.output
