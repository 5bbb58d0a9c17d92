"""Galleries of trained models."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sightline import data, explain, load_model
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.galleries import gallery as gallery_module
from sightline.galleries.gallery import Gallery
from sightline.metrics import energy_in_mask, noised
from sightline.network.views import D4, View
from sightline.studies import read_study, run_study
from sightline.studies.study import make_study

TINY = {
    "data.copies": 1, "data.size": 32, "image_size": 32, "model.name": "sightline/lenet5", "batch_size": 64,
    "stages": [{"epochs": 1, "lr": 5e-3}], "train_fraction": 0.3,
}  # fmt: skip
CHANGES = [
    {"label": "as it is"},
    {"label": "quarter turn", "view": {"turns": 1}},
    {"label": "noise", "noise": {"region": "background", "level": 0.3}},
]


def study(**changes: Any) -> Gallery:
    keys = {
        "kind": "gallery", "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy",
        "keys": TINY, "models": [{"label": "CE"}, {"label": "SO", "keys": {"guide": "segment_overlap"}}], "num_images": 3,
    }  # fmt: skip
    made = make_study(keys | changes)
    assert isinstance(made, Gallery)
    return made


def shown(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "parts" / f"{name}.safetensors")


def test_maps_and_values_are_what_explain_gives_for_the_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    train = gallery_module.train

    def training(recipe: Any, output: Path, resume: bool, device: Any) -> Any:
        begun.append(output.name)
        if begun == ["CE", "SO"]:
            raise KeyboardInterrupt
        return train(recipe, output=output, resume=resume, device=device)

    monkeypatch.setattr(gallery_module, "train", training)
    with pytest.raises(KeyboardInterrupt):
        run_study(study(changes=CHANGES), tmp_path / "out")
    folder = run_study(study(changes=CHANGES), tmp_path / "out")
    assert begun == ["CE", "SO", "SO"]

    test = data.create_dataset("digits", copies=1, size=32)["test_shifted"]
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    assert len(table) == 3 * 3 * 2
    places = [[test.path(i) for i in range(len(test))].index(row["image"]) for row in table[::3][:3]]
    batch = next(iter(create_loader(test, size=32, batch_size=3, train=False, indices=places)))
    objects = batch.object_masks()
    images = {
        "as it is": batch.images,
        "quarter turn": torch.rot90(batch.images, 1, (2, 3)),
        "noise": noised(batch.images, batch.masks == 0, 0.3, indices=batch.indices),
    }
    pictures = shown(folder, "pictures")
    for number, each in enumerate(images.values()):
        assert (pictures["images"][number].float() / 255 - each).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(pictures["masks"][1].float(), torch.rot90(objects, 1, (1, 2)))

    for label in ("CE", "SO"):
        model, spec = load_model(
            "sightline/lenet5", folder / "runs" / label / "checkpoints" / "last.safetensors", len(test.classes), 32
        )
        model.eval()
        whole = explain(model, batch.images, "gradcam", input_spec=spec)
        for number, (change, each) in enumerate(images.items()):
            maps = explain(model, each, "gradcam", input_spec=spec)
            kept = shown(folder, label)["maps"][number].float() / 255
            assert (kept - maps).abs().max() <= 0.5 / 255 + 1e-4
            rows = [row for row in table if (row["model"], row["change"]) == (label, change)]
            mask = torch.rot90(objects, 1, (1, 2)) if change == "quarter turn" else objects
            energy = energy_in_mask(maps, mask).tolist()
            assert [float(row["energy_in_mask"]) for row in rows] == pytest.approx(energy, abs=1e-3)
            back = torch.rot90(maps, -1, (1, 2)) if change == "quarter turn" else maps
            agreement = torch.cosine_similarity(back.flatten(1), whole.flatten(1)).tolist()
            assert [float(row["similarity"]) for row in rows] == pytest.approx(agreement, abs=1e-3)
            probabilities = model(spec.normalize(each)).softmax(1)
            assert [row["predicted"] for row in rows] == [test.classes[k] for k in probabilities.argmax(1)]
    report = (folder / "report.md").read_text()
    assert "| CE | quarter turn |" in report
    assert (folder / "figure.png").is_file()


def test_select_low_energy_takes_correct_images_with_the_lowest_energy_on_the_object(tmp_path: Path) -> None:
    one = study(models=[{"label": "CE"}], select_low_energy=True, num_images=2)
    folder = run_study(one, tmp_path / "out")
    test = data.create_dataset("digits", copies=1, size=32)["test_shifted"]
    batch = next(iter(create_loader(test, size=32, batch_size=len(test), train=False)))
    model, spec = load_model(
        "sightline/lenet5", folder / "runs" / "CE" / "checkpoints" / "last.safetensors", len(test.classes), 32
    )
    model.eval()
    energy = energy_in_mask(explain(model, batch.images, "gradcam", input_spec=spec), batch.object_masks())
    with torch.no_grad():
        energy[model(spec.normalize(batch.images)).argmax(1) != batch.labels] = 2.0
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    expected = energy.sort().values[:2].tolist()
    assert [float(row["energy_in_mask"]) for row in table] == pytest.approx(expected, abs=1e-3)
    assert all(row["label"] == row["predicted"] for row in table)
    assert "selected, not drawn at random" in (folder / "report.md").read_text()


def test_scale_shows_fewer_images_and_trains_on_fewer() -> None:
    half = study(keys={"image_size": 32}, images=["1", "2", "3"]).scaled(0.5)
    assert half.images == ["1", "2"]
    assert half.keys == {"image_size": 32, "train_fraction": 0.5}
    assert study().scaled(0.5).keys["train_fraction"] == 0.15
    assert study(scaled_keys=["stages.0.epochs"], keys={}).scaled(0.5).keys == {"stages.0.epochs": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": [{"label": "image"}]}, "'image' is taken"),
        ({"changes": [{"label": "a", "view": {"turn": 1}}]}, "did you mean 'turns'"),
        ({"changes": [{"label": "a"}, {"label": "a"}]}, "'a' is taken"),
        ({"images": [3], "select_low_energy": True}, "images: with select_low_energy"),
        ({"images": []}, "images"),
    ],
)
def test_gallery_invalid_keys_raise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        study(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ["eleven"]}, "class of an image"),
        ({"images": [9999]}, "is not an index"),
        ({"models": [{"label": "a"}, {"label": "b", "keys": {"image_size": 48}}]}, "one size"),
        ({"models": [{"label": "a"}, {"label": "b", "keys": {"data.copies": 2}}]}, "different data"),
        ({"models": [{"label": "a", "keys": {"batchsize": 3}}]}, "batch_size"),
    ],
)
def test_gallery_invalid_images_raise_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SightlineError, match=message):
        run_study(study(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_views_of_figure_2_are_the_eight_of_the_loss() -> None:
    figure = read_study("so-loss", "figure-2")
    assert isinstance(figure, Gallery)
    assert {change.seen_as() for change in figure.changes} == set(D4)
    assert all(type(change.seen_as()) is View for change in figure.changes)


@pytest.mark.parametrize(("item", "name"), [("figure-1", "VOC"), ("figure-2", "pets"), ("figure-5", "pets")])
def test_the_shipped_recipes_are_read_and_missing_data_is_named(
    item: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIGHTLINE_DATA", raising=False)
    with pytest.raises(SightlineError, match=name):
        run_study(read_study("so-loss", item), tmp_path / "out")
    assert not (tmp_path / "out").exists()
