"""Panels, timings and sweeps on tiny models."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sightline import Batch, data, explain, load_model
from sightline.data.transforms import eval_transform
from sightline.errors import NotDefinedError, SightlineError
from sightline.explainers import create_explainer
from sightline.map_studies import panel as panel_module
from sightline.map_studies import timing
from sightline.map_studies.sweep import Sweep
from sightline.network.features import class_features
from sightline.reporting.overlay import Overlay
from sightline.runs.recipe_parts import Data
from sightline.studies import read_study, reproduce
from sightline.studies.folder import StudyFolder
from sightline.studies.image_selection import ImageSelection
from sightline.studies.study import SizedModel
from sightline.studies.subject import load_subject

SMALL = {"name": "sightline/small_cnn", "size": 32}
PANEL = [
    "data={name: digits, size: 32}",
    "model={name: sightline/small_cnn, size: 32}",
    "images=null",
    "num_images=7",
    "columns=[{label: Grad-CAM, name: gradcam}, {label: Eigen, name: eigencam, options: {center: true}}]",
]
TIMING = [
    "models=[{label: A, name: sightline/small_cnn, size: 32}, {label: B, name: sightline/lenet5}]",
    "methods=[{label: Grad-CAM, name: gradcam}, {label: Chance, name: randomcam, rounds: 2}]",
    "rounds=3",
    "paper_values={Grad-CAM: {A: 12.5}}",
]
SWEEP = [
    "data={name: digits, size: 32}",
    "model={name: sightline/small_cnn, size: 32}",
    "num_images=6",
    "batch=4",
    "method={label: Gauss, name: gaussian, options: {sigma: 0.25}}",
    "axes={sigma: [0.1, 0.25]}",
    "metrics={average_drop: {}, complexity: {}}",
]


def rows(folder):
    return list(csv.DictReader((folder / "table.csv").open()))


def test_a_panel_keeps_the_maps_that_the_explainer_gives(tmp_path):
    folder = reproduce("lots", "figure-5.2", PANEL, output=tmp_path / "out")
    study = read_study("lots", "figure-5.2", PANEL)
    assert study.parts() == ["pictures", "Grad-CAM/0", "Grad-CAM/5", "Eigen/0", "Eigen/5"]
    test = data.create_dataset("digits", size=32)["test_shifted"]
    assert len(rows(folder)) == 7 * 2
    pictures = load_file(folder / "parts" / "pictures.safetensors")["images"]
    paths = [test.path(i) for i in range(len(test))]
    chosen = [paths.index(row["image"]) for row in rows(folder)[::2]]
    see = eval_transform(32)
    assert torch.equal(pictures, torch.stack([(see(test[i].image) * 255).round().to(torch.uint8) for i in chosen]))

    subject = load_subject(SizedModel(**SMALL), torch.device("cpu"), 0)
    images = torch.stack([see(test[i].image).as_subclass(torch.Tensor) for i in chosen])
    expected = create_explainer("eigencam", center=True)(subject.model, images, input_spec=subject.input_spec)
    found = torch.cat([load_file(folder / "parts" / f"Eigen-{k}.safetensors")["maps"] for k in (0, 5)])
    assert (found.float() / 255 - expected).abs().max() <= 0.5 / 255 + 1e-4
    probability, predicted = subject.probabilities(images).max(1)
    assert [row["predicted"] for row in rows(folder)[::2]] == [str(k) for k in predicted.tolist()]
    assert [float(row["probability"]) for row in rows(folder)[::2]] == pytest.approx(probability.tolist(), rel=1e-4)
    assert [row["label"] for row in rows(folder)[::2]] == [str(int(test.labels[i])) for i in chosen]


def test_images_drawn_in_larger_number_include_the_smaller_draw(tmp_path):
    album = ImageSelection(Data(name="digits"), "a study")
    assert set(album.draw(3, seed=0)) < set(album.draw(9, seed=0))
    assert album.draw(9, seed=0) != album.draw(9, seed=1)


def test_images_are_told_by_place_class_or_file(tmp_path):
    file = tmp_path / "mine.png"
    Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(file)
    album = ImageSelection(Data(name="digits"), "a study")
    assert album.find(5) == 5
    first = album.find("3")
    assert album.label(first) == "3"
    assert "3" not in [album.label(place) for place in range(first)]
    assert album.find(str(file)) == file
    assert album.label(file) is None
    assert album.read([file], 32).shape == (1, 3, 32, 32)
    with pytest.raises(SightlineError, match="unknown class of an image"):
        album.find("flamingo")
    with pytest.raises(SightlineError, match="is not an index of"):
        album.find(10**6)
    with pytest.raises(SightlineError, match="nothing at"):
        album.find("yours.png")


def test_files_alone_need_no_data_set(tmp_path):
    file = tmp_path / "mine.png"
    Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(file)
    folder = reproduce("lots", "figure-5.2", [*PANEL, "data=null", f"images=[{file}]"], output=tmp_path / "out")
    assert [row["image"] for row in rows(folder)] == [str(file)] * 2


@pytest.mark.parametrize(
    "override",
    ["data={name: imagenet, root: nowhere}", "data={name: csv}", "data={name: csv, path: nowhere.csv}", "data=null"],
)
def test_missing_data_is_named_with_what_to_give(override, tmp_path):
    with pytest.raises(
        SightlineError, match=r"lots/figure-5.2 needs images.*data.root=FOLDER.*path: FILE.csv.*name: folder"
    ):
        reproduce("lots", "figure-5.2", [*PANEL, override], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("item", "overrides", "key"),
    [
        ("figure-5.2", [*PANEL, "model.weights=a.pth"], "model"),
        ("table-5.3", [*TIMING, "models.1.weights=a.pth"], "models.1"),
    ],
)
def test_missing_weights_are_named_with_what_to_give(item, overrides, key, tmp_path):
    with pytest.raises(SightlineError, match=rf"a\.pth.*\({key}\.weights=FILE"):
        reproduce("lots", item, overrides, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def undefined(name, **options):
    def explainer(*args, **kwargs):
        raise NotDefinedError("SmallCNN.stem has no rule")

    return explainer if name == "eigencam" else create_explainer(name, **options)


def test_a_panel_says_which_method_is_not_defined(tmp_path, monkeypatch):
    monkeypatch.setattr(panel_module, "create_explainer", undefined)
    folder = reproduce("lots", "figure-5.2", PANEL, output=tmp_path / "out")
    assert "Eigen is not defined for this model: SmallCNN.stem has no rule" in (folder / "report.md").read_text()
    study = read_study("lots", "figure-5.2", PANEL)
    figure = study.figures(StudyFolder(folder, study, 1).finished())["figure.png"]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["not defined\nfor this model"] * 7


def test_a_panel_puts_images_side_by_side_and_leaves_the_rest_empty(tmp_path):
    overrides = [*PANEL, "abreast=3"]
    folder = reproduce("lots", "figure-5.2", overrides, output=tmp_path / "out")
    study = read_study("lots", "figure-5.2", overrides)
    figure = study.figures(StudyFolder(folder, study, 1).finished())["figure.png"]
    assert len(figure.axes) == 3 * 9  # 7 images in 3 lines of 3, each with 2 maps
    assert sum(len(axes.images) for axes in figure.axes) == 7 * 3
    captions = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert len(captions) == 7
    width, height = Image.open(folder / "figure.png").size
    assert width > height


def test_a_column_may_have_a_model_of_its_own(tmp_path):
    columns = "columns=[{label: one, name: gradcam}, {label: two, name: gradcam, model: sightline/lenet5}]"
    folder = reproduce("lots", "figure-5.2", [*PANEL, columns], output=tmp_path / "out")
    assert {row["method"]: row["model"] for row in rows(folder)} == {
        "one": "sightline/small_cnn",
        "two": "sightline/lenet5",
    }


LOTS = {"iterations": 3, "alpha": 0.1, "tau": 0.0}
SPLIT = ["data={name: digits, size: 32}", "model={name: sightline/small_cnn, size: 32}"]


@pytest.mark.slow
def test_targets_of_lots_come_from_training_images_and_from_the_reference(tmp_path):
    columns = [
        {"label": f"by {f}", "name": "lots", "features": f, "options": LOTS} for f in ("class", "mean", "reference")
    ]
    overrides = [*SPLIT, f"columns={json.dumps(columns)}", "images=null", "num_images=2"]
    folder = reproduce("lots", "figure-5.1", overrides, output=tmp_path / "out")
    splits = data.create_dataset("digits", size=32)
    paths = [splits["test_shifted"].path(i) for i in range(len(splits["test_shifted"]))]
    places = [paths.index(row["image"]) for row in rows(folder)[::3]]
    labels = splits["test_shifted"].labels[places]
    see = eval_transform(32)

    def stack(dataset, wanted):
        return torch.stack([see(dataset[i].image).as_subclass(torch.Tensor) for i in wanted])

    subject = load_subject(SizedModel(**SMALL), torch.device("cpu"), 0)
    every = list(range(len(splits["train"])))
    known = class_features(
        subject.model,
        [Batch(stack(splits["train"], every), splits["train"].labels, indices=torch.tensor(every))],
        input_spec=subject.input_spec,
    )
    images = stack(splits["test_shifted"], places)
    kept = load_file(folder / "parts" / "pictures.safetensors")
    for column in ("class", "mean"):
        lots = create_explainer("lots", target=column, class_features=known, **LOTS)
        expected = lots(subject.model, images, labels, input_spec=subject.input_spec)
        found = load_file(folder / "parts" / f"by-{column}-0.safetensors")["maps"].float() / 255
        assert (found - expected).abs().max() <= 0.5 / 255 + 1e-3
    references = kept["references"].float() / 255
    assert not torch.equal(references, kept["images"].float() / 255)
    lots = create_explainer("lots", target=references, **LOTS)
    found = load_file(folder / "parts" / "by-reference-0.safetensors")["maps"].float() / 255
    assert (
        found - lots(subject.model, images, input_spec=subject.input_spec)
    ).abs().max() <= 0.05  # pictures are 8 bit

    study = read_study("lots", "figure-5.1", overrides)
    figure = study.figures(StudyFolder(folder, study, 1).finished())["figure.png"]
    assert [axes.get_title() for axes in figure.axes[:5]] == [
        "image",
        "reference",
        "by class",
        "by mean",
        "by reference",
    ]


def test_a_reference_is_another_image_of_the_class_or_the_one_that_is_given(tmp_path):
    album = ImageSelection(Data(name="digits"), "a study")
    place = album.find("2")
    other = album.another(place, seed=0)
    assert other != place
    assert album.label(other) == "2"
    file = tmp_path / "mine.png"
    Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(file)
    with pytest.raises(SightlineError, match="reference=FILE"):
        album.another(file, seed=0)
    columns = f"columns={json.dumps([{'label': 'x', 'name': 'lots', 'features': 'reference', 'options': LOTS}])}"
    overrides = [*SPLIT, columns, "images=[3]", f"reference={file}"]
    folder = reproduce("lots", "figure-5.7", overrides, output=tmp_path / "out")
    references = load_file(folder / "parts" / "pictures.safetensors")["references"]
    assert references.unique().tolist() == [128]


def test_targets_from_training_images_need_some(tmp_path):
    (tmp_path / "photos.csv").write_text("path,label\na.png,1\nb.png,2\n")
    for name in ("a", "b"):
        Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    overrides = [f"data={{name: csv, path: {tmp_path / 'photos.csv'}}}", SPLIT[1], "images=[0]", "split=train"]
    with pytest.raises(SightlineError, match="splits train and test"):
        reproduce("lots", "figure-5.1", overrides, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_steps_of_lots_are_those_of_the_explainer(tmp_path):
    folder = reproduce("lots", "figure-4.2", [*SPLIT, f"options={json.dumps(LOTS)}"], output=tmp_path / "out")
    steps = load_file(folder / "parts" / "steps.safetensors")
    subject = load_subject(SizedModel(**SMALL), torch.device("cpu"), 0)
    image = steps["original"][None].float() / 255
    lots = create_explainer("lots", **LOTS)
    found = lots.synthesize(subject.model, image, input_spec=subject.input_spec)
    assert (steps["adversarial"].float() / 255 - found.images[0]).abs().max() <= 0.02
    assert (steps["activation map"][0].float() / 255 - lots.maps(image, found.images)[0]).abs().max() <= 0.05
    weighted = steps["original"].float() * steps["activation map"].float() / 255
    assert (steps["explanation image"].float() - weighted).abs().max() <= 2
    luma = (steps["original"].float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert (steps["original, grey"][0].float() - luma).abs().max() <= 1
    (row,) = rows(folder)
    assert (row["iterations"], row["stopped"]) == ("3", "iterations")
    assert float(row["distance"]) == pytest.approx(float(found.distances[0]), rel=0.1)
    study = read_study("lots", "figure-4.2", SPLIT)
    figure = study.figures(StudyFolder(folder, study, 1).finished())["figure.png"]
    assert [axes.get_title()[:3] for axes in figure.axes] == [f"({letter})" for letter in "abcdefgh"]
    assert study.scaled(0.1) == study


def test_a_single_image_is_folded_in_two_lines():
    pictures = torch.rand(1, 3, 8, 8)
    overlays = {str(k): None if k == 6 else pictures for k in range(7)}
    figure = panel_module.draw(Overlay(pictures, overlays, []), {0: ["cat"]}, 3)
    assert [axes.get_title() for axes in figure.axes] == ["image", *map(str, range(7))]
    assert figure.axes[0].get_gridspec().get_geometry() == (2, 4)
    assert [len(axes.texts) for axes in figure.axes] == [0] * 7 + [1]


def test_a_layer_is_for_methods_that_take_maps_from_it():
    subject = load_subject(SizedModel(**SMALL, layer="blocks.1"), torch.device("cpu"), 0)
    assert subject.layer_for("gradcam") == "blocks.1"
    assert subject.layer_for("lots") is None


def test_methods_are_timed_in_turn_after_a_call_that_is_not_counted(tmp_path, monkeypatch):
    calls = []

    def recorded(name, **options):
        def explainer(model, images, **kwargs):
            calls.append((type(model).__name__, name))
            clock.now += {"gradcam": 0.002, "randomcam": 0.001}[name] * len(calls)

        return explainer

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "create_explainer", recorded)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    folder = reproduce("lots", "table-5.3", TIMING, output=tmp_path / "out")
    A, B, g, r = "SmallCNN", "LeNet5", "gradcam", "randomcam"
    first = [(m, x) for m in (A, B) for x in (g, g, r, r)]  # warm-up, then the call that counts
    second = [(m, x) for m in (A, B) for x in (r, g)]  # the order is shifted by one
    third = [(A, g), (B, g)]  # the slow method has had its rounds
    assert calls == first + second + third
    # The n-th call takes n times its method's time: Grad-CAM on A was counted at the calls 2, 10 and 13.
    table = {(row["model"], row["method"]): row for row in rows(folder)}
    row = table["A", "Grad-CAM"]
    assert (float(row["ms"]), float(row["least"]), float(row["greatest"])) == pytest.approx((20, 4, 26))
    assert (row["rounds"], row["printed"]) == ("3", "12.5")
    assert float(table["B", "Chance"]["ms"]) == pytest.approx((8 + 11) / 2)
    assert "| Grad-CAM | 20.00 (12.50) |" in (folder / "report.md").read_text()


def test_a_warm_up_may_be_shorter(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(timing, "create_explainer", lambda name, **o: made.append(o) or (lambda *a, **k: None))
    methods = "methods=[{label: x, name: gradcam++, options: {eps: 0.1}, rounds: 1, warm_up: {eps: 0.2}}]"
    reproduce("lots", "table-5.3", [*TIMING, "paper_values={}", methods], output=tmp_path / "out")
    assert made == [{"eps": 0.2}, {"eps": 0.1}] * 2


def test_a_timing_says_which_method_is_not_defined(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "create_explainer", undefined)
    folder = reproduce(
        "lots",
        "table-5.3",
        [*TIMING, "methods=[{label: Eigen, name: eigencam}]", "paper_values={}"],
        output=tmp_path / "out",
    )
    assert "| Eigen | not defined | not defined | 3 |" in (folder / "report.md").read_text()


def test_real_timings_are_positive_and_scale_takes_fewer_rounds(tmp_path):
    folder = reproduce("lots", "table-5.3", TIMING, scale=0.34, output=tmp_path / "out")
    assert [row["rounds"] for row in rows(folder)] == ["2", "1"] * 2
    assert all(float(row["ms"]) > 0 for row in rows(folder))


def test_a_sweep_changes_one_option_at_a_time(tmp_path):
    study = read_study("lots", "section-6.2", ["axes={tau: [0.1, 1.0], iterations: [10, 500]}"])
    assert isinstance(study, Sweep)
    assert study.parts() == ["tau=0.1 iterations=500", "tau=1 iterations=500", "tau=0.1 iterations=10"]


def test_a_sweep_measures_the_maps_of_each_setting(tmp_path):
    folder = reproduce("lots", "section-6.2", SWEEP, output=tmp_path / "out")
    found = {float(row["sigma"]): row for row in rows(folder)}
    model, _ = load_model("sightline/small_cnn")
    for sigma, row in found.items():
        map_ = explain(model, torch.rand(1, 3, 32, 32), create_explainer("gaussian", sigma=sigma))
        assert float(row["complexity"]) == pytest.approx(float(map_.mean()), rel=1e-4)
        assert float(row["average_drop_low"]) <= float(row["average_drop"]) <= float(row["average_drop_high"])
        assert float(row["ms"]) > 0
        assert row["n"] == "6"
    study = read_study("lots", "section-6.2", SWEEP)
    figure = study.figures(StudyFolder(folder, study, 1).finished())["figure.png"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["seconds\nan image", "Average drop", "Complexity"]
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["0.1", "0.25"]
    assert figure.axes[2].lines[0].get_ydata().tolist() == pytest.approx(
        [float(found[sigma]["complexity"]) for sigma in (0.1, 0.25)], rel=1e-4
    )
    assert "| sigma | ms an image | Average drop | Complexity |" in (folder / "report.md").read_text()


def test_a_scaled_sweep_sees_fewer_images(tmp_path):
    assert read_study("lots", "section-6.2", SWEEP).scaled(0.5).num_images == 3
