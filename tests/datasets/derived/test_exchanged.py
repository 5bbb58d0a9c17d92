"""Validation splits with exchanged backgrounds."""

from pathlib import Path

import pytest
from test_variants import colours, objects

import sightline as sl
from sightline import data
from sightline.data import DATASETS, Splits
from sightline.errors import SightlineError
from sightline.runs.load_run import load_run


@DATASETS.register("coloured-objects")
def coloured_objects(val: bool = True, masks: bool = True) -> Splits:
    """Objects of known colors on backgrounds of known colors."""
    validation = objects(12, unmasked=(3,) if masks else tuple(range(12)))
    return Splits({"train": objects(6), "test": objects(6)} | ({"val": validation} if val else {}))


@pytest.mark.parametrize("variant", ["mixed_rand", "mixed_next"])
def test_objects_stay_and_backgrounds_are_those_of_other_validation_images(variant: str) -> None:
    source = {"name": "coloured-objects"}
    splits = data.create_dataset("exchanged", source=source, variant=variant, size=16)
    assert list(splits) == ["train", "test", "val", "val_exchanged"]
    found = splits["val_exchanged"]
    assert len(found) == 11  # an image without a mask cannot take part
    for sample in (found[place] for place in range(len(found))):
        number = int(sample.path.removeprefix("object"))
        inside = sample.mask == 1
        assert sample.label == number % 3
        assert colours(sample.image, inside) == {(100 + number, 150 + number, 0)}
        ((giver, _, _),) = colours(sample.image, ~inside)
        assert giver not in (number, 3)
        assert sample.group == 3 * sample.label + giver % 3
        if variant == "mixed_next":
            assert giver % 3 == (number + 1) % 3


def test_a_run_chooses_its_epoch_by_exchanged_backgrounds(tmp_path: Path) -> None:
    recipe = sl.Recipe(
        name="exchanged",
        data={"name": "exchanged", "source": {"name": "coloured-objects"}, "size": 32},
        model="sightline/lenet5",
        image_size=32,
        stages=[{"epochs": 3, "lr": 1e-2}],
        save_best={"metric": "val_exchanged/accuracy"},
    )
    run = sl.train(recipe, output=tmp_path / "run")
    column = [float(row["val_exchanged/accuracy"]) for row in run.rows]
    loaded = load_run(run, device="cpu")
    split = loaded.splits["val_exchanged"]
    transform = data.loader.eval_transform(32)
    hits = 0
    for place in range(len(split)):
        images = loaded.input_spec.normalize(transform(split[place].image)[None])
        hits += loaded.model(images).argmax(1).item() == split[place].label
    assert hits / len(split) == pytest.approx(max(column))
    assert len(set(column)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": {"name": "coloured-objects", "val": False}}, "splits train, test; expected one whose name begins"),
        ({"source": {"name": "coloured-objects", "masks": False}}, "0 have masks"),
        ({"source": {"name": "coloured-objects"}, "variant": "only_fg"}, "variant"),
    ],
)
def test_exchanged_invalid_sources_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        data.create_dataset("exchanged", **options)
