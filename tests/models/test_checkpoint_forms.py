"""Every form in which people save weights gives the same model, and what was unwrapped or renamed is said."""

import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.models import open_model
from sightline.models.checkpoint import read_checkpoint

NAME = "sightline/lenet5"


class Net(nn.Module):
    """A classifier of the user's own, whose names begin with `net.`."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.net(images))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Weights of a LeNet-5 with four classes."""
    return sl.load_model(NAME, classes=4)[0].state_dict()


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> OrderedDict:
    return OrderedDict((prefix + key, value) for key, value in state.items())


LIGHTNING = {"epoch": 3, "global_step": 9, "pytorch-lightning_version": "2.1", "optimizer_states": [{"state": {}}]}
FORMS = {
    "bare": (lambda s: s, ()),
    "state_dict": (lambda s: {"epoch": 1, "state_dict": s}, ("['state_dict']",)),
    "model": (lambda s: {"model": s, "args": SimpleNamespace(lr=1)}, ("['model']",)),
    "model_state_dict": (lambda s: {"model_state_dict": s, "loss": torch.tensor(1.0)}, ("['model_state_dict']",)),
    "net": (lambda s: {"net": s, "acc": 91.2}, ("['net']",)),
    "parallel": (lambda s: prefixed("module.", s), ("'module.' was taken from the front of 10 names",)),
    "compiled": (lambda s: prefixed("_orig_mod.", s), ()),
    "model.": (lambda s: prefixed("model.", s), ("'model.'",)),
    "net.": (lambda s: prefixed("net.", s), ("'net.'",)),
    "nested": (lambda s: {"model": prefixed("module._orig_mod.net.", s)}, ("['model']", "'module.net.'")),
    "lightning": (
        lambda s: LIGHTNING | {"state_dict": prefixed("model.", s) | {"criterion.weight": torch.ones(4)}},
        ("['state_dict']", "'model.'", "criterion.weight"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_weights_and_says_what_was_unwrapped(tmp_path, state, form):
    make, words = FORMS[form]
    path = tmp_path / ("w.ckpt" if form == "lightning" else "w.pth")
    torch.save(make(state), path)
    opened = open_model(NAME, path)
    assert opened.count == 4
    assert opened.model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in opened.model.state_dict().items())
    said = "\n".join(opened.describe())
    assert all(word in said for word in words)
    if not words:
        assert "taken from" not in said


def test_names_of_the_model_that_the_file_lacks_are_put_in_front(tmp_path):
    net = Net()
    whole = nn.Sequential(OrderedDict(backbone=Net()))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    opened = open_model(whole, tmp_path / "w.pth", size=16)
    assert torch.equal(whole.backbone.fc.weight, net.fc.weight)
    assert any("'backbone.' was put in front" in note for note in opened.notes)


def test_two_sets_of_weights_that_fit_are_not_guessed_between(tmp_path, state):
    other = {key: value + 1 for key, value in state.items()}
    torch.save({"model": state, "model_ema": other}, tmp_path / "w.pth")
    with pytest.raises(SightlineError, match=r"2 sets of weights .*\['model'\]; \['model_ema'\].*\n.*torch.load"):
        open_model(NAME, tmp_path / "w.pth")
    torch.save({"model": state, "model_ema": dict(state)}, tmp_path / "w.pth")  # alike: nothing to choose
    assert open_model(NAME, tmp_path / "w.pth").count == 4


@pytest.mark.parametrize("key", [None, "model"], ids=["bare", "inside"])
def test_a_whole_pickled_model_is_rejected_with_lines_that_convert_it(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    user = ModuleType("users_code")
    user.Net = Net
    monkeypatch.setitem(sys.modules, "users_code", user)
    net = Net()
    torch.save(net if key is None else {key: net, "epoch": 2}, "whole.pth")
    with pytest.raises(SightlineError, match="whole pickled model") as caught:
        open_model(Net(), "whole.pth")
    lines = str(caught.value).splitlines()[-2:]
    exec("\n".join(line.strip() for line in lines), {"torch": torch})
    fresh = Net()
    open_model(fresh, "whole-weights.pth", size=16)
    assert torch.equal(fresh.fc.weight, net.fc.weight)


def test_code_in_a_checkpoint_never_runs(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("it ran",))

    torch.save({"state_dict": {"fc.weight": torch.ones(1)}, "hook": Trap()}, tmp_path / "w.pth")
    with pytest.raises(SightlineError, match=r"does not fit|cannot read"):
        open_model(NAME, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [([1, 2], "holds no state dict"), ({"epoch": 1}, "no state dict .* 'epoch'"), ({}, "holds no state dict")],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(SightlineError, match=words):
        open_model(NAME, tmp_path / "w.pth")


def test_a_file_that_torch_did_not_write_is_not_to_be_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for start, words in ((b"<!DOCTYPE html>404", "a web page"), (b"\x93NUMPY\x01", "begins with b'.x93NUMPY")):
        (tmp_path / "w.pth").write_bytes(start)
        with pytest.raises(SightlineError, match=words) as caught:
            open_model(NAME, "w.pth")
        assert "weights_only=False" not in str(caught.value)


def test_a_pickle_of_arrays_is_rejected_with_lines_that_convert_it(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({key: value.numpy() for key, value in state.items()}))
    with pytest.raises(SightlineError, match=r"torch\.save did not write") as caught:
        open_model(NAME, "old.pkl")
    exec("\n".join(line.strip() for line in str(caught.value).splitlines()[-2:]), {})
    opened = open_model(NAME, "old-weights.pth")
    assert all(torch.equal(value, state[key]) for key, value in opened.model.state_dict().items())


def test_weights_that_do_not_fit_name_the_remedy(tmp_path, state):
    head = [key for key in state if state[key].shape[0] == 4]
    for change, words in (
        ({key: value for key, value in state.items() if key not in head}, "give the weights of the whole classifier"),
        ({key: value for key, value in state.items() if key.endswith("weight")}, "weights of this very architecture"),
        (Net().state_dict(), r"No name of the file \(net.0.weight, .* name the model"),
    ):
        torch.save(change, tmp_path / "w.pth")
        with pytest.raises(SightlineError, match=words):
            open_model(NAME, tmp_path / "w.pth")


def test_programs_are_rejected_with_lines_that_convert_them(tmp_path):
    torch.jit.trace(Net().eval(), torch.zeros(1, 3, 8, 8)).save(tmp_path / "w.pt")
    with pytest.raises(SightlineError, match=r"TorchScript program.*\n.*torch.jit.load.*\n.*torch.save"):
        open_model(NAME, tmp_path / "w.pt")
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(SightlineError, match="an ONNX program"):
        open_model(NAME, tmp_path / "w.onnx")


def test_class_names_next_to_the_weights_are_taken(tmp_path, state):
    names = {"ant": 1, "bee": 0, "cow": 3, "dog": 2}
    torch.save({"state_dict": state, "class_to_idx": names}, tmp_path / "w.pth")
    opened = open_model(NAME, tmp_path / "w.pth")
    assert opened.classes == ["bee", "ant", "dog", "cow"]
    assert any("names of the 4 classes" in note for note in opened.notes)


def test_a_checkpoint_folder_of_hugging_face_loads(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=16,
        id2label={0: "cat", 1: "dog", 2: "owl"}, label2id={"cat": 0, "dog": 1, "owl": 2},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"do_normalize": true, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2], "do_rescale": true,'
        ' "rescale_factor": 0.00392156862745098, "size": {"height": 32, "width": 32}}'
    )
    opened = open_model(f"hf:{tmp_path}")
    assert opened.classes == ["cat", "dog", "owl"]
    assert opened.input_spec.size == (32, 32)
    assert opened.input_spec.mean == pytest.approx((0.4, 0.5, 0.6))
    images = torch.rand(2, 3, 32, 32)
    found = opened.model(images)
    expected = model(pixel_values=images).logits
    assert torch.allclose(getattr(found, "logits", found), expected, atol=1e-5)


class Unpicklable:
    """An object that asks for code when it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.getenv, ("HOME",)


def test_printed_lines_that_convert_pickled_weights_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = Net()
    torch.save({"state_dict": net.state_dict(), "config": Unpicklable()}, "mine.pth")
    with pytest.raises(SightlineError, match="without running code") as refused:
        read_checkpoint(Path("mine.pth"))
    lines = [line.strip() for line in str(refused.value).splitlines() if line.startswith("  ")]
    exec("import torch\n" + "\n".join(lines))
    converted = torch.load("mine-weights.pth")
    assert all(value.equal(converted[name]) for name, value in net.state_dict().items())
