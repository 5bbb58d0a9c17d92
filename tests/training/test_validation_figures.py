"""The figures of a validation split, against scikit-learn."""

import pytest
import torch
from lightning_fabric import Fabric
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch import nn

from sightline import Objective
from sightline.data.loader import create_loader
from sightline.training.validation import validate
from sightline.training.watched_values import names_of_values
from tiny import SIDE, Squares


def test_mean_and_worst_class_accuracy_against_scikit_learn() -> None:
    torch.manual_seed(0)
    split = Squares(15, 3)  # eight of one class and seven of the other
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2))
    batches = list(create_loader(split, size=SIDE, batch_size=4, train=False))
    figures = validate(Fabric(accelerator="cpu", devices=1), Objective(model), batches, split)
    with torch.no_grad():
        predicted = torch.cat([model(batch.images) for batch in batches]).argmax(1)
    recalls = recall_score(split.labels, predicted, average=None)
    assert 0 < recalls.min() < recalls.max()
    assert figures["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(split.labels, predicted))
    assert figures["worst_class_accuracy"] == pytest.approx(recalls.min())
    assert set(figures) == set(names_of_values(split))
