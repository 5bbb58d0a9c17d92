"""Grids: models x explainers x metrics as one table."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import sightline as sl
from sightline import SightlineError, data, load_model
from sightline._core.seeding import derive_seed
from sightline.cli.app import app
from sightline.data.transforms import eval_transform
from sightline.evaluation import evaluate_model
from sightline.network.features import class_features
from sightline.studies import folder as folder_module
from sightline.studies import load_study, read_study, run_study

PLAN = """
data: {name: digits, size: 32, copies: 1}
split: test_shifted
num_images: 6
batch: 4
models:
  - {label: small, name: sightline/small_cnn, size: 32}
  - {label: other, name: sightline/small_cnn, size: 32, layer: blocks.1}
explainers:
  - gradcam
  - {label: Chance, name: randomcam, num_images: 3}
metrics:
  accuracy: {}
  energy_in_mask: {}
  insertion: {steps: 4}
gallery: 2
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline="")))


def test_the_table_is_what_evaluate_model_finds(plan: Path, tmp_path: Path) -> None:
    folder = run_study(load_study(plan), tmp_path / "out")
    table = rows(folder / "table.csv")
    assert {(row["model"], row["explainer"], row["metric"], row["n"]) for row in table} == {
        *((model, "", "accuracy", "6") for model in ("small", "other")),
        *(
            (model, row, metric, n)
            for model in ("small", "other")
            for row, n in (("gradcam", "6"), ("Chance", "3"))
            for metric in ("energy_in_mask", "insertion")
        ),
    }

    samples = pq.read_table(folder / "samples.parquet").to_pylist()
    seen = sorted({row["index"] for row in samples})
    few = {row["index"] for row in samples if row["explainer"] == "Chance"}
    assert len(seen) == 6
    assert len(few) == 3
    assert few < set(seen)  # nested

    test = data.DATASETS.create("digits", size=32, copies=1)["test_shifted"]
    see = eval_transform(32)
    pairs = [see(test[i].image, test[i].mask, None)[:2] for i in seen]
    batch = sl.Batch(
        torch.stack([image.as_subclass(torch.Tensor) for image, _ in pairs]),
        test.labels[torch.tensor(seen)],
        torch.stack([mask.as_subclass(torch.Tensor) for _, mask in pairs]),
    )
    torch.default_generator.manual_seed(derive_seed(0, "sightline/small_cnn", "weights"))
    model, spec = load_model("sightline/small_cnn", size=32)
    found = evaluate_model(
        model, [batch], ["gradcam"], {"energy_in_mask": {}, "insertion": {"steps": 4}}, input_spec=spec
    )
    for metric in ("energy_in_mask", "insertion"):
        row = next(r for r in table if (r["model"], r["explainer"], r["metric"]) == ("small", "gradcam", metric))
        assert float(row["value"]) == pytest.approx(found[f"{metric}@gradcam"].value, rel=1e-4)
        values = [
            r["value"] for r in samples
            if (r["model"], r["explainer"], r["metric"]) == ("small", "gradcam", metric)
        ]  # fmt: skip
        np.testing.assert_allclose(values, found.samples[f"{metric}@gradcam"], rtol=1e-4)
    curve = [
        float(r["value"])
        for r in rows(folder / "curves.csv")
        if (r["model"], r["explainer"], r["metric"]) == ("small", "gradcam", "insertion")
    ]
    np.testing.assert_allclose(curve, found.curves["gradcam"]["insertion"].score, rtol=1e-4)

    gallery = load_file(folder / "gallery.safetensors")
    assert set(gallery["index"].tolist()) < few  # images that every row has
    assert {key for key in gallery if key.startswith("maps/")} == {
        f"maps/{model}/{row}" for model in ("small", "other") for row in ("gradcam", "Chance")
    }
    assert gallery["maps/other/Chance"].shape == (2, 32, 32)


def test_paired_differences_are_over_the_images_that_both_rows_see(plan: Path, tmp_path: Path) -> None:
    folder = run_study(load_study(plan), tmp_path / "out")
    samples = pq.read_table(folder / "samples.parquet").to_pylist()
    values = {(r["model"], r["explainer"], r["metric"], r["index"]): r["value"] for r in samples}
    tests = rows(folder / "tests.csv")
    within = [t for t in tests if t["model"] == t["against_model"]]
    between = [t for t in tests if t["model"] != t["against_model"]]
    assert {(t["explainer"], t["against_explainer"], t["n"]) for t in within} == {("gradcam", "Chance", "3")}
    assert {(t["explainer"], t["metric"], t["n"]) for t in between} == {
        ("", "accuracy", "6"), ("gradcam", "energy_in_mask", "6"), ("gradcam", "insertion", "6"),
        ("Chance", "energy_in_mask", "3"), ("Chance", "insertion", "3"),
    }  # fmt: skip
    one = next(t for t in within if t["metric"] == "insertion" and t["model"] == "small")
    shared = [index for (model, row, _, index) in values if (model, row) == ("small", "Chance")]
    differences = [
        values["small", "gradcam", "insertion", i] - values["small", "Chance", "insertion", i] for i in shared
    ]
    assert float(one["difference"]) == pytest.approx(np.mean(differences), abs=1e-5)


def test_an_interrupted_table_resumes(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_study(load_study(plan), tmp_path / "whole")
    keep, calls = folder_module.StudyFolder.keep, itertools.count()

    def stops(self, name, work, device):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return keep(self, name, work, device)

    monkeypatch.setattr(folder_module.StudyFolder, "keep", stops)
    with pytest.raises(KeyboardInterrupt):
        run_study(load_study(plan), tmp_path / "parts")
    assert "Not finished: 3 of 6 parts" in (tmp_path / "parts" / "report.md").read_text()
    monkeypatch.undo()
    run_study(load_study(plan), tmp_path / "parts")
    for name in ("table.csv", "tests.csv", "curves.csv", "samples.parquet", "gallery.safetensors"):
        assert (whole / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_functions_and_saved_maps_are_judged_like_our_own(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The energy of a map that is the same everywhere but for a corner has a closed form."""
    (tmp_path / "theirs.py").write_text(
        "import numpy as np\n"
        "def corner(model, inputs, targets):\n"
        "    maps = np.zeros((len(inputs), 32, 32)); maps[:, 0, 0] = 7\n"
        "    return maps\n"
    )
    monkeypatch.chdir(tmp_path)
    total = len(data.DATASETS.create("digits", size=32, copies=1)["test_shifted"])
    saved = np.zeros((total, 32, 32), np.uint8)
    saved[:, 0, 0] = 1
    np.save(tmp_path / "maps.npy", saved)
    rows_ = "explainers=[{label: theirs, function: 'theirs:corner'}, {label: saved, maps: maps.npy}, gradcam]"
    metrics = "metrics={energy_in_mask: {}, coherency: {}}"
    folder = run_study(load_study(plan, [rows_, metrics]), tmp_path / "out")
    table = {(r["model"], r["explainer"], r["metric"]): float(r["value"]) for r in rows(folder / "table.csv")}
    assert table["small", "theirs", "energy_in_mask"] == table["small", "saved", "energy_in_mask"] == 0
    assert table["small", "theirs", "coherency"] == 1  # the same map of every image
    assert ("small", "saved", "coherency") not in table
    assert "coherency@saved: it explains changed images" in (folder / "report.md").read_text()


def test_scores_are_about_the_predicted_class_where_maps_are_about_the_label(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map is a column at the class asked for, so that the gallery tells which one that was; the drop is by hand."""
    (tmp_path / "asked.py").write_text(
        "import torch\n"
        "def column(model, inputs, targets):\n"
        "    maps = torch.zeros(len(inputs), 32, 32); maps[torch.arange(len(inputs)), :, targets] = 1\n"
        "    return maps\n"
    )
    monkeypatch.chdir(tmp_path)
    changes = [
        "explainers=[{label: own, function: 'asked:column'}, {label: labelled, function: 'asked:column', target: label}]",
        "models=[{label: net, name: sightline/small_cnn, size: 32}]", "num_images=8", "gallery=8",
        "metrics={average_drop: {}, coherency: {}}",
    ]  # fmt: skip
    folder = run_study(load_study(plan, changes), tmp_path / "out")
    found = load_file(folder / "gallery.safetensors")
    test = data.DATASETS.create("digits", size=32, copies=1)["test_shifted"]
    torch.default_generator.manual_seed(derive_seed(0, "sightline/small_cnn", "weights"))
    model, spec = load_model("sightline/small_cnn", size=32)
    model.eval()
    places = found["index"]
    see = eval_transform(32)
    images = torch.stack([see(test[i].image).as_subclass(torch.Tensor) for i in places.tolist()])
    with torch.no_grad():
        before = model(spec.normalize(images)).softmax(1)
        maps = found["maps/net/labelled"].float() / 255
        after = model(spec.normalize(images * maps[:, None])).softmax(1)
    predicted, labels = before.argmax(1), test.labels[places]
    assert (predicted != labels).any()
    assert (maps.sum(1).argmax(1) == labels).all()
    assert (found["maps/net/own"].float().sum(1).argmax(1) == predicted).all()
    y, o = (each.gather(1, predicted[:, None])[:, 0] for each in (before, after))
    drop = ((y - o).clamp_min(0) / y).mean()
    table = {(r["explainer"], r["metric"]): float(r["value"]) for r in rows(folder / "table.csv")}
    assert table["labelled", "average_drop"] == pytest.approx(float(drop), rel=1e-3)
    assert table["labelled", "coherency"] == 1  # the explanation image is explained for the label too


def test_the_thesis_scores_the_predicted_class_and_looks_features_up_by_the_label() -> None:
    study = read_study("lots", "table-5.1")
    assert study.target == "predicted"
    assert [(row.label, row.explained) for row in study.explainers] == [
        ("Zero", None), ("Class", "label"), ("Mean", "label"),
    ]  # fmt: skip


def test_features_are_looked_up_by_the_label_unless_told_otherwise(plan: Path) -> None:
    asked = (
        "explainers=[{label: a, name: lots, features: mean}, {label: b, name: lots, features: mean, target: predicted}]"
    )
    assert [row.explained for row in load_study(plan, [asked]).explainers] == ["label", "predicted"]


def test_contrast_asks_another_question(plan: Path, tmp_path: Path) -> None:
    few = ["metrics={energy_in_mask: {}}", "explainers=[gradcam]"]
    values = [
        float(rows(run_study(load_study(plan, [*few, f"contrast={on}"]), tmp_path / on) / "table.csv")[0]["value"])
        for on in ("true", "false")
    ]
    assert values[0] != values[1]


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_table(plan: Path, tmp_path: Path) -> None:
    few = ["explainers=[gradcam]", "models=[{label: small, name: sightline/small_cnn, size: 32}]"]
    tables = [
        rows(run_study(load_study(plan, [*few, f"compiled={on}"]), tmp_path / on) / "table.csv")
        for on in ("true", "false")
    ]
    for one, other in zip(*tables):
        assert float(one["value"]) == pytest.approx(float(other["value"]), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("explainers=[{label: a, name: gradcam, function: 'x:y'}]", "name and function is given"),
        ("explainers=[{label: a}]", "nothing is given"),
        ("explainers=[{label: a, function: 'no_such_module:f'}]", "no_such_module"),
        ("explainers=[{label: a, maps: missing.npy}]", "missing.npy"),
        ("explainers=[{label: a, maps: missing.npy, target: label}]", "have their classes already"),
        ("explainers=[gradcan]", "'gradcam'"),
        ("explainers=[{label: a, name: gradcam, options: {sigma: 1}}]", "'sigma'"),
        ("metrics={insertio: {}}", "'insertion'"),
        ("num_images=100000", "the data has"),
        ("split=tset", "'test_iid'"),
        ("explainers=[gradcam, gradcam]", "taken"),
    ],
)
def test_grid_invalid_keys_raise_before_anything_is_written(
    plan: Path, tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(SightlineError, match=message):
        run_study(load_study(plan, [change]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_makes_a_table_of_a_model_from_elsewhere(tmp_path: Path) -> None:
    model, _ = load_model("sightline/lenet5", classes=5)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    asked = [
        "evaluate", "--model", "sightline/lenet5", "--weights", str(tmp_path / "mine.pth"), "--data", "digits",
        "copies=1", "size=32", "--num-images", "4", "--explainers", "gradcam,gaussian", "--metrics", "accuracy,energy_in_mask",
    ]  # fmt: skip
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, SightlineError)
    assert "--output" in str(done.exception)
    done = CliRunner().invoke(app, [*asked, "--output", str(tmp_path / "table")])
    assert done.exit_code == 0, done.output
    assert {(r["model"], r["explainer"], r["n"]) for r in rows(tmp_path / "table" / "table.csv")} == {
        ("lenet5", "", "4"), ("lenet5", "gradcam", "4"), ("lenet5", "gaussian", "4"),
    }  # fmt: skip


@pytest.mark.slow
def test_lots_takes_its_target_from_training_images(plan: Path, tmp_path: Path) -> None:
    """A class's features from its training images, looked up by the label: what the explainer does by itself."""
    changes = [
        "explainers=[{label: mean, name: lots, options: {iterations: 3}, features: mean}]",
        "models=[{label: net, name: sightline/small_cnn, size: 32}]", "num_images=2", "gallery=2",
        "metrics={complexity: {}}",
    ]  # fmt: skip
    folder = run_study(load_study(plan, changes), tmp_path / "out")
    found = load_file(folder / "gallery.safetensors")
    splits = data.DATASETS.create("digits", size=32, copies=1)
    torch.default_generator.manual_seed(derive_seed(0, "sightline/small_cnn", "weights"))
    model, spec = load_model("sightline/small_cnn", size=32)
    see = eval_transform(32)
    train = splits["train"]
    batch = sl.Batch(
        torch.stack([see(train[i].image).as_subclass(torch.Tensor) for i in range(len(train))]), train.labels
    )
    features = class_features(model, [batch], input_spec=spec)
    places = found["index"].tolist()
    images = torch.stack([see(splits["test_shifted"][i].image).as_subclass(torch.Tensor) for i in places])
    explainer = sl.create_explainer("lots", iterations=3, target="mean", class_features=features)
    maps = explainer(model, images, splits["test_shifted"].labels[found["index"]], None, spec)
    assert ((maps * 255).round() - found["maps/net/mean"].float()).abs().max() <= 1
