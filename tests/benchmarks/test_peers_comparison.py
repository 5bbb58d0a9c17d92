"""The comparison with peers: what it writes for them, how it chooses, and how it measures what comes back."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torchvision.io import write_png

import sightline as sl
from sightline.data.loader import create_loader

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let the scripts import each other, and write below a folder of the test."""
    monkeypatch.setattr(sys, "path", [str(FOLDER / "peers"), str(FOLDER), *sys.path])
    monkeypatch.chdir(tmp_path)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


def masked_images(folder: Path) -> dict[str, Any]:
    """Twelve noisy images of each split and of two classes, with a square as mask."""
    draw, rows = torch.Generator().manual_seed(0), []
    for split in ("train", "val", "test"):
        for number in range(12):
            image = torch.randint(0, 256, (3, 40, 40), generator=draw, dtype=torch.uint8)
            mask = torch.zeros(1, 40, 40, dtype=torch.uint8)
            mask[:, 10:25, 5:30] = 255
            name = f"{split}{number}"
            write_png(image, str(folder / f"{name}.png"))
            write_png(mask, str(folder / f"{name}-mask.png"))
            rows.append(f"{name}.png,{'ab'[number % 2]},{name}-mask.png,{split}\n")
    (folder / "list.csv").write_text("path,label,mask,split\n" + "".join(rows))
    return {"name": "csv", "path": str(folder / "list.csv")}


def test_the_files_of_a_set_hold_the_pixels_masks_and_contexts_that_sightline_has(tmp_path: Path) -> None:
    import export
    import images

    splits = export.stamped(masked_images(tmp_path), correlation=0.5)
    export.write(splits, tmp_path / "set")
    for name, data in splits.items():
        found = images.read(tmp_path / "set", name)
        (batch,) = create_loader(data, size=224, batch_size=12, train=False)
        assert torch.equal(found.pixels, (batch.images * 255).round().to(torch.uint8))
        assert torch.equal(found.masks, batch.masks)
        assert torch.equal(found.labels, batch.labels)
        assert torch.equal(found.contexts, data.owners)
    assert torch.equal(
        images.read(tmp_path / "set", "val_own").contexts, images.read(tmp_path / "set", "val_own").labels
    )
    other = images.read(tmp_path / "set", "val_other")
    assert (other.contexts != other.labels).all()
    rows = {name: list(csv.DictReader((tmp_path / "set" / f"{name}.csv").open())) for name in ("training", "groups")}
    assert {row["split"] for row in rows["training"]} == {"train", "test_own", "test_other"}
    trained = [row["path"] for row in rows["groups"] if row["split"] == "train"]
    assert len(trained) == 24
    assert all(path.startswith("val") for path in trained)


def test_a_partition_has_every_image_once_in_the_pair_of_its_label_and_context() -> None:
    import images

    blank = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    some = images.Images(blank, blank[:, 0], torch.tensor([0, 1, 0, 1]), torch.tensor([1, 1, 1, 0]))
    assert some.partition() == {(0, 1): [0, 2], (1, 0): [3], (1, 1): [1]}


def test_augmented_masks_move_with_their_images() -> None:
    import images

    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    masks = torch.zeros(1, 32, 32, dtype=torch.uint8)
    pixels[:, :, 8:20, 4:28], masks[:, 8:20, 4:28] = 255, 1
    one = images.Images(pixels, masks, torch.tensor([0]), torch.tensor([0]))
    data = images.Augmented(one, 32, crop=0.5, flip=True, jitter=0.0, masks=True)
    torch.manual_seed(0)
    for _ in range(5):
        image, _, mask = data[0]
        assert ((image[0] > 0) == mask.bool()).double().mean() > 0.9  # the border may differ by half a pixel


def test_a_last_layer_on_scaled_features_is_one_on_the_features_as_they_are() -> None:
    import efficientnet

    draw = np.random.default_rng(0)
    features, labels = draw.normal(3, [1, 5, 0.2, 2], (60, 4)), draw.integers(0, 3, 60)
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression().fit(scaler.transform(features), labels)
    given = (torch.as_tensor(each) for each in (fitted.coef_, fitted.intercept_, scaler.mean_, scaler.scale_))
    layer = efficientnet.linear(*efficientnet.unscaled(*given)).double()
    expected = torch.as_tensor(fitted.decision_function(scaler.transform(features)))
    assert torch.allclose(layer(torch.as_tensor(features)), expected, atol=1e-4)


def test_a_last_layer_comes_back_from_its_file_with_its_corrections(tmp_path: Path) -> None:
    import efficientnet

    torch.manual_seed(0)
    features, file = torch.randn(6, 5), tmp_path / "network.safetensors"
    first, second, last = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5), torch.nn.Linear(5, 3)
    for layer in (last, efficientnet.corrected([first, second, last])):
        save_file(layer.state_dict(), file)
        assert torch.equal(efficientnet.restored_head(file)(features), layer(features))
    assert torch.equal(layer(features), last(second(first(features).relu()).relu()))


def test_the_box_of_a_mask_ends_after_its_last_pixel() -> None:
    import features

    mask = torch.zeros(10, 12, dtype=torch.uint8)
    assert features.box_of(mask) is None
    mask[2:5, 3:9] = 1
    assert features.box_of(mask) == (3, 2, 9, 5)


def test_the_map_of_a_last_layer_is_the_grad_cam_of_the_whole_network() -> None:
    import features
    import measure

    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = features.last_maps(network, images)
    expected = sl.explain(network, images, "gradcam", layer="bn2")
    found = sl.explainers.resize_maps(measure.gradcam(network.classifier, maps), (64, 64))
    expected = sl.explainers.resize_maps(expected, (64, 64))
    assert expected.max() > 0
    assert torch.allclose(found / found.amax(), expected / expected.amax(), atol=1e-4)


@pytest.mark.parametrize("loss", ["Energy", "L1"])
def test_the_loss_of_a_guided_last_layer_is_that_of_the_guide(loss: str) -> None:
    import heads

    torch.manual_seed(0)
    layer, maps, labels = torch.nn.Linear(6, 3), torch.rand(4, 6, 8, 8), torch.tensor([0, 1, 2, 1])
    boxes = torch.tensor([[1, 2, 5, 8], [0, 0, 3, 3], [4, 1, 8, 6], [2, 2, 4, 7]])
    masks = torch.zeros(4, 8, 8, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.tolist()):
        mask[top:bottom, left:right] = 1
    network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), layer)
    objective = sl.Objective(network, sl.create_guide(loss.lower(), weight=2.0), layer="0")
    expected = objective(sl.Batch(maps, labels, masks=masks))["loss"]
    found = heads.guided_loss(layer, maps, labels, boxes, measure=heads.LOSSES[loss], weight=2.0, side=8)
    torch.testing.assert_close(found, expected)


def test_a_row_that_lacks_seeds_says_which_it_has() -> None:
    import measure

    def run(seed: int) -> dict[str, float]:
        return {"seed": seed, "other": 0.5 + 0.1 * seed, "worst group": 0.5, "own": 0.9, "energy": 0.7, "seconds": 2.0}

    known = {"set": "stamped", "frozen": False, "uses": "-"}
    rows = [
        known | {"method": "all", "runs": [run(0), run(1), run(2)]},
        known | {"method": "one", "runs": [run(0)]},
        known | {"method": "elsewhere", "set": "recomposed", "runs": [run(0)]},
    ]
    assert measure.table(rows, "stamped", frozen=False).splitlines()[2:] == [
        "| all | - | 0.600 ± 0.100 | 0.500 ± 0.000 | 0.900 ± 0.000 | 0.700 ± 0.000 | 2.0 |",
        "| one (seed 0) | - | 0.500 | 0.500 | 0.900 | 0.700 | 2.0 |",
    ]


def fake_features(name: str) -> None:
    """Features of a set in which a strong penalty is worse on validation than a weak one."""
    import features

    draw, found = torch.Generator().manual_seed(0), {}
    for split in ("train0", "train1", "train2", "plain", "val_own", "val_other"):
        labels = torch.arange(30) % 3
        pooled = torch.randn(30, 5, generator=draw)
        pooled[torch.arange(30), labels] += 3
        found |= {f"{split}/pooled": pooled, f"{split}/labels": labels, f"{split}/contexts": labels.clone()}
        found[f"{split}/order"] = torch.arange(30)
    features.file_of(name).parent.mkdir(parents=True)
    save_file(found, features.file_of(name))


def test_the_trial_with_the_best_validation_runs_with_every_seed_and_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import worker
    from protocol import METHODS, SEEDS, chosen_trial, folder_of

    fake_features("stamped")
    method = METHODS["probe"]
    worker.run_all(method, "probe", "stamped")
    told = json.loads((folder_of("stamped", "probe") / "chosen.json").read_text())
    assert len(told["validation"]) == len(method.trials)
    assert told["trial"] == told["validation"].index(max(told["validation"]))
    assert chosen_trial("stamped", "probe")["strength"] == method.trials[told["trial"]]["strength"]
    files = sorted(folder_of("stamped", "probe").glob("*/figures.json"))
    assert len(files) == len(method.trials) + len(SEEDS) - 1
    assert len(capsys.readouterr().out.splitlines()) == len(files)
    worker.run_all(method, "probe", "stamped")
    assert capsys.readouterr().out == ""  # nothing is trained again
