"""The loop from few labels to many, and its one step for a user's own images."""

import csv
from pathlib import Path

import pytest
import torch
import yaml
from torchvision.io import write_png
from typer.testing import CliRunner

from dots import KEYS, Dots
from sightline import load_model
from sightline.cli.app import app
from sightline.data.loader import create_loader
from sightline.datasets.derived.subset import read_list
from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.experiments import active_learning, columns
from sightline.runs import Run
from sightline.studies import run_study
from sightline.studies.plan import load_active_learning
from sightline.studies.study import make_study
from sightline.training import train

PLAN = {
    "kind": "active_learning",
    "variants": [
        "random",
        {"label": "Least sure", "name": "uncertainty"},
        {"label": "CEAL", "name": "ceal", "options": {"threshold": 9}},
        {"label": "Guided", "name": "random", "keys": {"guide": "random_background"}},
        "all",
    ],
    "step_fraction": 0.3,
    "rounds": 2,
    "seeds": [0, 1],
    "columns": ["test/accuracy", "test/miou@gaussian"],
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "dots.yaml"
    path.write_text(yaml.safe_dump(KEYS))
    return str(path)


@pytest.fixture
def plan(tmp_path: Path, recipe: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | {"recipe": recipe}))
    return path


@pytest.mark.slow
def test_the_loop_adds_what_its_variants_choose_and_resumes_after_a_kill(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    out = tmp_path / "out"

    def killed_training(*given, output, **options):
        begun.append(output.name)
        if len(begun) == 4:
            raise KeyboardInterrupt  # what to train on has been chosen
        return train(*given, output=output, **options)

    def killed_evaluation(run, *given, **options):
        if len(begun) == 2 and not (out / "parts" / "random-0-1.json").exists() and len(judged) == 1:
            judged.append("")
            raise KeyboardInterrupt  # the run is trained
        judged.append(run.path.name)
        return evaluate(run, *given, **options)

    judged: list[str] = []
    monkeypatch.setattr(active_learning, "train", killed_training)
    monkeypatch.setattr(columns, "evaluate", killed_evaluation)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_study(load_active_learning(plan), out)
    before = {path.name: path.read_bytes() for path in (out / "samples").iterdir()}
    run_study(load_active_learning(plan), out)
    first, second, third = "random-seed0-round0", "random-seed0-round1", "Least_sure-seed0-round1"
    assert begun[:5] == [first, second, second, third, third]
    assert len(begun) == 7 * 2 + 2  # round 0 is shared by three variants, not by the one that trains otherwise
    assert all((out / "samples" / name).read_bytes() == content for name, content in before.items())

    lists = {path.stem: read_list(path) for path in (out / "samples").iterdir()}
    start = lists["random-seed0-round0"]
    assert len(start) == 6
    assert {line.index for line in start} == {line.index for line in lists["Guided-seed0-round0"]}
    assert {line.index for line in start} != {line.index for line in lists["random-seed1-round0"]}
    assert [line.index for line in lists["all-seed0-round0"]] == list(range(20))
    for name in ("random-seed0-round1", "Least_sure-seed0-round1"):
        assert lists[name][:6] == start
        assert len({line.index for line in lists[name]}) == len(lists[name]) == 12
        assert all(line.round == 1 for line in lists[name][6:])
    pseudo = [line for line in lists["CEAL-seed0-round1"] if line.pseudo_label]
    assert {line.index for line in lists["CEAL-seed0-round1"]} == set(range(20))
    assert len(pseudo) == 8

    # The least sure are those of the model of the round before.
    model, spec = load_model("sightline/lenet5", Run(out / "runs" / "random-seed0-round0").last, 2, 32)
    left = sorted(set(range(20)) - {line.index for line in start})
    with torch.no_grad():
        images = torch.cat(
            [batch.images for batch in create_loader(Dots(20, 0), size=32, batch_size=4, train=False, indices=left)]
        )
        sure = model.eval()(spec.normalize(images)).softmax(1).max(1).values
    chosen = [line.index for line in lists["Least_sure-seed0-round1"][6:]]
    assert chosen == [left[place] for place in sure.argsort()[:6]]

    rows = list(csv.DictReader((out / "table.csv").open(newline="")))
    assert len(rows) == 2 * 2 * (4 * 2 + 1)
    expected = evaluate(out / "runs" / "CEAL-seed1-round1")["test"]
    (row,) = (
        r
        for r in rows
        if (r["variant"], r["seed"], r["round"], r["column"]) == ("CEAL", "1", "1", "test/miou@gaussian")
    )
    assert float(row["value"]) == pytest.approx(expected["miou@gaussian"].value, abs=1e-5)
    assert (row["labels"], row["pseudo_labels"], float(row["share"])) == ("12", "8", 0.6)
    right = sum(
        Dots(20, 0).labels[line.index] == (line.pseudo_label == "blue")
        for line in lists["CEAL-seed1-round1"]
        if line.pseudo_label
    )
    assert int(row["right_pseudo_labels"]) == right
    report = (out / "report.md").read_text()
    assert "− random" in report
    assert "CEAL: 8.0 a run" in report
    assert (out / "figure.png").is_file()

    done = len(begun)
    run_study(load_active_learning(plan), out)
    assert len(begun) == done


@pytest.mark.slow
def test_a_run_chooses_among_what_it_left_out_and_in_a_folder(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("index,pseudo_label\n0,\n1,\n10,\n11,\n12,blue\n")
    run = train(recipe, [f"train_samples={tmp_path / 'known.csv'}"], output=tmp_path / "run")
    for number in range(3):
        file = tmp_path / "pool" / "deep" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_png(torch.randint(0, 255, (3, 40, 50), dtype=torch.uint8), str(file))

    def ask(*words: str) -> list:
        result = CliRunner().invoke(app, ["acquire", str(run.path), *words, "-o", str(tmp_path / "next.csv")])
        assert result.exit_code == 0, result.output
        return read_list(tmp_path / "next.csv")

    lines = ask("--next", "5", "--strategy", "consistency", "explainer=xgradcam")
    assert len({line.index for line in lines}) == 5
    assert not {line.index for line in lines} & {0, 1, 10, 11}
    assert all(0 <= line.score <= 1 and line.round == 1 and line.path == f"dots/{line.index}.png" for line in lines)
    assert [line.score for line in lines] == sorted((line.score for line in lines), reverse=True)
    assert len(ask("--next", "99", "--strategy", "coreset")) == 16  # one of them was a pseudo_label
    found = ask("--next", "2", "--strategy", "random", "--pool", str(tmp_path / "pool"))
    assert {line.path for line in found} < {str(tmp_path / "pool" / "deep" / f"{n}.png") for n in range(3)}
    assert len(found) == 2


def test_the_options_make_the_study(recipe: str, plan: Path) -> None:
    study = load_active_learning(
        recipe, ["batch_size=4", "data.seed=3"], strategies=["random", "ceal"], seeds=2, rounds=3
    )
    assert study.keys == {"batch_size": 4, "data.seed": 3}
    assert [variant.label for variant in study.variants] == ["random", "ceal"]
    assert study.seeds == [0, 1]
    assert study.columns == ["test/accuracy", "test/miou@gradcam", "test/energy_in_mask@gradcam"]
    assert [study.share(number) for number in range(3)] == [0.3, 0.4, 0.5]
    assert study.parts()[:4] == ["random/0/0", "random/0/1", "random/0/2", "ceal/0/1"]
    every = load_active_learning(recipe)
    assert every.variants[0].name == "random"
    assert len(every.variants) == 6
    assert load_active_learning(plan, ["rounds=1"], seeds=1).parts() == ["random/0/0", "Guided/0/0", "all/0/0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ["rand"]}, "did you mean 'random'"),
        ({"variants": ["random", "random"]}, "the label 'random' is taken"),
        ({"variants": ["all", "random"]}, "compared with all, which chooses nothing"),
        ({"variants": [{"label": "a", "name": "ceal", "options": {"treshold": 1}}]}, "did you mean 'threshold'"),
        (
            {"variants": [{"label": "a", "name": "random", "keys": {"data.seed": 1}}]},
            "changes 'data.seed', which all variants",
        ),
        ({"keys": {"seed": 1}}, "'seed' is set for every run"),
        ({"rounds": 4}, "more than all training images"),
        ({"initial_fraction": 0.0}, "initial_fraction is 0.0"),
        ({"columns": ["test/accurate"]}, "did you mean 'accuracy'"),
    ],
)
def test_acquiring_study_invalid_keys_raise(recipe: str, changes: dict, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        make_study(PLAN | {"paper": "", "item": "x", "title": "x", "source": "", "recipe": recipe} | changes)


def test_acquire_command_rejects_options_that_exclude_each_other(recipe: str, tmp_path: Path) -> None:
    for words, message in [
        ([recipe, "--pool", "x"], "--pool was given without --next"),
        ([str(tmp_path), "--next", "3"], "--next needs one query strategy"),
        ([str(tmp_path), "--next", "3", "--strategy", "random,ceal"], "--next needs one query strategy"),
        (
            [str(tmp_path), "--next", "3", "--strategy", "random", "--rounds", "2"],
            "--rounds was given together with --next",
        ),
        ([str(tmp_path), "--next", "3", "--strategy", "random"], "is not a run folder"),
    ]:
        result = CliRunner().invoke(app, ["acquire", *words])
        assert message in str(result.exception)
