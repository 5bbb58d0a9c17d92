"""Training and evaluation where images can have several labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from sklearn.metrics import average_precision_score, f1_score
from torch import nn
from torchvision import tv_tensors

from sightline import Objective
from sightline.data import DATASETS, Sample, Splits
from sightline.data.dataset import InMemory
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.evaluation import evaluate_model
from sightline.metrics.accuracy import correct
from sightline.training import train
from sightline.training.build import build
from sightline.training.validation import validate
from tiny import recipe

SIDE = 32


def colours(images: int, seed: int) -> InMemory:
    """Squares on noise: the classes are red at the left and blue at the right; no image shows the third class."""
    draw = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(images):
        image = torch.randint(0, 60, (3, SIDE, SIDE), generator=draw).to(torch.uint8)
        shown = torch.tensor([index % 3 != 0, index % 3 != 1, False]).long()
        masks = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
        for k in shown.nonzero()[:, 0].tolist():
            masks[k, 8:20, 2 + 16 * k : 14 + 16 * k] = 1
            image[2 * k, masks[k] == 1] += 120
        samples.append(Sample(tv_tensors.Image(image), shown, tv_tensors.Mask(masks), index, None, str(index)))
    return InMemory(samples, ["red", "blue", "green"], f"colours {seed}")


@DATASETS.register("colours")
def create() -> Splits:
    """Red and blue squares."""
    return Splits({"train": colours(12, 0), "val": colours(8, 1), "test": colours(8, 2)})


def test_values_of_a_split_against_scikit_learn() -> None:
    torch.manual_seed(0)
    model, split = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 3)), colours(10, 4)
    batches = list(create_loader(split, size=SIDE, batch_size=4, train=False))
    figures = validate(Fabric(accelerator="cpu", devices=1), Objective(model), batches, split)
    with torch.no_grad():
        logits = torch.cat([model(batch.images) for batch in batches])
    labels, probabilities = split.labels.numpy(), logits.sigmoid().numpy()
    shown = [average_precision_score(labels[:, k], probabilities[:, k]) for k in range(2)]
    assert figures["map"] == pytest.approx(np.mean(shown))
    assert figures["f1"] == pytest.approx(f1_score(labels[:, :2], probabilities[:, :2] > 0.5, average="macro"))
    best = logits.argmax(1)
    assert figures["accuracy"] == pytest.approx(np.mean([labels[i, best[i]] for i in range(10)]))
    cost = -(labels * np.log(probabilities) + (1 - labels) * np.log(1 - probabilities)).mean()
    assert figures["loss"] == pytest.approx(cost, rel=1e-5)


def test_the_highest_score_of_any_label_is_right() -> None:
    scores = torch.tensor([[0.2, 0.9, 0.1], [0.2, 0.9, 0.1], [0.2, 0.9, 0.1]])
    assert correct(scores, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])).tolist() == [1, 0, 0]


def test_a_run(tmp_path: Path) -> None:
    run = train(recipe(data="colours", save_best={"metric": "val/map"}), output=tmp_path / "run")
    header, *rows = (run.path / "metrics.csv").read_text().splitlines()
    assert {"val/map", "val/f1", "val/accuracy", "train/segment_overlap"} <= set(header.split(","))
    assert len(rows) == 2
    assert run.facts["data"]["train"]["classes"] == {"red": 8, "blue": 8, "green": 0}


def test_evaluation_judges_by_the_predicted_label_where_it_is_present() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    model[-1].bias.data = torch.tensor([10.0, 0.0, 0.0])  # always red, which six of nine images show
    split = colours(9, 5)
    batches = list(create_loader(split, size=SIDE, batch_size=4, train=False))
    found = evaluate_model(model, batches, ["gradcam"], ["accuracy", "miou"], layer="1")
    with torch.no_grad():
        predicted = torch.cat([model(batch.images) for batch in batches]).argmax(1)
    right = split.labels[torch.arange(9), predicted] == 1
    assert torch.equal(found.samples["predicted"], predicted)
    assert torch.equal(found.samples["label"], torch.where(right, predicted, split.labels.argmax(1)))
    assert found.samples["correct"].tolist() == right.long().tolist()
    localised = found.samples["miou@gradcam"].isfinite()
    assert int(right.sum()) == 6
    assert torch.equal(localised, right)  # a class that the image does not show has an empty mask


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guide": "energy"}, "Energy needs images with one label each"),
        (
            {"stages": [{"epochs": 1, "lr": 1e-3, "balance_by": "classes"}]},
            r"stages\.0\.balance_by: classes needs images with one",
        ),
        ({"data": "squares", "save_best": {"metric": "val/map"}}, r"unknown save_best\.metric 'val/map'"),
    ],
)
def test_options_for_one_label_are_rejected_before_training(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        build(recipe(**{"data": "colours", **changes}))
