"""Tables of trained runs."""

import csv
import re
from pathlib import Path
from statistics import mean, stdev

import pytest

from sightline._core.strict import parse_mapping
from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.experiments import training_runs as training_runs_module
from sightline.runs import Run, read_recipe
from sightline.studies import load_study, read_study, run_study, shipped_studies
from sightline.studies.study import make_study
from sightline.training import train
from sightline.training.build import check_guides, check_names

PLAN = """
kind: training_runs
recipe: demo-cross-entropy
keys: {data.copies: 1, data.size: 32, image_size: 32, stages: [{epochs: 1, lr: 2.0e-3}], batch_size: 64}
variants:
  - {label: cross-entropy, keys: {guide: null}}
  - {label: "random, backgrounds", keys: {guide: random_background}}
seeds: [3, 4]
columns: [test_shifted/accuracy, test_shifted/energy_in_mask@gaussian]
paper_values: {cross-entropy: {test_shifted/accuracy: 0.5}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


@pytest.mark.slow
def test_the_table_is_what_train_and_evaluate_find_and_a_killed_study_resumes(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def training(recipe, output, **options):
        begun.append(output.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return train(recipe, output=output, **options)

    monkeypatch.setattr(training_runs_module, "train", training)
    with pytest.raises(KeyboardInterrupt):
        run_study(load_study(plan), tmp_path / "out")
    folder = run_study(load_study(plan), tmp_path / "out")
    assert begun == [
        "cross-entropy-seed3", "random__backgrounds-seed3",
        "random__backgrounds-seed3", "cross-entropy-seed4", "random__backgrounds-seed4",
    ]  # fmt: skip

    alone = train("demo-cross-entropy", [
        "data.copies=1", "data.size=32", "image_size=32", "stages=[{epochs: 1, lr: 2.0e-3}]", "batch_size=64", "seed=4",
    ], output=tmp_path / "alone")  # fmt: skip
    expected = evaluate(alone, ["test_shifted"], ["gaussian"], ["accuracy", "energy_in_mask"])["test_shifted"]
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    values = {(row["variant"], row["seed"], row["column"]): float(row["value"]) for row in table}
    assert values["cross-entropy", "4", "test_shifted/accuracy"] == pytest.approx(expected["accuracy"].value, abs=1e-5)
    energy = expected["energy_in_mask@gaussian"].value
    assert values["cross-entropy", "4", "test_shifted/energy_in_mask@gaussian"] == pytest.approx(energy, abs=1e-5)

    both = [values["random, backgrounds", seed, "test_shifted/accuracy"] for seed in "34"]
    report = (folder / "report.md").read_text()
    assert f"{mean(both):.3f} ± {stdev(both):.3f}" in report
    assert "[0.5]" in report
    assert "figure.png" in report
    assert (folder / "figure.png").is_file()
    assert Run(folder / "runs" / "cross-entropy-seed3").facts["status"] == "finished"


@pytest.mark.slow
def test_a_finished_study_takes_more_variants_seeds_and_columns_without_training_again(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["seeds=[3]", "variants=[{label: cross-entropy, keys: {guide: null}}]", "columns=[test_shifted/accuracy]"]
    run_study(load_study(plan, small), tmp_path / "out")
    weights = Run(tmp_path / "out" / "runs" / "cross-entropy-seed3").last.read_bytes()

    def training(recipe, output, **options):
        rows = len(Run(output).rows)
        run = train(recipe, output=output, **options)
        trained.append((output.name, len(run.rows) - rows))
        return run

    trained: list[tuple[str, int]] = []
    monkeypatch.setattr(training_runs_module, "train", training)
    folder = run_study(load_study(plan, [small[1], "seeds=[3, 4]", "variants.+=random_background"]), tmp_path / "out")
    assert trained == [
        ("cross-entropy-seed3", 0), ("random_background-seed3", 1), ("cross-entropy-seed4", 1), ("random_background-seed4", 1),
    ]  # fmt: skip
    assert Run(folder / "runs" / "cross-entropy-seed3").last.read_bytes() == weights
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    assert len(table) == 8  # two variants, seeds and columns
    trained.clear()
    run_study(load_study(plan, [small[1], "seeds=[4]", "variants.+=random_background", "title=of one seed"]), folder)
    assert trained == []
    assert (folder / "report.md").read_text().startswith("# of one seed\n")
    assert (folder / "study.yaml").read_text().count("of one seed") == 1


def study(**changes):
    keys = {
        "kind": "training_runs", "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
        "variants": [{"label": "a"}, {"label": "b", "seeds": 1}], "seeds": [0, 1], "columns": ["test/accuracy"],
    }  # fmt: skip
    return make_study(keys | changes)


def test_rows_cross_the_axes() -> None:
    crossed = study(grid=[[{"label": "x", "keys": {"image_size": 32}}, {"label": "y", "seeds": 1}]])
    assert [row.label for row in crossed.rows] == ["x, a", "x, b", "y, a", "y, b"]
    assert crossed.parts() == ["x, a/0", "x, b/0", "y, a/0", "y, b/0", "x, a/1"]
    assert crossed.rows[0].keys == {"image_size": 32}


def test_an_entry_of_the_grid_has_columns_of_its_own_and_a_row_can_be_the_papers_alone() -> None:
    grid = [[{"label": "x", "columns": ["test/accuracy"]}, {"label": "y", "columns": ["mixed/accuracy"]}]]
    table = study(
        grid=grid, variants=[{"label": "a"}, {"label": "AL", "seeds": 0}], seeds=[0],
        columns=["test/accuracy", "mixed/accuracy"], paper_values={"y, AL": {"mixed/accuracy": 0.801}},
    )  # fmt: skip
    assert table.parts() == ["x, a/0", "y, a/0"]
    assert [table.recipe_of(row).evaluation.splits for row in table.rows] == [["test"], ["test"], ["mixed"], ["mixed"]]
    part = training_runs_module.Part
    done = {
        "x, a/0": part(
            {"columns": ["test/accuracy"], "figures": {"test/accuracy": {"value": 0.5, "n": 9}}, "seconds": 1.0}
        ),
        "y, a/0": part(
            {"columns": ["mixed/accuracy"], "figures": {"mixed/accuracy": {"value": 0.25, "n": 9}}, "seconds": 1.0}
        ),
    }
    assert all(table.is_complete(name, each) for name, each in done.items())
    rows = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[3:5]]
        for line in table.summary(done).splitlines()
        if line.startswith("| ")
    }
    assert rows["x, a"] == ["0.500", ""]
    assert rows["y, a"] == ["", "0.250"]
    assert rows["y, AL"] == ["", "[0.801]"]
    with pytest.raises(SightlineError, match="none of the study's columns"):
        study(grid=[[{"label": "x", "columns": ["mixed/accuracy"]}]])


def test_differences_are_taken_from_the_first_arm_of_the_same_combination() -> None:
    crossed = study(grid=[[{"label": "x"}, {"label": "y"}]], variants=[{"label": "a"}, {"label": "b"}], seeds=[0, 1, 2])
    part = training_runs_module.Part
    found = {
        ("x, a", 0): 0.1, ("x, a", 1): 0.2, ("x, a", 2): 0.3, ("x, b", 0): 0.61, ("x, b", 1): 0.7, ("x, b", 2): 0.8,
        ("y, a", 0): 0.5, ("y, a", 1): 0.9, ("y, a", 2): 0.1, ("y, b", 0): 0.6, ("y, b", 1): 0.7, ("y, b", 2): 0.2,
    }  # fmt: skip
    done = {
        f"{row}/{seed}": part({"figures": {"test/accuracy": {"value": value, "n": 9}}, "seconds": 1.0})
        for (row, seed), value in found.items()
    }
    text = crossed.summary(done)
    assert "x, b, Accuracy ↑ (test): +0.489 to +0.518 (3 seeds)" in text  # 0.5033 ± 4.303 * 0.0058 / sqrt(3)
    assert "y, b," not in text.partition("Differences")[2]


def test_scale_takes_a_share_of_the_keys_that_shrink() -> None:
    less = study(scaled_keys=["stages.0.epochs"]).scaled(0.5)
    assert read_recipe("demo-cross-entropy").stages[0].epochs == 6
    assert less.keys == {"stages.0.epochs": 3}
    assert study().scaled(0.5).keys == {"train_fraction": 0.5}  # where none is named
    assert study(keys={"train_fraction": 0.4}).scaled(0.5).keys == {"train_fraction": 0.2}
    assert study().scaled(1) == study()
    with pytest.raises(SightlineError, match="'cache_images' in `scaled_keys` is True"):
        study(scaled_keys=["cache_images"]).scaled(0.5)


@pytest.mark.parametrize(("paper", "item"), [("so-loss", "table-1"), ("ec", "table-1")])
def test_a_table_on_full_data_sets_is_scaled_by_the_share_of_training_images(paper: str, item: str) -> None:
    full = read_study(paper, item)
    tenth = full.scaled(0.1)
    assert tenth.parts() == full.parts()
    for row, whole in zip(tenth.rows, full.rows):
        recipe = tenth.recipe_of(row)
        assert recipe.train_fraction == 0.1
        assert row == whole


def test_a_study_may_grow_by_variants_seeds_and_columns() -> None:
    variants = [{"label": "a"}, {"label": "b", "keys": {"guide": "energy"}}]
    before = study(variants=variants)
    more = study(
        variants=[*variants, {"label": "c"}], seeds=[0, 1, 2], columns=["test/miou@gradcam"], title="y", notes=["z"]
    )
    assert more.incompatibility(before) is None
    assert study(variants=variants[::-1]).incompatibility(before) is None
    assert "the variant 'c'" in before.incompatibility(more)
    heavier = study(variants=[variants[0], {"label": "b", "keys": {"guide": "l1"}}])
    assert heavier.incompatibility(before) == "the variant 'b' ({'guide': 'energy'} and {'guide': 'l1'})"
    assert "keys.image_size" in study(variants=variants, keys={"image_size": 32}).incompatibility(before)
    assert "recipe" in study(variants=variants, recipe="pets-plain").incompatibility(before)
    assert "seed" in study(variants=variants, seed=3).incompatibility(before)
    assert "outputs" in study(variants=variants, outputs=["unbiased_share"]).incompatibility(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": [{"label": "a"}, {"label": "a"}]}, "'a' is taken"),
        ({"paper_values": {"c": {"test/accuracy": 1.0}}}, "there is no row 'c'"),
        ({"columns": ["test/acuracy"]}, "unknown metric 'acuracy'"),
        ({"columns": ["accuracy"]}, "columns"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_training_runs_invalid_keys_raise(changes: dict, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        study(**changes)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batchsize": 3}, "batch_size"),
        ({"guide": [{"name": "segment_overlap", "beta": 0.5}, "attention_gate"]}, "in a sum, give weight="),
    ],
)
def test_a_wrong_recipe_key_is_met_before_anything_is_written(keys: dict, message: str, tmp_path: Path) -> None:
    wrong = study(variants=[{"label": "a"}, {"label": "b", "keys": keys}])
    with pytest.raises(SightlineError, match=message):
        run_study(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", list(shipped_studies()))
def test_shipped_table_recipes_are_valid(name: str) -> None:
    shipped = read_study(*name.split("/"))
    if isinstance(shipped, training_runs_module.TrainingRuns):
        for row in shipped.rows:
            check_guides(shipped.recipe_of(row))


def test_columns_empty_without_outputs_raises() -> None:
    with pytest.raises(SightlineError, match="there are no outputs either"):
        study(columns=[])
    assert study(columns=[], outputs=["accuracy_and_costs"]).columns == []


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([{"name": "fgsm_accuracy"}], "eps is missing"),
        ([{"name": "fgsm_accuracy", "eps": [0.1], "epsilon": 1}], "epsilon"),
        (["fgsm"], "fgsm_accuracy"),
        (["noise_curves"], "background_noise_accuracy is missing"),
    ],
)
def test_outputs_invalid_raise(outputs: list, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        study(outputs=outputs)


def test_outputs_survive_yaml() -> None:
    full = study(outputs=[{"name": "fgsm_accuracy", "eps": [0.1]}], steps=["train_first"])
    assert make_study(parse_mapping(full.to_yaml(), "study.yaml")) == full


def test_variant_using_unknown_step_raises() -> None:
    with pytest.raises(SightlineError, match="a uses 'masks', which is none of the steps"):
        study(variants=[{"label": "a", "uses": ["masks"]}])


@pytest.mark.parametrize("item", [name.partition("/")[2] for name in shipped_studies() if name.startswith("pets/")])
def test_every_arm_of_every_study_on_pets_is_a_recipe(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sightline.training.build.locate", lambda path, argument: Path(path)
    )  # the weights are not ours
    shipped = read_study("pets", item)
    for variant in shipped.rows:
        check_names(shipped.recipe_of(variant))


PAPER_RECIPES = ["so-loss", "ria", "ec-voc", "ec-stl10", "ec-iccnn", "impactx-mobilenet", "impactx-efficientnet-b2"]


@pytest.mark.parametrize("name", PAPER_RECIPES)
def test_recipes_of_the_papers_load_large_images_in_processes_of_their_own(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.num_workers > 0 or recipe.cache_images


def test_the_45_standard_deviations_of_table_1_are_printed_next_to_the_means() -> None:
    table = read_study("so-loss", "table-1")
    pairs = {row: values["test/accuracy"] for row, values in table.paper_values.items()}
    assert sum(isinstance(value, tuple) for value in pairs.values()) == 45
    assert len(pairs) == 60
    report = table.summary({})
    for row, value in pairs.items():
        shown = " ± ".join(repr(each) for each in value) if isinstance(value, tuple) else repr(value)
        assert re.search(rf"^\| {re.escape(row)} \|.*\[{re.escape(shown)}\]", report, re.MULTILINE), row
