"""An audit ranks images by what the model uses outside its evidence, writes it down, and goes on after an interruption."""

import csv
import math

import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from typer.testing import CliRunner

import sightline as sl
from sightline.attributions.lots import LOTS
from sightline.auditing.run import audit, share_outside
from sightline.cli.app import app
from sightline.data import ImageDataset, Sample

SPEC = sl.InputSpec((0.0,) * 3, (1.0,) * 3, (16, 16))


class Halves(ImageDataset):
    """Black pictures with a bright square on the left, and in every third one also on the right."""

    def __init__(self) -> None:
        super().__init__(["left", "right"], [0] * 9, [False] * 9)

    def load(self, index: int) -> Sample:
        pixels = torch.zeros(3, 16, 16, dtype=torch.uint8)
        pixels[:, 4:12, 1:5] = 220
        if index % 3 == 0:
            pixels[:, 4:12, 11:15] = 180
        return Sample(tv_tensors.Image(pixels), 0, None, index, None, f"/photos/{index}.png")


class Sides(nn.Module):
    """Two features, how bright either half is; the left one speaks for class 0, the right one for class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight = nn.Parameter(torch.eye(2))

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x)
        return self.head(torch.stack([a[..., :8].sum((1, 2, 3)), a[..., 8:].sum((1, 2, 3))], 1) / 10)


def test_share_outside_is_the_part_without_evidence() -> None:
    used = torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]], [[2.0, 2.0]]])
    evidence = torch.tensor([[[1.0, 0.5]], [[1.0, 0.0]], [[1.0, 1.0]]])
    torch.testing.assert_close(share_outside(used, evidence), torch.tensor([1.5 / 4, torch.nan, 0]), equal_nan=True)


def test_images_with_a_second_object_come_first(tmp_path) -> None:
    found = audit(
        Sides(), Halves(), tmp_path, input_spec=SPEC, reference_explainer="hirescam", layer="layer", iterations=300
    )
    assert {f.index for f in found[:3]} == {0, 3, 6}
    assert found[2].outside_fraction > found[3].outside_fraction + 0.1
    assert {(f.label, f.predicted, f.runner_up) for f in found} == {("left", "left", "right")}
    rows = list(csv.DictReader((tmp_path / "audit.csv").open()))
    assert [int(row["index"]) for row in rows] == [f.index for f in found]
    assert [float(row["outside_fraction"]) for row in rows] == [f.outside_fraction for f in found]
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/jpeg") == 3 * 9
    assert "/photos/" not in page
    assert page.index("0.png") < page.index("1.png")


def test_interrupted_pass_resumes(tmp_path, monkeypatch) -> None:
    given = {"input_spec": SPEC, "reference_explainer": "hirescam", "layer": "layer", "iterations": 5, "batch_size": 4}
    whole = audit(Sides(), Halves(), tmp_path / "whole", **given)
    seen: list[int] = []
    plain = LOTS.explain_images

    def once(self, model, images, *rest):
        if seen == [4]:
            raise KeyboardInterrupt
        seen.append(len(images))
        return plain(self, model, images, *rest)

    monkeypatch.setattr(LOTS, "explain_images", once)
    with pytest.raises(KeyboardInterrupt):
        audit(Sides(), Halves(), tmp_path / "part", **given)
    assert not (tmp_path / "part" / "index.html").exists()
    monkeypatch.setattr(
        LOTS,
        "explain_images",
        lambda self, model, images, *rest: seen.append(len(images)) or plain(self, model, images, *rest),
    )
    assert audit(Sides(), Halves(), tmp_path / "part", **given) == whole
    assert seen == [4, 4, 1]


def test_images_without_a_map_are_last_and_counted(tmp_path) -> None:
    class Dark(Halves):
        def load(self, index: int) -> Sample:
            sample = super().load(index)
            if index == 4:
                sample.image.zero_()
            return sample

    found = audit(
        Sides(), Dark(), tmp_path, input_spec=SPEC, reference_explainer="hirescam", layer="layer", iterations=3
    )
    assert found[-1].index == 4
    assert math.isnan(found[-1].outside_fraction)
    assert "1 image has no map" in (tmp_path / "index.html").read_text()


def test_audit_writes_its_page(tmp_path) -> None:
    options = ["--model", "sightline/lenet5", "--iterations", "1", "--split", "val", "-o", str(tmp_path / "audit")]
    from safetensors.torch import save_file

    model, _ = sl.load_model("sightline/lenet5", classes=5)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    done = CliRunner().invoke(
        app, ["audit", "digits", "copies=1", "size=32", "--weights", str(tmp_path / "weights.safetensors"), *options]
    )
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "audit" / "index.html").is_file()
    with (tmp_path / "audit" / "audit.csv").open(newline="") as file:
        first, *_ = csv.DictReader(file)
    assert f"highest {float(first['outside_fraction']):.0%}, of {first['path']}" in done.stdout
