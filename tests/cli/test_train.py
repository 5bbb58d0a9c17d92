import subprocess
import sys

import pytest
import yaml

import sightline.cli
from sightline import evaluation
from sightline.runs import Run, shipped_recipes

KEYS = {
    "name": "digits",
    "data": {"name": "digits", "copies": 1, "size": 32},
    "image_size": 32,
    "model": "sightline/lenet5",
    "stages": [{"epochs": 1, "lr": 1e-3}],
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(KEYS))
    return str(path)


@pytest.fixture
def sightline_command(monkeypatch, capsys):
    """Run the command in this process: its exit code, stdout and stderr."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["sightline", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            sightline.cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return command


def test_train_writes_a_run_and_evaluates_it(recipe, tmp_path, sightline_command, monkeypatch):
    evaluated = []
    monkeypatch.setattr(evaluation, "evaluate", evaluated.append)
    code, out, _ = sightline_command("train", recipe, "seed=3", "guide=segment_overlap", "--output", tmp_path / "run")
    assert code == 0
    assert out.strip().replace("\n", "") == str(tmp_path / "run")
    facts = Run(tmp_path / "run").facts
    assert (facts["seed"], facts["guide"]) == (3, "segment_overlap")
    assert evaluated == [tmp_path / "run"]


def test_train_without_evaluation_and_resume(recipe, tmp_path, sightline_command, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", None)
    for _ in range(2):
        code, *_ = sightline_command("train", recipe, "--output", tmp_path / "run", "--no-evaluate", "--resume")
        assert code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "no-such-recipe"], "unknown recipe 'no-such-recipe'"),
        (["train", "none.yaml"], "there is no file 'none.yaml'"),
        (["train", "RECIPE", "stages.0.epoch=2"], "did you mean 'stages.0.epochs'"),
        (["train", "RECIPE", "epochs"], "key.sub=value"),
        (["train", "RECIPE", "guide=segment_overlp"], "segment_overlap"),
        (["train", "RECIPE", "--output", "FILE"], "exists already"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(recipe, sightline_command, arguments, words):
    arguments = [{"RECIPE": recipe, "FILE": recipe}.get(argument, argument) for argument in arguments]
    code, out, err = sightline_command(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert words in err


def test_a_run_that_fails_under_way_has_exit_code_1(recipe, tmp_path, sightline_command):
    code, _, err = sightline_command(
        "train", recipe, "optimizer=sgd", "stages.0.lr=1e38", "--output", tmp_path / "run", "--no-evaluate"
    )
    assert code == 1
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("explainers", ["gradcam", "differentiable"]),
        ("guides", ["segment_overlap"]),
        ("datasets", ["digits"]),
        ("models", ["sightline/small_cnn", "timm/"]),
        ("metrics", ["insertion"]),
        ("recipes", list(shipped_recipes())),
    ],
)
def test_list_shows_names_and_capabilities(sightline_command, monkeypatch, kind, words):
    monkeypatch.setenv("COLUMNS", "160")
    code, out, _ = sightline_command("list", kind)
    assert code == 0
    assert all(word in out for word in words)
    everything = sightline_command("list")[1]
    assert all(line in everything for line in out.splitlines())


def test_list_rejects_another_kind(sightline_command):
    code, _, err = sightline_command("list", "cams")
    assert code == 2
    assert "explainers" in err


def test_help_is_quick_because_it_imports_no_torch():
    script = (
        "import sys; sys.argv = ['sightline', '--help']\n"
        "from sightline.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'timm', 'numpy', 'matplotlib'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
    for verb in ("train", "evaluate", "explain", "compare", "list", "demo"):
        assert verb in output
