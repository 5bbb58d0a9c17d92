"""Which training images a guide that reweights puts first, pass by pass."""

import csv
from itertools import permutations
from pathlib import Path
from statistics import fmean

import pytest
import torch

from sightline.data import DATASETS
from sightline.errors import SightlineError
from sightline.experiments import training_runs as training_runs_module
from sightline.experiments.outputs.unbiased_share import WeightRecorder, chance_spread, unbiased_images, unbiased_share
from sightline.runs import Run
from sightline.studies import read_study, run_study
from sightline.studies.run import StudyFolder
from sightline.studies.study import make_study
from sightline.training import train

DIGITS = {"name": "digits", "copies": 1, "size": 32}
KEYS = {
    "data": {"name": "biased", "source": DIGITS, "bias": "brighter"}, "image_size": 32, "batch_size": 64, "cache_images": True,
    "stages": [{"epochs": 3, "lr": 2e-3}],
}  # fmt: skip
HNM = {"label": "HNM", "keys": {"guide": {"name": "hard_negative_mining", "interval": 1}}}
OURS = {"label": "ours", "keys": {"guide": {"name": "explanation_consistency", "interval": 2}}}


def study(**changes):
    keys = {
        "kind": "training_runs", "outputs": ["unbiased_share"],
        "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
        "columns": ["test_shifted/accuracy"],
        "keys": KEYS, "variants": [HNM, OURS], "seeds": [0],
    }  # fmt: skip
    return make_study(keys | changes)


# ---- the share ----


def test_the_share_counts_the_images_of_the_highest_weights() -> None:
    weights = torch.tensor([0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.0, 0.0, 0.0, 0.0])
    unbiased = torch.tensor([True, True, False, False, True, False, True, False, False, False])
    assert unbiased_share(weights, unbiased, 0.2) == 0.5  # of 0.9 and 0.8, one
    assert unbiased_share(weights, unbiased, 0.3) == pytest.approx(2 / 3)
    assert unbiased_share(weights, unbiased, 0.01) == 1.0  # at least one image


def test_ties_count_by_the_mean_over_all_ways_to_order_them() -> None:
    weights = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.1])
    unbiased = torch.tensor([False, True, False, True, True])
    orders = [[0, *middle, 4] for middle in permutations([1, 2, 3])]
    for top in (0.2, 0.4, 0.6, 0.8):
        count = round(top * 5)
        expected = fmean(float(unbiased[order[:count]].float().mean()) for order in orders)
        assert unbiased_share(weights, unbiased, top) == pytest.approx(expected)
    assert unbiased_share(torch.ones(5), unbiased, 0.4) == pytest.approx(3 / 5)  # equal weights are chance


def test_the_spread_of_chance_is_that_of_draws() -> None:
    unbiased = torch.arange(50) < 10
    drawn = torch.stack([unbiased[torch.randperm(50)[:10]].float().mean() for _ in range(20_000)])
    assert chance_spread(50, 0.2, 0.2) == pytest.approx(float(drawn.std()), rel=0.03)


def test_unbiased_are_what_the_bias_spared_or_what_stands_on_another_background() -> None:
    biased = DATASETS.create("biased", source=DIGITS, bias="darker")["train"]
    assert torch.equal(unbiased_images(biased), ~biased.biased)
    scenes = DATASETS.create(**DIGITS)["train"]
    names = [scenes.groups[group] for group in scenes.group_ids]
    expected = torch.tensor([name.split()[0] != name.split()[2] for name in names])
    assert torch.equal(unbiased_images(scenes), expected)
    with pytest.raises(SightlineError, match=r"0 of .*correlation"):
        unbiased_images(DATASETS.create(**DIGITS, correlation=1.0)["train"])
    with pytest.raises(SightlineError, match="'biased'"):
        unbiased_images(biased.dataset.objects)


# ---- the weights of a run ----


@pytest.mark.slow
def test_a_run_keeps_its_weights_whenever_they_are_new_also_after_a_kill(tmp_path: Path, monkeypatch) -> None:
    recipe = study().recipe_of(study().rows[0])
    whole = Run(tmp_path / "whole")
    seen: list[int] = []

    def watch(more: bool) -> None:
        recorder(more)
        seen.append(len(recorder.epochs))

    recorder = WeightRecorder(whole)
    train(recipe, output=whole.path, watch=watch)
    assert recorder.epochs == [2, 3]  # passes before the second and the third epoch
    assert seen == [0, 1, 2]
    assert all(len(weights) == len(recorder.weights[0]) for weights in recorder.weights)
    assert not torch.equal(*recorder.weights)

    killed = Run(tmp_path / "killed")

    def kill(more: bool) -> None:
        raise KeyboardInterrupt  # the epoch is written, and its weights are not kept

    for _ in range(2):
        again = WeightRecorder(killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, output=killed.path, resume=True, watch=kill)
    again = WeightRecorder(killed)
    train(recipe, output=killed.path, resume=True, watch=again)
    assert again.epochs == [2, 3]
    assert all(torch.equal(*pair) for pair in zip(again.weights, recorder.weights))
    assert WeightRecorder(killed).epochs == [2, 3]  # from the file


def test_a_pass_that_finds_the_same_weights_counts(tmp_path: Path) -> None:
    recipe = study().recipe_of(study().rows[0])
    still = recipe.model_copy(
        update={"stages": [recipe.stages[0].model_copy(update={"lr": 1e-30, "trainable": "head"})]}
    )
    run = Run(tmp_path / "still")
    recorder = WeightRecorder(run)
    train(still, output=run.path, watch=recorder)
    assert recorder.epochs == [2, 3]
    assert torch.equal(*recorder.weights)


@pytest.mark.slow
def test_a_study_resumes_where_it_was_killed_and_tells_shares_next_to_chance(tmp_path: Path, monkeypatch) -> None:
    variants = [{"label": "baseline", "keys": {"guide": None}}, HNM, {"label": "FL", "keys": {"guide": "focal"}}, OURS]
    two = study(variants=variants, grid=[[
        {"label": "brighter", "keys": {"data.bias": "brighter"}}, {"label": "background", "keys": {"data": DIGITS}}
    ]])  # fmt: skip
    begun: list[str] = []

    def training(recipe, output, resume, watch, device):
        def stop(more: bool) -> None:
            watch(more)
            if len(begun) == 2 and more:
                raise KeyboardInterrupt

        begun.append(output.name)
        return train(recipe, output=output, resume=resume, watch=stop, device=device)

    monkeypatch.setattr(training_runs_module, "train", training)
    with pytest.raises(KeyboardInterrupt):
        run_study(two, tmp_path / "out")
    folder = run_study(two, tmp_path / "out")
    assert begun == [f"{name}-seed0" for name in (
        "brighter__baseline", "brighter__HNM", "brighter__HNM", "brighter__FL", "brighter__ours",
        "background__baseline", "background__HNM", "background__FL", "background__ours",
    )]  # fmt: skip

    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    shares = {(row["variant"], row["epoch"]): float(row["value"]) for row in table if row["column"] == "unbiased_share"}
    epochs = {"HNM": "23", "FL": "123", "ours": "3"}
    assert {variant: "".join(e for a, e in shares if a == f"brighter, {variant}") for variant in epochs} == epochs
    done = StudyFolder(folder, two, 1.0).finished()
    for setting in ("brighter", "background"):
        part = done[f"{setting}, HNM/0"]
        unbiased, weights = part.tensors["unbiased"], part.tensors["weights"][0]
        order = weights.argsort(descending=True)[: round(0.2 * len(weights))]
        assert shares[f"{setting}, HNM", "2"] == pytest.approx(float(unbiased[order].float().mean()), abs=1e-5)
        assert part.values["chance"] == pytest.approx(0.2, abs=0.02)
    report = (folder / "report.md").read_text()
    assert "| brighter, baseline | 0 |  | no weights |" in report
    assert "shares.png" in report
    assert "training images are unbiased" in report
    assert (folder / "shares.png").is_file()
    assert any(row["column"] == "test_shifted/accuracy" for row in table)


def test_the_studies_of_the_paper_and_of_backgrounds_are_there() -> None:
    paper = read_study("ec", "figure-8")
    assert list(paper.panels) == ["brighter", "darker", "scaled by 1.5"]
    assert list(read_study("pets", "debiasing").panels) == [""]
