"""Checkpoints as files: any suffix, old formats and Lightning open; the lines that convert what is refused do so."""

import argparse
import json
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor, nn

from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.models import load_model, open_model
from sightline.models.checkpoint import read_checkpoint

NAME = "sightline/lenet5"
State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    torch.manual_seed(7)
    return load_model(NAME, classes=3)[0].state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def loads(path: Path, state: State) -> None:
    model, _ = load_model(NAME, path)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


class Unknown(dict[str, Any]):
    """A class that is not known to torch.load."""


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: OrderedDict(s),
        *(lambda s, key=key: {key: s, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}
          for key in ("state_dict", "model", "model_state_dict", "net", "weights", "anything")),
        lambda s: {"checkpoint": {"model": s}},
        lambda s: [s, 3],
        *(lambda s, prefix=prefix: {"state_dict": prefixed(s, prefix)}
          for prefix in ("module.", "_orig_mod.", "model.", "net.", "backbone.", "module._orig_mod.", "_orig_mod.model.net.")),
        lambda s: prefixed(s, "module."),
        lambda s: {key.replace(".", "._orig_mod.", 1): value for key, value in s.items()},
        lambda s: {key: nn.Parameter(value) for key, value in s.items()},
        lambda s: {"state_dict": s, "state_dict_ema": dict(s)},
        lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1, path=Path("x"))},
        lambda s: {"state_dict": s, "hyper_parameters": Unknown(lr=0.1)},
        lambda s: s | {"total_ops": torch.zeros(1)},
    ],
)  # fmt: skip
def test_weights_are_found_wherever_they_are(tmp_path: Path, state: State, wrap: Any) -> None:
    torch.save(wrap(state), tmp_path / "mine.pth")
    loads(tmp_path / "mine.pth", state)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth.tar", ""])
def test_a_checkpoint_with_any_suffix_loads(tmp_path: Path, state: State, suffix: str) -> None:
    torch.save({"state_dict": state}, tmp_path / f"mine{suffix}")
    loads(tmp_path / f"mine{suffix}", state)


def test_a_checkpoint_of_torch_before_1_6_loads(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": prefixed(state, "module.")}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loads(tmp_path / "old.pth", state)


class Lit(LightningModule):
    def __init__(self, options: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = load_model(NAME, classes=3)[0]
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(3))


def test_a_checkpoint_of_lightning_loads(tmp_path: Path) -> None:
    module = Lit(argparse.Namespace(rate=0.1, folder=Path("a")))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "lit.ckpt")
    loads(tmp_path / "lit.ckpt", module.model.state_dict())


@pytest.mark.parametrize(
    "both",
    [
        lambda s, t: {"model": s, "ema": t},
        lambda s, t: {"state_dict": prefixed(s, "student.") | prefixed(t, "teacher.")},
        lambda s, t: s | prefixed(t, "ema."),
    ],
)
def test_two_sets_of_weights_are_never_guessed(tmp_path: Path, state: State, both: Any) -> None:
    other = {key: value + 1 for key, value in state.items()}
    torch.save(both(state, other), tmp_path / "both.pth")
    with pytest.raises(SightlineError, match=r"2 sets of weights .* fit the model") as refused:
        load_model(NAME, tmp_path / "both.pth")
    run: dict[str, Any] = {"torch": torch}  # the lines of the message keep one of them
    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    exec("\n".join(lines).replace("both-weights.pth", str(tmp_path / "one.pth")), run)
    kept = load_model(NAME, tmp_path / "one.pth")[0].state_dict()
    assert any(all(torch.equal(kept[key], each[key]) for key in state) for each in (state, other))


def test_shapes_tell_two_sets_of_weights_apart(tmp_path: Path, state: State) -> None:
    smaller = {key: value[:1] for key, value in state.items()}
    torch.save({"small": smaller, "model": state}, tmp_path / "both.pth")
    loads(tmp_path / "both.pth", state)


def explode() -> None:
    Path("exploded").touch()


class Bomb:
    def __init__(self, function: Any, *args: Any) -> None:
        self.calls = (function, args)

    def __reduce__(self) -> Any:
        return self.calls


def test_code_in_a_checkpoint_file_never_runs(tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state, "extra": Bomb(explode)}, "bomb.pth")
    loads(Path("bomb.pth"), state)
    for number, bomb in enumerate((Bomb(os.mkdir, "exploded"), Bomb(eval, "open('exploded', 'w')"))):
        torch.save({"state_dict": state, "extra": bomb}, f"bomb{number}.pth")
        with suppress(SightlineError):
            loads(Path(f"bomb{number}.pth"), state)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m, "epoch": 3}])
def test_a_whole_model_is_rejected_with_the_lines_that_convert_it(tmp_path: Path, wrap: Any) -> None:
    model = TinyCNN()
    torch.save(wrap(model), tmp_path / "whole.pt")
    with pytest.raises(SightlineError, match=r"whole pickled model \(networks.TinyCNN\)") as refused:
        open_model(TinyCNN(), tmp_path / "whole.pt", size=16)
    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    exec("\n".join(lines).replace("whole-weights.pth", str(tmp_path / "w.pth")), {"torch": torch})
    fresh = TinyCNN()
    open_model(fresh, tmp_path / "w.pth", size=16)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in fresh.state_dict().items())


def test_a_torchscript_program_is_rejected_with_its_lines(tmp_path: Path) -> None:
    model = TinyCNN().eval()
    torch.jit.trace(model, torch.zeros(1, 3, 16, 16)).save(str(tmp_path / "script.pt"))
    with pytest.raises(SightlineError, match="TorchScript") as refused:
        read_checkpoint(tmp_path / "script.pt")
    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    exec("\n".join(lines).replace("script-weights.pth", str(tmp_path / "w.pth")), {"torch": torch})
    open_model(TinyCNN(), tmp_path / "w.pth", size=16)


def test_a_folder_with_an_index_loads_and_a_missing_part_raises(tmp_path: Path, state: State) -> None:
    keys = sorted(state)
    for number, some in enumerate((keys[:3], keys[3:])):
        save_file({key: state[key] for key in some}, tmp_path / f"part{number}.safetensors")
    places = {key: f"part{int(number >= 3)}.safetensors" for number, key in enumerate(keys)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    loads(tmp_path, state)
    (tmp_path / "part1.safetensors").unlink()
    with pytest.raises(SightlineError, match=r"missing, such as part1\.safetensors"):
        load_model(NAME, tmp_path)
