"""An exported model gives its logits to whoever does not have sightline."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.exporting import FORMATS, export_model, export_run, programs, writing
from sightline.models.gates import insert_gate, insert_pooling_gate
from sightline.models.two_branch import attach_two_branch
from sightline.network.input_spec import InputSpec
from sightline.runs import Run
from sightline.training import train

SPEC = InputSpec((0.5,) * 3, (0.25,) * 3, (16, 16))
CLASSES = ["cat", "dog", "bird"]

# What a person without sightline runs: the lines of model.json, where importing sightline is an error.
ELSEWHERE = """
import json, sys
sys.modules["sightline"] = None
import safetensors.torch, torch
facts = json.load(open("model.json"))
images = safetensors.torch.load_file(sys.argv[1])["images"]
answers = {}
for kind, lines in facts["load"].items():
    names = {}
    exec("\\n".join(lines), names)
    with torch.no_grad():
        answers[kind] = torch.as_tensor(names["model"](images.numpy() if kind == "onnx" else images))
safetensors.torch.save_file(answers, sys.argv[2])
assert sys.modules["sightline"] is None
"""


def ask_elsewhere(folder: Path, images: Tensor, tmp_path: Path) -> dict[str, Tensor]:
    """The logits by format, from a process of its own."""
    save_file({"images": images}, tmp_path / "images.safetensors")
    files = [str(tmp_path / "images.safetensors"), str(tmp_path / "answers.safetensors")]
    done = subprocess.run([sys.executable, "-I", "-c", ELSEWHERE, *files], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_file(files[1])


@pytest.fixture
def guided_run(tmp_path: Path) -> Run:
    recipe = {
        "name": "guided",
        "data": {"name": "digits", "copies": 1, "size": 32},
        "image_size": 32,
        "model": {"name": "timm/test_resnet", "layer": "layer3"},
        "guide": {"name": "segment_overlap", "beta": 0.5},
        "batch_size": 128,
        "stages": [{"epochs": 1, "lr": 1e-2}],
    }
    return train(sl.Recipe(**recipe), output=tmp_path / "run")


def test_a_guided_run_gives_the_same_logits_without_sightline(guided_run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX is not installed: pip install 'sightline-xai[export]'")
    folder = export_run(guided_run, tmp_path / "exported")
    facts = json.loads((folder / "model.json").read_text())
    model, spec = sl.load_model("timm/test_resnet", guided_run.last, 5, 32)
    assert facts["library"] == "timm"
    assert facts["classes"] == ["0", "1", "2", "3", "4"]
    assert (facts["mean"], facts["std"], facts["size"]) == (list(spec.mean), list(spec.std), [32, 32])
    assert facts["state_dict_needs"] is None
    assert all(len(lines) <= 3 for lines in facts["load"].values())
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()

    images = spec.normalize(torch.rand(4, 3, 32, 32))
    with torch.no_grad():
        expected = model.eval()(images)
    answers = ask_elsewhere(folder, images, tmp_path)
    assert answers.keys() == set(FORMATS)
    for logits in answers.values():
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("timm/test_vit", 32), ("torchvision/shufflenet_v2_x0_5", 64)])
def test_the_three_lines_make_the_librarys_own_model(name: str, size: int, tmp_path: Path) -> None:
    model, spec = sl.load_model(name, None, 3, size)
    export_model(model.train(), tmp_path / "out", ["state-dict"], name=name, input_spec=spec, classes=CLASSES)
    assert model.training
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = model.eval()(images)
    (logits,) = ask_elsewhere(tmp_path / "out", images, tmp_path).values()
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    ("key", "layer"), [("attention_gate", "layer2"), ("attention_pooling", None), ("attention_pooling", "layer2")]
)
def test_a_gated_model_says_that_its_state_dict_needs_sightline(
    key: str, layer: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX is not installed: pip install 'sightline-xai[export]'")
    model, spec = sl.load_model("timm/test_resnet", None, 3, 32)
    _, gate = insert_pooling_gate(model, layer) if key == "attention_pooling" else insert_gate(model, layer)
    nn.init.normal_(gate.weight)
    place = {module: name for name, module in model.named_modules()}[gate].rpartition(".")[0]
    folder = export_model(model, tmp_path / "out", name="timm/test_resnet", input_spec=spec, classes=CLASSES)
    facts = json.loads((folder / "model.json").read_text())
    assert f"{place}.{key}.bias, {place}.{key}.weight" in facts["state_dict_needs"]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.eval()(images)
        names: dict = {}
        monkeypatch.chdir(folder)
        exec("\n".join(facts["load"].pop("state-dict")), names)
        torch.testing.assert_close(names["model"](images), expected)
    with pytest.raises(RuntimeError, match=key):  # and nobody loads it as if the gate were not there
        sl.load_model("timm/test_resnet", None, 3, 32)[0].load_state_dict(load_file("model.safetensors"))
    Path("model.json").write_text(json.dumps(facts))
    answers = ask_elsewhere(folder, images, tmp_path)
    assert answers.keys() == {"torch-export", "onnx"}
    for logits in answers.values():
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_one_logit_goes_with_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, spec = sl.load_model("timm/test_resnet", None, 1, 32)
    with pytest.raises(SightlineError, match="classes names 1 classes; the model has one logit, for two classes"):
        export_model(model, tmp_path / "no", ["state-dict"], name="timm/test_resnet", input_spec=spec, classes=["dog"])
    formats = ["state-dict", "torch-export"]
    folder = export_model(
        model, tmp_path / "out", formats, name="timm/test_resnet", input_spec=spec, classes=["cat", "dog"]
    )
    facts = json.loads((folder / "model.json").read_text())
    assert facts["classes"] == ["cat", "dog"]
    assert facts["one_logit"] == "sigmoid(logits) is the probability of 'dog'"
    images = torch.randn(2, 3, 32, 32)
    monkeypatch.chdir(folder)
    with torch.no_grad():
        expected = model.eval()(images)
        for kind in formats:
            names: dict = {}
            exec("\n".join(facts["load"][kind]), names)
            torch.testing.assert_close(names["model"](images), expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_explains_itself_gives_its_map_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX is not installed: pip install 'sightline-xai[export]'")
    model, spec = sl.load_model("sightline/lenet5", None, 3, 32)
    branch = attach_two_branch(model, 32)
    folder = export_model(model, tmp_path / "out", name="sightline/lenet5", input_spec=spec, classes=CLASSES)
    facts = json.loads((folder / "model.json").read_text())
    assert facts["outputs"] == ["logits", "maps"]
    images = torch.randn(3, 3, 32, 32)
    model.eval()
    with torch.no_grad():
        expected = model(images), branch.decoder(branch.lep(images))
    monkeypatch.chdir(folder)
    for kind in ("torch-export", "onnx"):
        names: dict = {}
        exec("\n".join(facts["load"][kind]), names)
        found = names["model"](images.numpy() if kind == "onnx" else images)
        for tensor, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(torch.as_tensor(tensor), wanted, rtol=1e-4, atol=1e-5)


def test_weights_beyond_the_limit_of_a_protobuf_are_next_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX is not installed: pip install 'sightline-xai[export]'")
    monkeypatch.setattr(programs, "PROTOBUF_LIMIT", 0)
    folder = export_model(TinyCNN(), tmp_path / "out", ["onnx"], input_spec=SPEC, classes=CLASSES)
    assert sorted(file.name for file in folder.iterdir()) == ["model.json", "model.onnx", "model.onnx.data"]


class Branching(TinyCNN):
    """Does something else for bright images, which no program of fixed operations can."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Noisy(TinyCNN):
    """Never gives the same logits twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, training=True))


@pytest.mark.parametrize(
    ("model", "message"),
    [(Branching, "format 'torch-export' cannot express this model"), (Noisy, "logits for 1 images are off by")],
)
def test_a_failed_export_leaves_nothing(model: type[TinyCNN], message: str, tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match=message):
        export_model(model(), tmp_path / "out", ["state-dict", "torch-export"], input_spec=SPEC, classes=CLASSES)
    assert not list(tmp_path.iterdir())


def test_a_kill_leaves_nothing_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "model_card", die)
    with pytest.raises(KeyboardInterrupt):
        export_model(TinyCNN(), tmp_path / "out", ["state-dict"], input_spec=SPEC, classes=CLASSES)
    monkeypatch.undo()
    (tmp_path / ".out.tmp").mkdir()  # as a power cut leaves it
    (tmp_path / ".out.tmp" / "model.onnx").write_bytes(b"half")
    export_model(TinyCNN(), tmp_path / "out", ["state-dict"], input_spec=SPEC, classes=CLASSES)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["model.json", "model.safetensors"]
    assert not (tmp_path / ".out.tmp").exists()


def test_export_model_invalid_arguments_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(formats: tuple[str, ...] = ("state-dict",), classes: list[str] = CLASSES) -> None:
        export_model(TinyCNN(), tmp_path / "out", formats, input_spec=SPEC, classes=classes)

    with pytest.raises(SightlineError, match="did you mean 'torch-export'"):
        export(("torch_export",))
    with pytest.raises(SightlineError, match="formats is empty"):
        export(())
    with pytest.raises(SightlineError, match="classes names 2 classes; the model has 3 logits"):
        export(classes=CLASSES[:2])
    with pytest.raises(SightlineError, match="is not a run folder"):
        export_run(tmp_path / "nowhere", tmp_path / "out")
    monkeypatch.setattr(writing, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(SightlineError, match=r"'onnx' needs onnxscript, .*: pip install 'sightline-xai\[export\]'"):
        export(("state-dict", "onnx"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(SightlineError, match="is not empty"):
        export()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
