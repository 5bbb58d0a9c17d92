"""Bad inputs: keys and values of recipes, and arguments of commands. Nothing may start, and no traceback may be shown."""

# ruff: noqa: E501

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import sightline.cli
from sightline import SightlineError, training
from sightline.runs import read_recipe

KEYS: dict[str, Any] = {
    "name": "digits",
    "data": {"name": "digits", "copies": 1, "size": 32},
    "image_size": 32,
    "model": "sightline/lenet5",
    "guide": "segment_overlap",
    "stages": [{"epochs": 1, "lr": 1e-3}],
}
OVERRIDES = [
    "data.val=abc", "data.size=abc", "data.size=1.5", "data.size=[32]", "data.size=null", "data.size=1", "data.copies=-1",
    "data.copies=yes", "data.seed=x", "data.seed=1000000000000000000000000000000", "data.nothing=1", "data=3", "data=null",
    "data=[digits]", "data={}", "data={name: 3}", "data={1: 2}", "data={name: digits, 1: 2}", "data=nothing",
    "data={name: folder, root: 3}", "data={name: folder, root: [a]}", "data={name: folder}", "data={name: folder, root: x, val: abc}",
    "data={name: csv, path: 7}", "data={name: coco, root: x, labels: 3}", "data={name: biased, source: digits, kind: 3}",
    "augment.crop=abc", "augment.crop=[1]", "augment.crop=0", "augment.crop=null", "augment.flip=maybe", "augment.jitter=x",
    "augment.size=1", "augment.zoom=1", "augment=3", "augment=crop", "augment={1: 2}",
    "guide.beta=[1]", "guide.beta=abc", "guide.beta=.nan", "guide.beta=.inf", "guide.views=[1]",
    "guide.views=1.5", "guide.nothing=1", "guide.scale=abc", "guide.scale=[1]", "guide=3", "guide=[3]", "guide={}",
    "guide={1: 2}", "guide={name: 3}", "guide=nothing", "guide={name: segment_overlap, 1: 2}", "guide=true",
    "guide.explainer=nothing", "guide.explainer=3",
    "seed=abc", "seed=-1", "seed=1.5", "seed=1000000000000000000000000000000", "seed=null", "seed=true",
    "image_size=0", "image_size=-8", "image_size=abc", "image_size=[32]", "image_size=32.5",
    "model=3", "model={}", "model={name: 3}", "model=nothing", "model=timm/nothing", "model.layer=3", "model.weights=3",
    "model.weights=nothing.pth", "model.nothing=1", "model={name: sightline/lenet5, 1: 2}",
    "stages=[]", "stages=3", "stages=null", "stages.0=3", "stages.0.epochs=0", "stages.0.epochs=abc", "stages.0.lr=0",
    "stages.0.lr=-1", "stages.0.lr=.nan", "stages.0.lr=.inf", "stages.0.lr=abc", "stages.0.trainable=some", "stages.0.guide=nothing",
    "stages.0.guide={name: segment_overlap, beta: x}", "stages.7.lr=1", "stages.x.lr=1", "stages.\u00b2.lr=1", "stages.-1.lr=1",
    "stages.99999999999999999999.lr=1", "stages.0.balance_by=x",
    "batch_size=0", "batch_size=abc", "batch_size=1.5", "batch_size=true", "gradient_accumulation=0", "num_workers=-1",
    "precision=8", "precision=[16]", "cache_images=1", "cache_images=x", "train_fraction=0", "train_fraction=2",
    "train_fraction=abc", "mask_fraction=-1", "mask_quality=x", "mask_quality={name: box, cells: 0}", "val_interval=0",
    "save_best=3", "save_best={metric: 3}", "save_best={metric: val/x}", "early_stopping=3",
    "early_stopping={metric: val/loss, mode: min, patience: x}", "optimizer=x", "optimizer.momentum=2", "schedule=x",
    "schedule.warmup=1", "evaluation=3", "evaluation.metrics=accuracy", "evaluation.metrics=[nothing]", "evaluation.explainers=[3]",
    "evaluation.explainers=[nothing]", "evaluation.splits=[nothing]", "evaluation.splits=3", "loggers=x", "loggers=[wandb, wandb]",
    "maps=3", "maps=nothing", "train_samples=nothing.csv", "train_samples=3", "name=a/b", "name=", "name=[a]", "nothing=1",
    "view_chunk=0", "grad_clip_norm=0", "grad_clip_norm=x",
    "data={", "data=[", "data=&a [*a]", "data=*a", "data=2026-13-45", "=1", "data", ".=1", "data.=1", ".data=1", "data..size=1",
    "guide=" + "[" * 60 + "]" * 60, "guide=" + "[" * 5000 + "]" * 5000, "guide=" + "{a: " * 60 + "1" + "}" * 60,
    ".".join(["guide"] + ["a"] * 3000) + "=1", "seed=" + "9" * 5000, "data={name: digits, name: pets}", "data=!!python/object:os.system x",
    "data=\x00",
]  # fmt: skip


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda text: text[:40].encode("unicode_escape").decode())
def test_a_recipe_with_one_bad_key_raises_before_a_run_exists(override: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(KEYS))
    with pytest.raises(SightlineError):
        training.train(str(path), [override], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def looped() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    "changes",
    [
        {1: 2}, {"guide": {1: 2}}, {"data": {2: "x"}}, {"guide": looped()}, {"augment": {"a": looped()}}, {"": 1}, {"seed": 10**5000},
        {"data": object()}, {"guide": object()}, {"model": object()}, {"stages": {0: {}}}, {"stages": "x"}, {"name": None},
    ],
    ids=lambda changes: str(list(changes))[:40],
)  # fmt: skip
def test_a_mapping_of_bad_changes(changes: dict[Any, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(KEYS))
    with pytest.raises(SightlineError):
        training.train(str(path), changes, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"3", b"- a", b"a: b", b"\xff\xfe", "name: caf\u00e9".encode("latin-1"), b"\x00", b"name: [", b"1: 2", b"a: &x [*x]",
        b"%YAML 9.9\n---\na: 1", b"a: 1\na: 2", b"---\na: 1\n---\nb: 2", b"a: !!python/name:os.system", b"? [a]\n: b", b"\t- a",
        b"[" * 5000, b"a: 2026-13-45", b"a: " + b"9" * 5000,
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_recipe(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(SightlineError):
        read_recipe(path)


COMMANDS = [
    "train nothing",
    "train {recipe} seed",
    "train {recipe} seed=x",
    "train {recipe} --devices 0",
    "train {binary}",
    "train {recipe} data.val=abc",
    "train {recipe} data.root=3",
    "train {recipe} augment.crop=abc",
    "train {recipe} guide.beta=[1]",
    "train {recipe} guide.views=[1]",
    "evaluate nothing",
    "evaluate {tmp}/lr=0.1",
    "evaluate seed=1",
    "evaluate --num-images 0",
    "explain",
    "explain {tmp}/none.png",
    "explain {image}",
    "explain {image} --model sightline/lenet5",
    "explain {image} --model sightline/lenet5 --weights {tmp}/none.pth",
    "explain {image} --model sightline/lenet5 --weights {weights} --classes {binary}",
    "explain {image} --model sightline/lenet5 --weights {weights} --classes {tmp}",
    "explain {image} --model sightline/lenet5 --weights {weights} --target \u00b2",
    "explain {image} --model sightline/lenet5 --weights {weights} --target -1",
    "explain {image} --model sightline/lenet5 --weights {weights} --target 10",
    "explain {image} --model sightline/lenet5 --weights {weights} --target 99999999999999999999999",
    "explain {image} --model sightline/lenet5 --weights {weights} --against \u00b2",
    "explain {image} --model sightline/lenet5 --weights {weights} --methods nothing",
    "masks digits --segmenter os:system",
    "masks digits --segmenter os",
    "masks digits --segmenter nothing:x",
    "masks digits --segmenter os:nothing",
    "masks nothing",
    "masks digits size=x",
    "data check",
    "data check nothing",
    "data check csv path={empty}",
    "data check csv path={binary}",
    "data check csv path=3",
    "data check folder root=3",
    "data check digits size=x",
    "data check digits 3",
    "data nothing",
    "nothing",
    "--nothing",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("inputs")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(KEYS))
    (folder / "binary").write_bytes(bytes(range(256)) * 4)
    (folder / "empty.csv").write_text("")
    (folder / "boxes.csv").write_text("path,x1,y1,x2,y2\na.jpg,1,1,2,2\n")
    Image.new("RGB", (40, 40), "red").save(folder / "image.png")
    torch.manual_seed(0)
    model, _ = sightline.load_model("sightline/lenet5", classes=10)
    save_file(model.state_dict(), folder / "weights.safetensors")
    return {
        "recipe": folder / "recipe.yaml", "binary": folder / "binary", "empty": folder / "empty.csv",
        "boxes": folder / "boxes.csv", "image": folder / "image.png", "weights": folder / "weights.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_with_bad_arguments_exits_with_a_message(
    line: str,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exit code is 2 (or 1 for findings), with a message; nothing else is raised."""
    monkeypatch.chdir(tmp_path)
    arguments = [part.format(tmp=tmp_path, **files) for part in line.split()]
    monkeypatch.setattr(sys, "argv", ["sightline", *arguments])
    with pytest.raises(SystemExit) as ended:
        sightline.cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert "error" in told.err.lower() or "usage" in told.err.lower()
