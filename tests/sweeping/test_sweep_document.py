import json
import re

import pytest
import yaml
from swept import RECIPE, SPACE

from sightline._core.strict import apply_overrides, override_text
from sightline.errors import SightlineError
from sightline.sweeping import Sweep, read_sweep, shipped_sweeps
from sightline.sweeping.axes import Range


def made(**changes):
    return Sweep(**({"name": "dots", "recipe": RECIPE, "space": SPACE} | changes))


def test_a_range_with_a_step_is_a_list_in_decimals():
    assert Range(low=0.2, high=1.4, step=0.2).points == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
    assert Range(low=0.0, high=1.0, step=0.4).points == [0.0, 0.4, 0.8]
    whole = Range(low=8, high=24, step=8).points
    assert whole == [8, 16, 24]
    assert all(isinstance(value, int) for value in whole)
    assert Range(low=0, high=1).points is None


def test_the_shipped_sweeps_have_the_ranges_of_the_paper():
    first, second = (read_sweep(f"impactx-table-1-stage-{stage}") for stage in (1, 2))
    values = {axis.key: axis.values for axis in (*first.axes, *second.axes)}
    assert values["batch_size"] == [16, 32, 64]
    assert values["data.val"] == [0.05, 0.1, 0.2]
    assert values["stages.0.lr"] == [round(0.0001 + 0.0005 * i, 4) for i in range(20)]
    assert values["guide.weight"] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
    assert (first.wanted, second.wanted) == (180, 7)
    assert {first.metric, second.metric} == {"val/accuracy"}
    assert len(shipped_sweeps()) == 2


@pytest.mark.parametrize(
    "value", [None, True, 3, 1e-05, 0.1, "cosine", "1e-3", "yes", "a: b", [1, 2], {"name": "step", "factor": 0.5}]
)
def test_an_override_says_its_value_exactly(value):
    values = {"schedule": "constant"}
    apply_overrides(values, [override_text("schedule", value)])
    assert values == {"schedule": value}
    assert type(values["schedule"]) is type(value)


def test_lists_and_mappings_are_stored_as_json_and_read_back():
    guides = [None, "focal", {"name": "segment_overlap", "beta": 0.5}]
    document = made(space={"guide": guides})
    assert document.axes[0].stored == [None, "focal", json.dumps(guides[2])]
    assert [document.axes[0].value(stored) for stored in document.axes[0].stored] == guides


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"batch_size": 16}, ["space.batch_size", "16", "list"]),
        ({"batch_size": []}, ["space.batch_size", "list"]),
        ({"batch_size": [16, 16]}, ["space.batch_size", "16 is given twice"]),
        ({"batch_size": [16, 0]}, ["space.batch_size", "batch_size is 0"]),
        ({"batch_sizes": [16]}, ["space.batch_sizes", "did you mean 'batch_size'"]),
        ({"stages.1.lr": [0.1]}, ["space.stages.1.lr", "'1' is not a place in a list of 1"]),
        ({"stages.0.lr": {"low": 0.0, "high": 0.1, "step": 0.05}}, ["space.stages.0.lr", "stages.0.lr is 0"]),
        ({"stages.0.lr": {"low": 0.2, "high": 0.1}}, ["space.stages.0.lr", "low is 0.2 and high is 0.1"]),
        ({"stages.0.lr": {"low": 0.1}}, ["space.stages.0.lr", "high is missing"]),
        ({"stages.0.lr": {"low": 0.1, "high": 1.0, "steps": 2}}, ["space.stages.0.lr", "did you mean 'step'"]),
        ({"stages.0.lr": {"low": 0.0, "high": 1.0, "log": True}}, ["space.stages.0.lr", "log"]),
        ({"batch_size": {"low": 8, "high": 64}}, ["space.batch_size", "whole numbers has a step"]),
        ({"stages.0.lr": {"low": 1e-4, "high": 1e-2}}, ["space.stages.0.lr", "a grid needs"]),
        ({}, ["space"]),
    ],
)
def test_a_bad_range_is_named(space, words):
    with pytest.raises(SightlineError) as caught:
        made(space=space)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metric", ["test/accuracy", "test_iid/loss", "train/accuracy", "accuracy"])
def test_no_other_split_than_validation_judges(metric):
    with pytest.raises(SightlineError, match="uses a metric of a validation split") as caught:
        made(metric=metric)
    assert metric in str(caught.value)


def test_an_unknown_figure_or_key_is_named_with_the_nearest():
    with pytest.raises(SightlineError, match="val/accuracy"):
        made(metric="val/acuracy")
    with pytest.raises(SightlineError, match="trials"):
        made(trial=3)
    with pytest.raises(SightlineError, match="trials is missing"):
        made(sampler="tpe")
    with pytest.raises(SightlineError, match="batch_sizes"):
        made(recipe=RECIPE | {"batch_sizes": 3})


def test_loss_is_minimized_and_the_others_are_not():
    assert made(metric="val/loss").minimized
    assert not made(metric="val/worst_group_accuracy").minimized


def test_reading_a_recipe_with_options_and_a_file_say_the_same(tmp_path):
    recipe, document = tmp_path / "recipe.yaml", tmp_path / "sweep.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    document.write_text(
        yaml.safe_dump({"recipe": str(recipe), "space": {"batch_size": [2, 4]}, "trials": 3, "sampler": "tpe"})
    )
    one = read_sweep(recipe, ["seed=3"], ["batch_size=[2, 4]"], trials=3, sampler="tpe")
    other = read_sweep(document, ["seed=3"], seed=None)
    assert one == other
    assert one.recipe.seed == 3
    assert one.name == "dots"
    more = read_sweep(document, over=["stages.0.lr={low: 1e-4, high: 1e-2, log: true}"])
    assert [axis.key for axis in more.axes] == ["batch_size", "stages.0.lr"]
    assert Sweep(**yaml.safe_load(more.to_yaml())) == more


@pytest.mark.parametrize(
    ("source", "over", "words"),
    [
        ("impactx-table-1-stage-3", [], "did you mean 'impactx-table-1-stage-"),
        ("none.yaml", [], "there is no file 'none.yaml'"),
        ("demo-cross-entropy", [], "no key changes"),
        ("demo-cross-entropy", ["batch_size"], "not of the form"),
        ("demo-cross-entropy", ["batch_size=[1"], "not valid YAML"),
    ],
)
def test_sweep_that_cannot_be_read_raises_with_the_reason(source, over, words):
    with pytest.raises(SightlineError, match=re.escape(words)):
        read_sweep(source, over=over)
