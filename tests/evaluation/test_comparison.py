import csv
import json
from pathlib import Path

import numpy as np
import pytest

from run_folders import write_run
from sightline import SightlineError
from sightline.evaluation.comparison import ACCURACY, WORST_GROUP, read_comparison
from sightline.evaluation.split_folder.folder import Key


def with_correct(tmp_path, name, patterns, **options):
    return [
        write_run(tmp_path / f"{name}{s}", name=name, seed=s, correct=p, n=len(p), **options)
        for s, p in enumerate(patterns)
    ]


def test_differences_are_paired_by_seed(tmp_path):
    ours = with_correct(tmp_path, "a", [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 1]])  # 0.75, 1, 0.75
    theirs = with_correct(tmp_path, "b", [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])  # 0.25, 0.5, 0
    accuracy = read_comparison(ours, theirs).splits[0].differences[ACCURACY]
    assert accuracy.ours == [0.75, 1.0, 0.75]
    assert accuracy.theirs == [0.25, 0.5, 0.0]
    assert accuracy.value == pytest.approx(7 / 12)
    # paired by seed: 0.5, 0.5, 0.75; standard error 1/12; t(2) = 4.302653
    assert accuracy.seeds.low == pytest.approx(7 / 12 - 4.302653 / 12, abs=1e-6)
    assert accuracy.seeds.high == pytest.approx(7 / 12 + 4.302653 / 12, abs=1e-6)


def test_interval_over_images_equals_the_enumerated_quantiles(tmp_path):
    """Four images whose differences are 0, 1, 1, 1: a round's mean is a quarter of a binomial(4, 3/4)."""
    ours, theirs = with_correct(tmp_path, "a", [[1, 1, 1, 1]]), with_correct(tmp_path, "b", [[1, 0, 0, 0]])
    accuracy = read_comparison(ours, theirs).splits[0].differences[ACCURACY]
    # P(0) = 0.004, P(<= 1/4) = 0.051: the 2.5 % quantile is 1/4; P(4/4) = 0.32: the 97.5 % quantile is 1
    assert (accuracy.images.low, accuracy.images.high) == (0.25, 1.0)
    assert accuracy.seeds is None
    assert accuracy.outcome == "better"


def test_map_metrics_are_paired_by_image(tmp_path):
    """A constant gain on every image has no width over images, however much the images differ."""
    ours, theirs = (write_run(tmp_path / name, name=name) for name in "ab")
    path = ours / "evaluation" / "test" / "samples.csv"
    rows = list(csv.DictReader((theirs / "evaluation" / "test" / "samples.csv").open()))
    for row in rows:
        row["energy_in_mask@gradcam"] = str(float(row["energy_in_mask@gradcam"]) + 0.125)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    images = read_comparison([ours], [theirs]).splits[0].differences[Key("energy_in_mask", "gradcam")].images
    assert (images.low, images.high) == pytest.approx((0.125, 0.125))


def test_lower_can_be_better(tmp_path):
    ours, theirs = with_correct(tmp_path, "a", [[1, 1, 1, 1]]), with_correct(tmp_path, "b", [[1, 0, 0, 0]])
    for path in (*ours, *theirs):
        file = path / "evaluation" / "test" / "summary.json"
        file.write_text(file.read_text().replace('"higher_is_better": true', '"higher_is_better": false'))
    assert read_comparison(ours, theirs).splits[0].differences[ACCURACY].outcome == "worse"


def test_a_difference_is_significant_only_if_both_intervals_exclude_zero(tmp_path):
    ours = with_correct(tmp_path, "a", [[1] * 30, [0] * 30])  # 1 and 0: no telling over seeds
    theirs = with_correct(tmp_path, "b", [[0] * 30, [0] * 30])
    accuracy = read_comparison(ours, theirs).splits[0].differences[ACCURACY]
    assert accuracy.images.excludes_zero
    assert not accuracy.seeds.excludes_zero
    assert accuracy.outcome == "unclear"


def test_runs_are_paired_by_seed_not_by_order(groups):
    ours, theirs = groups()
    straight, shuffled = read_comparison(ours, theirs), read_comparison(ours[::-1], theirs[1:] + theirs[:1])
    assert straight.paired
    assert straight.splits[0].differences[ACCURACY] == shuffled.splits[0].differences[ACCURACY]


def test_other_seeds_are_not_paired(tmp_path):
    ours = with_correct(tmp_path, "a", [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    theirs = with_correct(tmp_path, "b", [[1, 0, 0, 0], [1, 0, 1, 0]])
    assert not read_comparison(ours, theirs).paired
    assert read_comparison(ours, theirs).splits[0].differences[ACCURACY].seeds is not None


def test_groups_are_compared_one_by_one(tmp_path):
    ours, theirs = with_correct(tmp_path, "a", [[1, 1, 1, 0, 0, 0]]), with_correct(tmp_path, "b", [[1, 0, 0, 0, 1, 1]])
    for path in (*ours, *theirs):
        file = path / "evaluation" / "test" / "samples.csv"
        rows = list(csv.DictReader(file.open()))
        for row, group in zip(rows, [0, 0, 0, 4, 4, 4]):
            row["group"] = str(group)
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    split = read_comparison(ours, theirs).splits[0]
    first, second = split.by_group
    assert (first.name, first.n, first.ours, first.theirs) == (
        "Abyssinian on Abyssinian's scene",
        3,
        1,
        pytest.approx(1 / 3),
    )
    assert (second.name, second.n, second.ours, second.theirs) == (
        "beagle on beagle's scene",
        3,
        0,
        pytest.approx(2 / 3),
    )
    assert split.differences[WORST_GROUP].images is not None


def test_headline_split_comes_first(groups):
    comparison = read_comparison(*groups(splits=("val", "test_iid", "val_shifted", "test")))
    assert [s.split for s in comparison.splits] == ["test", "test_iid", "val", "val_shifted"]


def test_chance_explainers_come_last(groups):
    assert read_comparison(*groups(explainers=("gaussian", "gradcam", "randomcam", "eigencam"))).splits[0].explainers == [
        "gradcam", "eigencam", "gaussian", "randomcam",
    ]  # fmt: skip


def test_recipe_changes_are_those_between_groups(groups):
    changes = read_comparison(*groups()).recipe_changes
    assert changes == [("guide.name", "segment_overlap", "none"), ("guide.explainer", "gradcam", "none")]


@pytest.mark.parametrize(
    ("names", "guides", "labels"),
    [
        (("x", "y"), (None, None), ("x", "y")),
        (("x", "x"), ({"name": "segment_overlap"}, None), ("segment_overlap", "none")),
        (("x", "x"), (None, None), ("0", "1")),
    ],
)
def test_labels_name_what_differs_between_the_runs(tmp_path, names, guides, labels):
    runs = [write_run(tmp_path / str(i), name=n, guide=g) for i, (n, g) in enumerate(zip(names, guides))]
    comparison = read_comparison(runs[:1], runs[1:])
    found = [
        Path(label).name for label in (comparison.ours.label, comparison.theirs.label)
    ]  # a folder is named by its path
    assert tuple(found) == labels


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ["a", "b", "c"]}, "their classes differ"),
        ({"splits": ("test", "val")}, r"they were evaluated on different splits: \['test', 'val'\] against \['test'\]"),
        ({"n": 30}, "the split 'test' has another number of images: 30 against 60"),
        ({"explainers": ("gradcam",)}, "only one of them measured .*energy_in_mask@eigencam"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(tmp_path, changed, message):
    first, other = write_run(tmp_path / "first"), write_run(tmp_path / "other", **changed)
    with pytest.raises(SightlineError, match=f"{other} and {first} cannot be compared: {message}"):
        read_comparison([first], [other])


def test_runs_in_another_precision_cannot_be_compared(tmp_path):
    first, other = write_run(tmp_path / "first"), write_run(tmp_path / "other")
    path = other / "evaluation" / "test" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"precision": "bf16"}))
    with pytest.raises(SightlineError, match="'test' was evaluated in another precision: bf16 against fp32"):
        read_comparison([first], [other])


def test_comparison_of_other_images_raises(tmp_path):
    first, other = write_run(tmp_path / "first"), write_run(tmp_path / "other")
    path = other / "evaluation" / "test" / "samples.csv"
    path.write_text(path.read_text().replace("test/7.jpg", "test/8.jpg"))
    with pytest.raises(SightlineError, match="the split 'test' holds other images or labels"):
        read_comparison([first], [other])


def test_a_run_on_both_sides(groups):
    ours, theirs = groups()
    with pytest.raises(SightlineError, match=f"the run {ours[1]} is given twice"):
        read_comparison(ours, [*theirs, ours[1]])


def test_a_side_without_runs(groups):
    with pytest.raises(SightlineError, match="at least one run on either side"):
        read_comparison(groups()[0], [])


def test_the_value_is_the_mean_of_the_samples(groups):
    """What the bootstrap resamples has the value that the evaluation reports."""
    split = read_comparison(*groups()).splits[0]
    for evaluation in (*split.ours, *split.theirs):
        for key in evaluation.results:
            if key.explainer:
                assert evaluation.results[key] == pytest.approx(np.nanmean(evaluation.samples.values[key.column]))
