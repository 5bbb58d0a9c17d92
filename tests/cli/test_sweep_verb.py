import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from sightline import SightlineError
from sightline.cli.app import app

KEYS = {
    "name": "digits",
    "data": {"name": "digits", "copies": 1, "size": 32},
    "image_size": 32,
    "model": "sightline/lenet5",
    "batch_size": 64,
    "augment": {"crop": 1.0, "flip": False},
    "cache_images": True,
    "stages": [{"epochs": 1, "lr": 1e-3}],
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(KEYS))
    return str(path)


@pytest.mark.slow
def test_sweep_over_a_recipe_of_digits_names_the_best_and_how_to_repeat_it(recipe, tmp_path):
    """Of two learning rates, one is too small to learn anything by."""
    output = tmp_path / "sweep"
    arguments = [
        recipe,
        "seed=1",
        "--over",
        "stages.0.lr=[1e-9, 3e-3]",
        "--metric",
        "val/loss",
        "--output",
        str(output),
    ]
    done = CliRunner().invoke(app, ["sweep", *arguments])
    assert done.exit_code == 0, done.output
    table, best = done.stdout.splitlines()
    assert table == str(output / "results.md")
    assert best.startswith("best: trial ")
    assert best.endswith(f", again by: sightline train {output / 'recipe.yaml'} stages.0.lr=0.003")
    assert sum(line.startswith("trial ") for line in done.stderr.splitlines()) == 2
    assert yaml.safe_load((output / "recipe.yaml").read_text())["seed"] == 1
    again = CliRunner().invoke(app, ["sweep", *arguments])
    assert again.stdout == done.stdout
    assert again.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RECIPE"], "no key changes"),
        (["RECIPE", "--over", "batch_size=[0, 2]"], "space.batch_size"),
        (["RECIPE", "--over", "batch_size=[2, 4]", "--metric", "test/accuracy"], "validation split"),
        (["RECIPE", "--over", "stages.0.lr={low: 1e-4, high: 1e-2}"], "a grid needs"),
        (["RECIPE", "--over", "stages.0.lr={low: 1e-4, high: 1e-2}", "--sampler", "tpe"], "trials is missing"),
    ],
)
def test_sweep_with_invalid_input_raises_sightline_error(recipe, arguments, words):
    done = CliRunner().invoke(app, ["sweep", *(recipe if each == "RECIPE" else each for each in arguments)])
    assert isinstance(done.exception, SightlineError)
    assert words in str(done.exception)


def test_without_optuna_the_extra_is_named(recipe):
    script = (
        f"import sys; sys.modules['optuna'] = None\nsys.argv = ['sightline', 'sweep', {recipe!r}, '--over', 'batch_size=[2, "
        "4]']\nfrom sightline.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("needs optuna, which is not installed: pip install 'sightline-xai[sweep]'")
