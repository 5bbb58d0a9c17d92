import csv
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import optuna
import pytest
import torch
from safetensors.torch import load_file
from swept import RECIPE, SPACE

from sightline.errors import RunFailedError, SightlineError
from sightline.runs import read_recipe
from sightline.sweeping import Sweep, storage, sweep
from sightline.sweeping.run import check_recipe
from sightline.training import train

PLANE = {"stages.0.lr": {"low": 0.003, "high": 0.007, "step": 0.002}, "batch_size": [2, 4]}


def bowl(recipe, epoch):
    """Best, 1, at lr = 0.005 and batch size 4, and the better the later."""
    return 1 - 1e4 * (recipe.stages[0].lr - 0.005) ** 2 - 0.01 * abs(recipe.batch_size - 4) - 0.1 * (3 - epoch)


def rows(folder):
    return list(csv.DictReader((folder / "results.csv").open(encoding="utf-8", newline="")))


def test_a_grid_tries_every_point_once_and_finds_the_best(made, closed_form, tmp_path):
    closed_form(bowl)
    outcome = sweep(made(space=PLANE), tmp_path / "sweep")
    found = rows(tmp_path / "sweep")
    points = {(row["stages.0.lr"], row["batch_size"]) for row in found}
    assert len(found) == len(points) == 6
    assert points == {(lr, size) for lr in ("0.003", "0.005", "0.007") for size in ("2", "4")}
    for row in found:
        value = 1 - 1e4 * (float(row["stages.0.lr"]) - 0.005) ** 2 - 0.01 * abs(int(row["batch_size"]) - 4)
        assert float(row["val/accuracy"]) == pytest.approx(value)
        assert (row["state"], row["epochs"], row["seconds"]) == ("complete", "3", "6.0")
    assert [float(row["val/accuracy"]) for row in found] == sorted(
        (float(r["val/accuracy"]) for r in found), reverse=True
    )
    assert outcome.best.params == {"stages.0.lr": 0.005, "batch_size": 4}
    assert outcome.conclusion.startswith(
        f"best: trial {found[0]['trial']}, val/accuracy 1.0000, again by: sightline train"
    )
    for name in ("sweep.yaml", "history.png", "slices.png"):
        assert (tmp_path / "sweep" / name).stat().st_size > 100
    page = (tmp_path / "sweep" / "results.md").read_text(encoding="utf-8")
    assert outcome.command in page
    assert page.count("| complete |") == 6


def test_the_smallest_loss_is_the_best(made, closed_form, tmp_path, monkeypatch):
    closed_form(bowl)
    monkeypatch.setattr("sightline.runs.run.Run.rows", property(lambda run: [  # the same rows under another name
        {**row, "val/loss": row["val/accuracy"]} for row in csv.DictReader((run.path / "metrics.csv").open())
    ] if (run.path / "metrics.csv").exists() else []))  # fmt: skip
    outcome = sweep(made(space=PLANE, metric="val/loss"), tmp_path / "sweep")
    assert outcome.best.params["batch_size"] == 2
    assert outcome.best.params["stages.0.lr"] in (0.003, 0.007)


def test_real_training_ranks_what_is_known_and_the_command_repeats_it(made, tmp_path):
    """The share of class 0 among validation images is the accuracy of a model that has seen class 0 alone."""
    outcome = sweep(made(), tmp_path / "sweep")
    assert [(trial.params["data.share"], trial.value) for trial in outcome.trials] == [
        (share, share) for share in (1.0, 0.75, 0.5, 0.25)
    ]
    best = tmp_path / "sweep" / outcome.best.run
    verb, _, recipe, *overrides = shlex.split(outcome.command)
    assert verb == "sightline"
    again = train(recipe, overrides, tmp_path / "again")
    weights = load_file(best / "checkpoints" / "last.safetensors")
    assert all(torch.equal(weights[key], value) for key, value in load_file(again.last).items())
    assert "epoch 3/3" in Path(f"{best}.log").read_text(encoding="utf-8")


def test_the_same_folder_again_adds_what_is_missing(made, closed_form, tmp_path):
    closed_form(bowl)
    wide = {"stages.0.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "batch_size": [2, 4, 8]}
    few = sweep(made(space=wide, sampler="random", trials=3), tmp_path / "sweep")
    more = sweep(made(space=wide, sampler="random", trials=8), tmp_path / "sweep")
    drawn = {trial.number: trial.params for trial in more.trials}
    assert len(drawn) == 8
    assert all(drawn[trial.number] == trial.params for trial in few.trials)
    rates = [params["stages.0.lr"] for params in drawn.values()]
    assert len(set(rates)) == 8  # a process that goes on does not draw the same numbers again
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    other = sweep(made(space=wide, sampler="random", trials=8), tmp_path / "other")
    assert {trial.number: trial.params for trial in other.trials} == drawn
    before = (tmp_path / "sweep" / "sweep.db").stat().st_mtime_ns
    assert sweep(made(space=wide, sampler="random", trials=8), tmp_path / "sweep").trials == more.trials
    assert (tmp_path / "sweep" / "sweep.db").stat().st_mtime_ns == before  # nothing was left to do


@pytest.mark.slow
def test_tpe_comes_close_to_the_best(made, closed_form, tmp_path):
    closed_form(lambda recipe, epoch: -((recipe.stages[0].lr - 0.3) ** 2))
    space = {"stages.0.lr": {"low": 0.001, "high": 1.0}}
    outcome = sweep(made(space=space, sampler="tpe", trials=25), tmp_path / "sweep")
    late = sorted(outcome.trials, key=lambda trial: trial.number)[15:]
    assert abs(outcome.best.params["stages.0.lr"] - 0.3) < 0.05
    assert sum(abs(trial.params["stages.0.lr"] - 0.3) < 0.15 for trial in late) >= 5  # of ten; two by chance


def test_a_trial_worse_than_the_median_is_pruned_and_recorded(made, closed_form, tmp_path):
    closed_form(bowl)
    space = {"stages.0.lr": {"low": 0.001, "high": 0.009, "step": 0.001}}
    outcome = sweep(made(space=space, pruning={"trials": 3, "epochs": 1}), tmp_path / "sweep")
    order = sorted(outcome.trials, key=lambda trial: trial.number)
    values = [1 - 1e4 * (trial.params["stages.0.lr"] - 0.005) ** 2 for trial in order]
    for place, (trial, value) in enumerate(zip(order, values)):
        seen = sorted(other - 0.1 for other in values[:place])  # at epoch 2, which every trial reached
        worse = place >= 3 and value - 0.1 < (seen[(place - 1) // 2] + seen[place // 2]) / 2
        assert trial.state == ("pruned" if worse else "complete")
        assert trial.epochs == (2 if worse else 3)
        assert trial.value == pytest.approx(value - 0.1 * worse)
    assert {trial.state for trial in order[3:]} == {"pruned", "complete"}
    assert outcome.best.params == {"stages.0.lr": 0.005}


def test_pruned_training_keeps_its_checkpoint(made, tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    outcome = sweep(made(trials=2), tmp_path / "sweep")
    pruned = outcome.trials[-1]
    assert (pruned.state, pruned.epochs, pruned.value) == ("pruned", 1, pruned.params["data.share"])
    assert "pruned after epoch 1" in (tmp_path / "sweep" / pruned.run / "run.json").read_text(encoding="utf-8")
    assert (tmp_path / "sweep" / pruned.run / "checkpoints" / "resume.safetensors").exists()


def test_a_failing_trial_is_recorded_and_ends_nothing(made, closed_form, tmp_path, capsys):
    def figure(recipe, epoch):
        if recipe.batch_size == 4:
            raise RuntimeError("out of memory | at batch size 4\nand more")
        return bowl(recipe, epoch)

    closed_form(figure)
    outcome = sweep(made(space={"batch_size": [2, 4, 8]}), tmp_path / "sweep")
    failed = outcome.trials[-1]
    assert [trial.state for trial in outcome.trials] == ["complete", "complete", "failed"]
    assert failed.params == {"batch_size": 4}
    assert failed.error == "RuntimeError: out of memory | at batch size 4"
    assert "Traceback" in (tmp_path / "sweep" / failed.log).read_text(encoding="utf-8")
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert f"trial {failed.number}  failed: RuntimeError: out of memory" in err


def test_where_every_trial_fails_the_first_error_is_named(made, closed_form, tmp_path):
    closed_form(lambda recipe, epoch: 1 / 0)
    with pytest.raises(RunFailedError, match=r"none of 4 trials .* ZeroDivisionError: division by zero .*0000\.log"):
        sweep(made(), tmp_path / "sweep")
    assert [row["state"] for row in rows(tmp_path / "sweep")] == ["failed"] * 4


def test_the_figure_is_that_of_the_selected_epoch(made, closed_form, tmp_path):
    closed_form(lambda recipe, epoch: {1: 0.2, 2: 0.7, 3: 0.6}[epoch] + recipe.batch_size / 100)
    select = RECIPE | {"save_best": {"metric": "val/accuracy"}}
    one = sweep(made(recipe=select, space={"batch_size": [2, 4]}), tmp_path / "selected")
    other = sweep(made(space={"batch_size": [2, 4]}), tmp_path / "last")
    assert [trial.value for trial in one.trials] == pytest.approx([0.74, 0.72])
    assert [trial.value for trial in other.trials] == pytest.approx([0.64, 0.62])


def test_an_interrupted_trial_resumes_in_its_folder(made, closed_form, tmp_path):
    begun = []

    def interrupted(recipe, epoch):
        begun.append((recipe.batch_size, epoch))
        if len(begun) == 5:
            raise KeyboardInterrupt
        return bowl(recipe, epoch)

    closed_form(interrupted)
    document = made(space={"batch_size": [2, 4]})
    with pytest.raises(KeyboardInterrupt):
        sweep(document, tmp_path / "sweep")
    outcome = sweep(document, tmp_path / "sweep")
    second = begun[3][0]
    assert begun == [
        (begun[0][0], 1),
        (begun[0][0], 2),
        (begun[0][0], 3),
        (second, 1),
        (second, 2),
        (second, 2),
        (second, 3),
    ]
    assert sorted(trial.number for trial in outcome.trials) == [0, 1]
    assert [trial.state for trial in outcome.trials] == ["complete", "complete"]
    assert sorted(path.name for path in (tmp_path / "sweep" / "trials").iterdir()) == [
        "0000",
        "0000.log",
        "0001",
        "0001.log",
    ]
    stored = storage.open_study(document, f"sqlite:///{tmp_path}/sweep/sweep.db").trials[-1]
    assert sorted(stored.intermediate_values) == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {"data.share": [0.25, 0.5]}}, "space.data.share.2"),
        ({"space": {"batch_size": [2]}}, "space."),
        ({"seed": 1}, "seed (0 and 1)"),
        ({"recipe": RECIPE | {"batch_size": 2}}, "recipe.batch_size (4 and 2)"),
        ({"name": "other"}, "name ('dots' and 'other')"),
    ],
)
def test_a_folder_of_another_sweep_is_rejected_by_name(made, closed_form, tmp_path, changes, words):
    closed_form(bowl)
    sweep(made(trials=1), tmp_path / "sweep")
    with pytest.raises(SightlineError, match="differs in") as caught:
        sweep(made(**changes), tmp_path / "sweep")
    assert words in str(caught.value)
    assert len(rows(tmp_path / "sweep")) == 1


def test_sweep_that_no_trial_could_survive_raises_before_a_folder_is_made(made, tmp_path):
    for changes, words in [
        ({"recipe": RECIPE | {"data": {"name": "dot"}}}, "dots"),
        ({"space": {"guide": [None, "segment_overlp"]}}, "space.guide: 'segment_overlp'"),
        ({"space": {"guide": [None, {"name": "segment_overlap", "beta": 2.0}]}}, "beta"),
        ({"metric": "val_shifted/accuracy"}, "val/accuracy"),
        ({"metric": "val/worst_group_accuracy"}, "val/accuracy"),
    ]:
        with pytest.raises(SightlineError) as caught:
            sweep(made(**changes), tmp_path / "sweep")
        assert words in str(caught.value)
        assert not (tmp_path / "sweep").exists()


def test_another_kind_of_folder_is_rejected(made, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SightlineError, match="is not the folder of a sweep"):
        sweep(made(), tmp_path)


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/a.db", "postgresql://me:secret@nowhere/db"])
def test_a_database_that_cannot_be_opened_is_named_without_its_password(made, tmp_path, url):
    with pytest.raises(SightlineError, match="storage") as caught:
        sweep(made(), tmp_path / "sweep", url)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "sweep").exists()


def test_a_shared_database_holds_several_sweeps_and_serves_several_folders(made, closed_form, tmp_path):
    closed_form(bowl)
    url = f"sqlite:///{tmp_path}/shared.db"
    sweep(made(trials=2), tmp_path / "one", url)
    sweep(made(name="dots-2", trials=1), tmp_path / "two", url)
    outcome = sweep(made(), tmp_path / "three", url)
    assert len(outcome.trials) == 4
    assert len(list((tmp_path / "three" / "trials").glob("*.log"))) == 2  # the others were made from the folder `one`
    with pytest.raises(SightlineError, match="--storage again"):
        sweep(made(), tmp_path / "three")
    with pytest.raises(SightlineError, match="holds a sweep 'dots' that differs in seed"):
        sweep(made(seed=1), tmp_path / "four", url)
    assert not (tmp_path / "four").exists()


@pytest.mark.filterwarnings("ignore:Heartbeat")
def test_a_trial_too_many_is_left_out(made, closed_form, tmp_path):
    """Two processes that begin the last trial at the same moment: the later one steps back."""
    closed_form(bowl)
    document = made()
    sweep(document, tmp_path / "sweep")
    study = storage.open_study(document, f"sqlite:///{tmp_path}/sweep/sweep.db")
    assert storage.distinct(storage.attempts(study)) == document.wanted
    surplus = study.ask()
    frozen = study.get_trials()[surplus.number]
    assert storage.is_surplus(frozen, study, document.wanted)
    assert not any(storage.is_surplus(trial, study, document.wanted) for trial in study.get_trials()[:4])
    surplus.set_user_attr("surplus", True)
    assert len(storage.attempts(study)) == 4


def command(*arguments):
    script = Path(__file__).with_name("swept.py")
    return [sys.executable, str(script), *map(str, arguments)]


@pytest.mark.slow
def test_a_killed_sweep_resumes_from_the_checkpoint(tmp_path):
    killed = subprocess.run(command(tmp_path / "sweep", 2, "0001"), capture_output=True, text=True, timeout=300)
    assert killed.returncode == -9, killed.stderr
    folder = tmp_path / "sweep" / "trials" / "0001"
    begun = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert len(begun) == 3  # the header and two epochs
    subprocess.run(command(tmp_path / "sweep", 2), check=True, timeout=300)
    assert (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[:3] == begun  # with the seconds of then
    found = {row["trial"]: row for row in rows(tmp_path / "sweep")}
    assert set(found) == {"0", "1"}
    assert [row["state"] for row in found.values()] == ["complete", "complete"]
    assert found["1"]["epochs"] == "3"
    recipe = read_recipe(folder / "recipe.yaml")
    whole = train(recipe, output=tmp_path / "whole")
    resumed = load_file(folder / "checkpoints" / "last.safetensors")
    assert all(torch.equal(resumed[key], value) for key, value in load_file(whole.last).items())


@pytest.mark.slow
def test_two_processes_share_the_trials(tmp_path):
    both = [subprocess.Popen(command(tmp_path / "sweep", 4), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    made = [line for words in said for line in words.splitlines() if line.startswith("trial ")]
    assert sorted(line.split()[1] for line in made) == ["0", "1", "2", "3"]  # each by one of them
    found = rows(tmp_path / "sweep")
    assert sorted(row["data.share"] for row in found) == ["0.25", "0.5", "0.75", "1.0"]
    assert all(float(row["val/accuracy"]) == float(row["data.share"]) for row in found)
    assert Sweep(name="dots", recipe=RECIPE, space=SPACE).wanted == len(found)


def test_a_validation_split_that_shares_the_shortcut_is_said(made):
    data = {"name": "digits", "size": 32, "copies": 1}
    digits = made(recipe=RECIPE | {"data": data}, space={"batch_size": [2, 4]})
    with pytest.warns(UserWarning, match=r"metric is val/accuracy.*metric=val_shifted/accuracy judges by others"):
        check_recipe(digits)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        check_recipe(digits.model_copy(update={"metric": "val_shifted/accuracy"}))
        check_recipe(made())  # no other split
