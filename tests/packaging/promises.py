"""What each extra promises (docs/get-started/install.md), in the smallest form.

`.ci/extras` runs each in a venv with that extra alone.

PYTHONPATH=tests:tests/sweeping:tests/rating:tests/marking python tests/packaging/promises.py EXTRA
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

import sightline as sl

IMAGES = torch.rand(2, 3, 64, 64)


def timm(folder: Path) -> None:
    model, spec = sl.load_model("timm/test_resnet", weights=None, classes=2)
    assert sl.explain(model, IMAGES, input_spec=spec).shape == (2, 64, 64)


def captum(folder: Path) -> None:
    for method in ("saliency", "integrated_gradients", "occlusion", "lime"):
        assert sl.explain(resnet18(), IMAGES, method=method).shape == (2, 64, 64)


def hf(folder: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    assert sl.explain(ResNetForImageClassification(config), IMAGES).shape == (2, 64, 64)


def openclip(folder: Path) -> None:
    from clip_folders import save_open_clip

    save_open_clip(folder / "clip")
    opened = sl.open_model(f"hf:{folder / 'clip'}", classes=["cat", "dog"])
    assert sl.explain(opened.model, IMAGES[:, :, :32, :32]).shape == (2, 32, 32)


def cluster(folder: Path) -> None:
    from sightline.data import DATASETS

    assert len(DATASETS.create("digits")["train"]) > 0


def masks(folder: Path) -> None:
    from sightline.localization.grabcut import grabcut

    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, 8:24, 8:24] = 1
    assert grabcut(images, torch.tensor([[4.0, 4, 28, 28]]))[0, 16, 16] == 1


def datasets(folder: Path) -> None:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as Cell

    images = [Image.new("RGB", (16, 16), (60 * i, 0, 0)) for i in range(4)]
    features = Features({"image": Cell(), "label": ClassLabel(names=["cat", "dog"])})
    Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features).save_to_disk(folder / "saved")
    splits = sl.data.create_dataset("arrow", root=str(folder / "saved"), val=0, test=0)
    assert splits["train"][3].image[0, 0, 0] == 180
    assert splits.classes == ["cat", "dog"]


def coco(folder: Path) -> None:
    from sightline.data import DATASETS

    names = ["square", "circle"]
    around = {"bbox": [4, 4, 8, 8], "area": 64, "iscrowd": 0, "segmentation": [[4, 4, 12, 4, 12, 12, 4, 12]]}
    content = {
        "images": [{"id": i, "file_name": f"{name}.jpg", "width": 32, "height": 24} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "category_id": i, **around} for i in range(2)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    for number, part in enumerate(("train", "val")):
        (folder / f"{part}2017").mkdir()
        (folder / "annotations").mkdir(exist_ok=True)
        for i, name in enumerate(names):
            Image.new("RGB", (32, 24), (100 * i, 100 * number, 0)).save(folder / f"{part}2017" / f"{name}.jpg")
        (folder / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
    mask = DATASETS.create("coco", root=folder)["train"].load(0).mask
    assert mask is not None
    assert int(mask.sum()) == 64


def check(folder: Path) -> None:
    from sightline.verification.near_copies import find_near_copies, sketch_image

    sketches = [sketch_image((image * 255).byte()) for image in IMAGES]
    assert [*find_near_copies(sketches, sketches[1:])] == [(1, 0)]


def maps(folder: Path) -> None:
    from tiny import Squares

    model, spec = sl.load_model("sightline/lenet5", weights=None, classes=2, size=32)
    store = sl.maps.compute_maps(model, Squares(4, 0), folder / "maps", input_spec=spec)
    assert store.read([0]).shape == (1, 32, 32)


def train(folder: Path, **changes: object) -> None:
    from tiny import recipe

    run = sl.train(recipe(**changes), output=folder / "run")
    assert run.last.is_file()


def cli(folder: Path) -> None:
    command("--help")
    command("--version")
    command("list", "explainers")
    command("list", "metrics")


def command(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("sightline")
    subprocess.run([beside, *arguments], check=True, stdout=subprocess.DEVNULL)


def report(folder: Path) -> None:
    from run_folders import write_run
    from sightline.reporting.plots.panel import panel

    page = sl.compare([write_run(folder / "a")], [write_run(folder / "b")], folder / "report.html")
    assert page.stat().st_size > 1000
    panel(sl.show(IMAGES, IMAGES[:, 0]), torch.rand(2, 2), [0, 1], ["a", "b"]).savefig(folder / "panel.pdf")


def rating(folder: Path) -> None:
    from studies import make_study, serving

    study = folder / "study.sqlite"
    make_study(study)
    with serving(study) as (_, address, token):
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert browser.open(f"{address}/?token={token}").status == 200
    command("rate", "--help")


def fix(folder: Path) -> None:
    from sessions import serving

    with serving(folder / "fixed") as (_, address, token):
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert browser.open(f"{address}/?token={token}").status == 200
    command("fix", "--help")


def sweep(folder: Path) -> None:
    from swept import RECIPE, SPACE

    from sightline.sweeping import Sweep
    from sightline.sweeping import sweep as run_sweep

    document = Sweep(name="dots", recipe=RECIPE, space=SPACE, metric="val/accuracy", trials=1, sampler="random")
    assert len(run_sweep(document, folder / "sweep").trials) == 1


def export(folder: Path) -> None:
    from sightline.exporting import export_model

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    spec = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (32, 32))
    written = export_model(model.eval(), folder / "out", ("onnx",), input_spec=spec, classes=["a", "b"])
    assert (written / "model.onnx").is_file()


def wandb(folder: Path) -> None:
    train(folder, loggers=[{"name": "wandb", "mode": "offline"}])


def mlflow(folder: Path) -> None:
    train(folder, loggers=[{"name": "mlflow", "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"}])


PROMISES = {
    each.__name__: each
    for each in (
        timm,
        captum,
        hf,
        openclip,
        cluster,
        masks,
        datasets,
        coco,
        check,
        maps,
        train,
        cli,
        report,
        rating,
        fix,
        sweep,
        export,
        wandb,
        mlflow,
    )
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        PROMISES[sys.argv[1]](Path(name))
