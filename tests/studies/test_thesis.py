"""The recipes of the thesis: its images, its layers, its figures."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from sightline import explain, load_model
from sightline._core.seeding import derive_seed
from sightline.errors import SightlineError
from sightline.studies import read_study, reproduce, shipped_studies

ITEMS = [name.partition("/")[2] for name in shipped_studies() if name.startswith("lots/")]
STUDIES = {item: read_study("lots", item) for item in ITEMS}
DIGITS, MODEL = "data={name: digits, size: 32, copies: 1}", "model={name: sightline/small_cnn, size: 32}"


def models(item: str) -> list:
    study = STUDIES[item]
    return study.models if hasattr(study, "models") else [study.model]


@pytest.mark.parametrize("item", [item for item in ITEMS if item not in ("table-5.3", "figure-5.7")])
def test_images_are_the_first_of_each_class_of_the_validation_set(item: str) -> None:
    data = STUDIES[item].data
    assert data is not None
    assert data.name == "imagenet"
    assert (data.options["per_class"], data.options["order"]) == (1, "first")
    assert ("train" in data.options) == (item not in ("table-5.1", "figure-5.1"))  # these two need training images


@pytest.mark.parametrize(("item", "rows"), [("table-5.1", 3), ("table-5.2", 7)])
def test_every_row_of_a_table_has_a_thousand_images(item: str, rows: int) -> None:
    study = STUDIES[item]
    assert study.num_images == 1000
    assert [row.num_images for row in study.explainers] == [None] * rows
    assert [*study.paper_values[study.models[0].label]] == [row.label for row in study.explainers]
    few = study.scaled(0.1)
    assert few.num_images == 100


WITH_CAMS = [item for item in ITEMS if any(model.layer for model in models(item))]


def test_every_item_with_cams_names_its_layers() -> None:
    assert {"table-5.2", "table-5.3", "figure-5.2", "figure-5.3", "figure-5.4", "figure-5.7", "figure-A.1"} <= set(
        WITH_CAMS
    )


@pytest.mark.parametrize("name", ["alexnet", "resnet50", "densenet121", "convnext_tiny"])
def test_maps_are_of_the_last_convolution_that_runs(name: str) -> None:
    ran: list[tuple[str, torch.Size]] = []
    with torch.device("meta"):
        model = torchvision.models.get_model(name).eval()
        for path, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, __, output, path=path: ran.append((path, output.shape)))
        model(torch.rand(1, 3, 224, 224))
    named = {m.layer for item in WITH_CAMS for m in models(item) if m.name == f"torchvision/{name}"}
    assert named == {ran[-1][0]}
    assert ran[-1][1][-1] == (13 if name == "alexnet" else 7)


def test_grad_cam_and_hires_cam_differ_there_on_resnet_50() -> None:
    torch.manual_seed(0)
    model, spec = load_model("torchvision/resnet50", None, size=64)
    images = torch.rand(2, 3, 64, 64)
    layer = next(m.layer for m in models("table-5.2") if m.label == "ResNet-50")
    one, other = (
        explain(model.eval(), images, method, layer=layer, input_spec=spec) for method in ("gradcam", "hirescam")
    )
    assert (one - other).abs().max() > 0.05
    same = [explain(model, images, method, input_spec=spec) for method in ("gradcam", "hirescam")]
    torch.testing.assert_close(
        *same, atol=1e-4, rtol=0
    )  # behind the last stage there are but a mean and a linear layer


def test_smoothgrad_cam_pp_averages_25_copies_everywhere() -> None:
    found = []
    for study in STUDIES.values():
        rows = getattr(study, "explainers", None) or getattr(study, "columns", None) or getattr(study, "methods", [])
        found += [row.options.get("samples") for row in rows if row.name == "smoothgradcam++"]
    assert found == [25] * 7


def test_printed_values_are_the_papers() -> None:
    assert STUDIES["figure-5.2"].paper_values == {
        "image": {"probability": 0.9581}, "HiRes-CAM": {"drop": 0.0321}, "LOTS": {"drop": 0.0699},
    }  # fmt: skip
    assert STUDIES["figure-A.4"].paper_values == {"before": 0.8852, "after": 0.4906}
    assert STUDIES["figure-A.5"].paper_values == {"coherency": 0.9459}


def test_a_panel_has_the_drop_of_each_map_next_to_the_papers(tmp_path: Path) -> None:
    columns = "columns=[{label: HiRes-CAM, name: hirescam}, {label: LOTS, name: gaussian}]"
    changes = [DIGITS, MODEL, columns, "images=null", "num_images=7"]
    folder = reproduce("lots", "figure-5.2", changes, output=tmp_path / "out")
    torch.default_generator.manual_seed(derive_seed(0, "sightline/small_cnn", "weights"))
    model, spec = load_model("sightline/small_cnn", size=32)
    model.eval()
    images = load_file(folder / "parts" / "pictures.safetensors")["images"].float() / 255
    rows = [line.split(",") for line in (folder / "table.csv").read_text().splitlines()]
    header, rows = rows[0], rows[1:]
    for column in ("HiRes-CAM", "LOTS"):
        parts = [load_file(folder / "parts" / f"{column}-{start}.safetensors")["maps"] for start in (0, 5)]
        maps = torch.cat(parts).float()[:, None] / 255
        with torch.no_grad():
            clean, seen = (model(spec.normalize(x)).softmax(1) for x in (images, images * maps))
        index = clean.argmax(1, keepdim=True)
        expected = ((clean - seen) / clean).gather(1, index)[:, 0].clamp_min(0)
        found = [float(row[header.index("drop")]) for row in rows if row[header.index("method")] == column]
        assert found == pytest.approx(expected.tolist(), abs=5e-3)  # pictures and maps are kept in 8 bits
    report = (folder / "report.md").read_text()
    assert all(text in report for text in ("[0.9581]", "[0.0321]", "[0.0699]"))


@pytest.mark.parametrize("wrong", ["{image: {drop: 0.1}}", "{LOTS: {probability: 0.1}}", "{LOTS: {drap: 0.1}}"])
def test_printed_values_of_another_kind_are_rejected(wrong: str) -> None:
    with pytest.raises(SightlineError, match="paper_values"):
        read_study("lots", "figure-5.2", [f"paper_values={wrong}"])
    with pytest.raises(SightlineError, match="after is not a value of coherency"):
        read_study("lots", "figure-A.5", ["paper_values={after: 0.1}"])


def test_a_walkthrough_has_the_papers_values(tmp_path: Path) -> None:
    changes = [DIGITS, MODEL, "image=0", "method={label: map, name: gradcam}"]
    folder = reproduce("lots", "figure-A.4", changes, output=tmp_path / "out")
    report = (folder / "report.md").read_text()
    assert "[0.8852]" in report
    assert "[0.4906]" in report
    header, row = [line.split(",") for line in (folder / "table.csv").read_text().splitlines()]
    assert dict(zip(header, row))["printed_before"] == "0.8852"


def test_the_change_of_an_image_is_shown_ten_times_as_strong(tmp_path: Path) -> None:
    """Figure 4.1: ten times the difference, shifted by 128 and clamped."""
    changes = [DIGITS, MODEL, "options={iterations: 4, alpha: 0.02, tau: 0.0}"]
    folder = reproduce("lots", "figure-4.1", changes, output=tmp_path / "out")
    steps = load_file(folder / "parts" / "steps.safetensors")
    assert set(steps) == {"original", "change", "adversarial"}
    original, change, adversarial = (steps[name].float() for name in ("original", "change", "adversarial"))
    expected = (10 * (adversarial - original) + 128).clamp(0, 255)
    assert (change - expected).abs().max() <= 10.5  # each image is rounded to 1/255
    assert change.std() > 5
    study = read_study("lots", "figure-4.1", changes)
    assert study.steps == ["original", "change", "adversarial"]
