import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import sightline as sl
from sightline._core.fingerprint import fingerprint
from sightline.evaluation import evaluate
from sightline.evaluation.run_folder import read_run
from sightline.runs import Recipe, Run

EXPLAINERS = ("gradcam", "gaussian")
METRICS = ("accuracy", "worst_group_accuracy", "miou", "average_drop")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = Recipe(
        name="digits",
        data={"name": "digits", "copies": 1, "size": 32},
        image_size=32,
        model="sightline/small_cnn",
        batch_size=64,
        stages=[{"epochs": 1, "lr": 1e-3}],
        evaluation={"explainers": list(EXPLAINERS), "metrics": list(METRICS)},
    )
    return sl.train(recipe, output=tmp_path_factory.mktemp("runs") / "digits")


def test_a_run_is_evaluated_from_its_folder_and_read_by_the_report(run: Run) -> None:
    found = evaluate(run.path)
    read = read_run(run.path)
    assert set(found) == set(read.evaluations)
    for split, evaluation in found.items():
        assert split.startswith("test")
        written = read.evaluations[split]
        assert {key.column: value for key, value in written.results.items()} == {
            result.column: pytest.approx(result.value) for result in evaluation.results
        }
        assert written.n == evaluation.facts["n"] == len(written.samples.path)
        assert all(written.samples.path)
        assert len(written.gallery.index) == min(256, written.n)
        assert set(written.gallery.maps) == set(EXPLAINERS)


def test_the_values_are_those_of_the_checkpoint(run: Run, tmp_path: Path) -> None:
    broken = Run(tmp_path / "broken")
    (broken.path / "checkpoints").mkdir(parents=True)
    for file in ("recipe.yaml", "run.json"):
        shutil.copy(run.path / file, broken.path)
    state = load_file(run.last)
    save_file({name: torch.zeros_like(value) for name, value in state.items()}, broken.last)
    split, evaluation = next(iter(evaluate(broken, metrics=["accuracy"], explainers=["gaussian"]).items()))
    assert evaluation.samples["predicted"].unique().tolist() == [0]  # all logits are equal
    summaries = [
        json.loads((folder / "evaluation" / split / "summary.json").read_text()) for folder in (broken.path, run.path)
    ]
    assert summaries[0]["model_fingerprint"] != summaries[1]["model_fingerprint"]
    assert summaries[0]["data_fingerprint"] == summaries[1]["data_fingerprint"]


def test_the_fingerprint_follows_every_weight() -> None:
    model = torch.nn.BatchNorm1d(2)
    first = fingerprint(model)
    model.num_batches_tracked += 1
    assert fingerprint(model) != first
    model.num_batches_tracked -= 1
    assert fingerprint(model) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "best"}, "no checkpoint 'best'"),
        ({"checkpoint": "first"}, "'last' or 'best'"),
        ({"splits": ["tset"]}, "unknown split 'tset'"),
        ({"explainers": ["gradcan"]}, "did you mean 'gradcam'"),
    ],
)
def test_evaluate_invalid_arguments_raise(run: Run, options: dict, message: str) -> None:
    with pytest.raises(sl.SightlineError, match=message):
        evaluate(run, **options)


def test_a_folder_that_is_not_a_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(sl.SightlineError, match="is not a run folder"):
        evaluate(tmp_path)


def test_the_recipe_bounds_the_images_that_slow_metrics_see(run: Run, tmp_path: Path) -> None:
    few = Run(tmp_path / "few")
    shutil.copytree(run.path, few.path)
    recipe = yaml.safe_load((few.path / "recipe.yaml").read_text())
    recipe["evaluation"] |= {"max_images_slow": 2, "splits": ["test_shifted"]}
    (few.path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    asked = {"explainers": ["gaussian"], "metrics": ["energy_in_mask", "deletion"]}
    seen = {result.metric: result.n for result in evaluate(few, **asked)["test_shifted"].results}
    assert seen["deletion"] == 2 < seen["energy_in_mask"]
    assert evaluate(few, **asked, max_images_slow=3)["test_shifted"].facts["slow_n"] == 3
