"""Bad inputs: arguments of commands that read a run, a data set or a study. A line says what is wrong; nothing is made."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from verbs import RECIPE

import sightline.cli
from sightline.training import train

sys.path.append(str(Path(__file__).parents[1] / "training"))
import tiny  # noqa: F401 - the data set `squares`

pytestmark = pytest.mark.slow
MODEL = "--model sightline/lenet5 --weights {weights}"
MODELS = [  # of the commands that take a model or a run
    "", "--run {tmp}/none", "--run {empty}", "--run {image}", "--run", "--model nothing", "--model timm/nothing",
    "--model sightline/lenet5 --weights {tmp}/none.pth", "--model sightline/lenet5 --weights {binary}",
    "--model sightline/lenet5 --weights {empty}", "--run {run} --model sightline/lenet5", "--run {run} --nothing",
]  # fmt: skip
ARGUMENTS: dict[str, list[str]] = {
    "boxes": [
        "", "nothing", "squares --detector nothing", "squares --detector os:system", "squares --detector saliency",
        "squares --detector saliency --model nothing", "squares --detector saliency --run {tmp}/none",
        "squares --detector saliency --run {image}", "squares --detector saliency --model sightline/lenet5 --weights {binary}",
        "squares --detector annotations", "squares --detector annotations --set file={tmp}/none.json",
        "squares --detector annotations --set file={binary}", "squares --detector annotations --set nothing=1",
        "squares --detector annotations --set file", "squares images=x", "squares size", "squares --split nothing",
        "squares --detector lost --set nothing=x --weights {binary}", "squares --num-workers -1", "squares --num-workers x",
        "squares --detector saliency --run {run} -o {tmp}/boxes.txt", "squares --detector saliency --run {run} -o {tmp}",
    ],
    "diagnose": [
        *MODELS, "--run {run} --data nothing", "--run {run} --data squares images=x", "--run {run} --split nothing",
        "--run {run} --samples 0", "--run {run} --samples x", "--run {run} --annotation nothing",
        "--run {run} --boxes {tmp}/none.csv", "--run {run} --boxes {binary}", "--run {run} --explainer nothing",
        "--run {run} --layer nothing", "--run {run} --layer \u00b2", "--run {run} -o {tmp}",
        "--run {run} --annotation saliency --saliency-model nothing",
        f"{MODEL} --data folder root={{empty}}", f"{MODEL} --data folder", f"{MODEL}",
    ],
    "audit": [
        "", "nothing", *(f"squares {each}" for each in MODELS if each), "squares images=x --run {run}", "squares",
        "squares --run {run} --split nothing", "squares --run {run} --reference-explainer nothing",
        "squares --run {run} --iterations 0", "squares --run {run} --iterations x", "squares --run {run} --num-workers -1",
        "squares --run {run} -o {image}", "folder root={empty} --run {run}",
    ],
    "export": [
        "", "{run}", "{tmp}/none -o {tmp}/new", "{empty} -o {tmp}/new", "{image} -o {tmp}/new", "{run} -o {image}",
        "{run} -o {filled}", "{run} -o {tmp}/new --formats nothing", "{run} -o {tmp}/new --formats",
        "{run} -o {tmp}/new --formats state-dict,nothing", "{run} -o {tmp}/new --formats ,",
    ],
    "leaderboard": [
        "", "{tmp}/none", "{empty}", "{image}", "{run}", "{binary}", "{empty} {run}", "{broken}",
    ],
    "compare": [
        "", "{run}", "--against {run}", "{tmp}/none --against {run}", "{run} --against {tmp}/none", "{run} --against {empty}",
        "{image} --against {run}", "{run} --against {run} -o {tmp}", "{run} --against {broken}", "{run} --against",
    ],
    "filters": [
        *MODELS, "{image}", "{tmp}/none.png --run {run}", "{binary} --run {run}", "--run {run} --count 1",
        "--run {run} --count x",
        "--run {run} --layer nothing", "--run {run} --groups 1", "--run {run} --groups 100000", "--run {run} --filters x",
        "--run {run} --filters 99999", "--run {run} --filters -1", "--run {run} --filters \u00b2", "--run {run} --columns 0",
        "--run {run} --style nothing", "--run {run} --threshold x", "--run {run} --threshold 2", "--run {run} --threshold nan",
        "--run {run} --split nothing", "--run {run} --data nothing", "--run {run} -o {tmp}", "--run {run} -o {tmp}/grid.txt",
    ],
    "list": ["nothing", "--nothing", "models nothing", "\u00b2", "-1"],
    "reproduce": [
        "", "lots", "nothing table-1", "lots nothing", "lots table-5.3 --scale 0", "lots table-5.3 --scale 2",
        "lots table-5.3 --scale x", "lots table-5.3 --scale nan", "lots table-5.3 nothing=1", "lots table-5.3 seed",
        "lots table-5.3 --output {image}", "lots ../../x", "../so-loss table-1", "\u00b2 \u00b2",
    ],
    "sweep": [
        "", "nothing", "{binary}", "{empty}", "{tmp}/none.yaml", "{recipe}", "{recipe} --over seed", "{recipe} --over seed=1",
        "{recipe} --over seed=[]", "{recipe} --over nothing=[1,2]", "{recipe} --over stages.0.lr=[x,y]",
        "{recipe} --over stages.9.lr=[1,2]", "{recipe} --over seed={{low:1}}", "{recipe} --over seed={{low:2,high:1}}",
        "{recipe} --over seed=[1,2] --metric nothing", "{recipe} --over seed=[1,2] --metric test/accuracy",
        "{recipe} --over seed=[1,2] --sampler nothing", "{recipe} --over seed=[1,2] --trials 0",
        "{recipe} --over seed=[1,2] --seed -1", "{recipe} --over seed=[1,2] --name a/b",
        "{recipe} --over seed=[1,2] --storage nothing", "{recipe} --over seed=[1,2] --storage sqlite:///{tmp}/no/x.db",
        "{recipe} --over seed=[1,2] --output {image}", "{recipe} data.images=x --over seed=[1,2]",
        "{recipe} seed --over seed=[1,2]",
    ],
    "acquire": [
        "", "nothing", "{binary}", "{empty}", "{recipe} --strategy nothing", "{recipe} --strategy ,", "{recipe} --rounds 0",
        "{recipe} --seeds 0", "{recipe} --initial-fraction 0", "{recipe} --initial-fraction 2", "{recipe} --initial-fraction x",
        "{recipe} --step-fraction 0", "{recipe} --step-fraction nan", "{recipe} --columns nothing",
        "{recipe} --columns test/nothing", "{recipe} --columns nowhere/accuracy", "{recipe} --output {image}",
        "{recipe} data.images=x", "{recipe} seed", "{tmp}/none --next 2", "{empty} --next 2", "{run} --next 0",
        "{run} --next x",
        "{run} --next 2 --strategy nothing", "{run} --next 2 --pool {tmp}/none", "{run} --next 2 --pool {empty}",
        "{run} --next 2 --pool {image}", "{recipe} --next 2",
    ],
    "rate": [
        "-o {tmp}/new", "{tmp}/none -o {tmp}/new --explainers gradcam,eigencam", "{run} -o {tmp}/new",
        "{run} -o {tmp}/new --explainers nothing,gradcam", "{run} -o {tmp}/new --explainers gradcam",
        "{run} {run} -o {tmp}/new --explainers gradcam,eigencam", "{run} {run} {run} -o {tmp}/new",
        "{run} -o {image} --explainers gradcam,eigencam", "{run} -o {tmp}/new --explainers gradcam,eigencam --images 0",
        "{run} -o {tmp}/new --explainers gradcam,eigencam --split nothing", "-o {tmp}/new --results", "-o {empty} --results",
        "-o {broken} --results", "-o {tmp}/new --export-batch {tmp}/batch", "-o {tmp}/new --import-batch {tmp}/none.csv",
        "-o {broken} --import-batch {binary}", "{run} -o {tmp}/new --port 99999", "{run} -o {tmp}/new --port x",
        "{empty} -o {tmp}/new --explainers gradcam,eigencam", "{image} -o {tmp}/new --explainers gradcam,eigencam",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "binary").write_bytes(bytes(range(256)) * 4)
    (folder / "empty").mkdir()
    (folder / "filled").mkdir()
    (folder / "filled" / "note.txt").write_text("mine")
    (folder / "broken").mkdir()
    for name in ("run.json", "study.yaml", "table.csv", "study.sqlite", "recipe.yaml"):
        (folder / "broken" / name).write_bytes(b"\xff{[" * 9)
    Image.new("RGB", (40, 40), "red").save(folder / "image.png")
    model, _ = sightline.load_model("sightline/lenet5", classes=2)
    save_file(model.state_dict(), folder / "weights.safetensors")
    torch.manual_seed(0)
    train(str(folder / "recipe.yaml"), [], folder / "run")
    names = {"recipe": "recipe.yaml", "image": "image.png", "weights": "weights.safetensors"}
    return {n: folder / names.get(n, n) for n in ("binary", "empty", "filled", "broken", "run", *names)}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_bad_arguments_end_with_one_line(
    command: str,
    given: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, line in enumerate(ARGUMENTS[command]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        arguments = [command, *(part.format(tmp=folder, **given) for part in line.split())]
        monkeypatch.setattr(sys, "argv", ["sightline", *arguments])
        with pytest.raises(SystemExit) as ended:
            sightline.cli.main()
        told = capsys.readouterr()
        assert ended.value.code in (1, 2), (line, told)
        assert "error" in told.err.lower() or "usage" in told.err.lower(), (line, told)
        assert "Traceback" not in told.err, (line, told)
        kept = [each for each in folder.rglob("*") if each.is_file() and not each.name.endswith(".lock")]
        assert not kept, (line, kept)


def test_there_are_many() -> None:
    assert sum(map(len, ARGUMENTS.values())) >= 200
