import pytest

from sightline._core.strict import difference, override_text
from sightline.errors import SightlineError
from sightline.runs.recipe import Recipe, read_recipe
from sightline.training import train
from sightline.training.build import build
from tiny import recipe

TEXT = """
name: squares
data: squares
model: sightline/lenet5
guide: segment_overlap
schedule: cosine
stages:
  - {epochs: 1, lr: 1e-3, trainable: head, guide: null}
  - {epochs: 2, lr: 3e-4}
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(TEXT)
    return file


def test_every_key_survives_a_round_trip(path, tmp_path):
    first = read_recipe(path, ["early_stopping={metric: val/loss, mode: min, patience: 3}", "guide.beta=0.25"])
    again = tmp_path / "again.yaml"
    again.write_text(first.to_yaml())
    assert read_recipe(again) == first == read_recipe(first)
    assert set(Recipe.model_fields) == {
        line.partition(":")[0] for line in first.to_yaml().splitlines() if line[0].isalpha()
    }


def test_read_recipe_takes_numbers_short_forms_and_stages(path):
    r = read_recipe(path)
    assert r.stages[0].lr == 1e-3  # which YAML 1.1 reads as text
    assert r.data.name == "squares"
    assert r.schedule.name == "cosine"
    assert [r.guide_of(stage) for stage in r.stages] == [None, "segment_overlap"]


def test_overrides_reach_into_lists_and_open_short_forms(path):
    r = read_recipe(
        path, ["stages.1.epochs=5", "guide.beta=1e-1", "schedule.warmup=0.1", "data.images=4", "model.layer=conv1"]
    )
    assert r.stages[1].epochs == 5
    assert r.guide == {"name": "segment_overlap", "beta": 0.1}
    assert (r.schedule.name, r.schedule.warmup) == ("cosine", 0.1)
    assert r.data.options == {"images": 4}
    assert r.model.layer == "conv1"
    more = read_recipe(path, ["stages.+={epochs: 7, lr: 0.1}", "stages.2.epochs=8"])
    assert [stage.epochs for stage in more.stages[2:]] == [8]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stage.0.lr=1", ["unknown key 'stage'", "'stages'"]),
        ("stages.0.epoch=1", ["'stages.0.epoch'", "'stages.0.epochs'"]),
        ("optimizer.momntum=0.9", ["'optimizer.momntum'", "'optimizer.momentum'"]),
        ("early_stopping={metric: val/loss, patience: 1, pateince: 2}", ["'early_stopping.pateince'", "patience'"]),
        ("early_stopping.metric=val/loss", ["early_stopping.patience is missing"]),
        ("stages.2.lr=1", ["'2'", "list of 2"]),
        ("stages=[]", ["stages", "at least 1"]),
        ("seed=true", ["seed is True", "integer"]),
        ("seed=-1", ["seed is -1", "greater than or equal to 0"]),
        ("stages.0.lr=high", ["stages.0.lr is 'high'", "number"]),
        ("stages.0.lr=.inf", ["stages.0.lr is inf", "finite"]),
        ("stages.0.trainable=tail", ["stages.0.trainable is 'tail'", "'all' or 'head'"]),
        (
            "stages.0.trainable={form: layer4}",
            ["stages.0.trainable is {'form': 'layer4'}", "with from, the name of a layer"],
        ),
        ("stages.0.trainable={from: 4}", ["stages.0.trainable is {'from': 4}"]),
        ("schedule=linear", ["schedule.name is 'linear'", "'cosine'"]),
        ("precision=16", ["precision is 16", "bf16-mixed"]),
        ("name=../up", ["name is '../up'"]),
        ("batch_size", ["batch_size", "key.sub=value"]),
        ("batch_size=[1", ["batch_size=[1", "YAML"]),
    ],
)
def test_a_wrong_key_or_value_is_named(path, override, words):
    with pytest.raises(SightlineError) as caught:
        read_recipe(path, [override])
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_recipe_made_in_python_is_checked_alike():
    with pytest.raises(SightlineError, match=r"batch_size is 0"):
        recipe(batch_size=0)


def test_a_key_given_twice_is_rejected(path):
    path.write_text(TEXT + "guide: none\n")
    with pytest.raises(SightlineError, match="'guide' is given twice"):
        read_recipe(path)


def test_a_file_that_is_missing_or_no_mapping(tmp_path):
    with pytest.raises(SightlineError, match="there is no file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(SightlineError, match="expected a mapping"):
        read_recipe(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "squars"}, ["unknown dataset 'squars'", "'squares'"]),
        ({"data": {"name": "squares", "image": 4}}, ["'image'", "'images'"]),
        ({"model": "sightline/lenet"}, ["sightline/lenet5"]),
        ({"model": {"name": "sightline/lenet5", "weights": "none.safetensors"}}, ["model.weights", "none.safetensors"]),
        ({"model": {"name": "sightline/lenet5", "layer": "conv3"}}, ["conv3"]),
        ({"guide": "segment_overlp"}, ["segment_overlp", "segment_overlap"]),
        ({"guide": {"name": "segment_overlap", "beat": 1}}, ["'beat'", "'beta'"]),
        ({"stages": [{"epochs": 1, "lr": 1, "guide": "nothing"}]}, ["nothing"]),
        ({"augment": {"flop": True}}, ["'flop'", "'flip'"]),
        ({"save_best": {"metric": "test/accuracy"}}, ["save_best.metric", "test/accuracy", "val/accuracy"]),
        ({"early_stopping": {"metric": "val/acuracy", "patience": 1}}, ["early_stopping.metric", "val/accuracy"]),
        ({"evaluation": {"explainers": ["gradcan"]}}, ["gradcan", "gradcam"]),
        ({"evaluation": {"metrics": ["acuracy"]}}, ["acuracy", "accuracy"]),
        ({"evaluation": {"splits": ["tset"]}}, ["tset", "test"]),
    ],
)
def test_names_are_checked_before_anything_starts(changes, words):
    with pytest.raises(SightlineError) as caught:
        build(recipe(**changes))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_batch_that_the_processes_cannot_share():
    with pytest.raises(SightlineError, match="3 processes cannot share it evenly"):
        build(recipe(), processes=3)


def test_stages_with_one_guide_share_an_objective_and_all_share_the_model():
    stages = [{"epochs": 1, "lr": 1, "guide": g} for g in ("inherit", None, {"name": "segment_overlap", "beta": 0.5})]
    one, two, three = build(recipe(stages=stages)).objectives
    assert one is three
    assert one is not two
    assert one.model is two.model


def test_difference_names_the_first_key():
    assert difference(recipe(), recipe()) is None
    assert difference(recipe(), recipe(seed=1)) == "seed (0 and 1)"
    assert "guide.beta (0.5 and 0.1)" in difference(recipe(), recipe(guide={"name": "segment_overlap", "beta": 0.1}))


def test_overrides_as_a_mapping_and_as_texts_give_the_same_recipe() -> None:
    changes = {"seed": 3, "guide": {"name": "segment_overlap", "beta": 0.5}, "guide.views": 2, "stages.0.epochs": 1}
    texts = [override_text(key, value) for key, value in changes.items()]
    assert read_recipe("demo-cross-entropy", changes) == read_recipe("demo-cross-entropy", texts)
    assert changes["guide"] == {"name": "segment_overlap", "beta": 0.5}


@pytest.mark.parametrize(
    "keys",
    [
        {"guide": {"name": "energy", "region": "boxes"}},
        {"guide": {"name": "group_dro", "groups": 1}},
        {"guide": None, "stages": [{"epochs": 1, "lr": 1e-3}, {"epochs": 1, "lr": 1e-3, "guide": "region_activation"}]},
        {"guide": ["segment_overlap", {"name": "impactx", "size": 32}]},
    ],
)
def test_a_guide_of_any_stage_without_annotation_is_rejected_before_the_folder_is_made(keys, tmp_path):
    with pytest.raises(SightlineError, match=r"needs (boxes|maps)|groups of GroupDRO is 1"):
        train(recipe(**keys), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
