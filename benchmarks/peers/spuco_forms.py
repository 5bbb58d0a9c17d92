"""JTT, Group DRO and DFR by SpuCo's classes, for the whole network or for its last layer on features."""

from typing import Any

import torch
from spuco.datasets import GroupLabeledDatasetWrapper
from spuco.group_inference import JTTInference
from spuco.last_layer_retrain import DFR
from spuco.models import SpuCoModel
from spuco.robust_train import CustomSampleERM, GroupDRO
from spuco.utils import Trainer, set_seed
from spuco.utils.misc import get_model_outputs
from torch import nn

from efficientnet import linear, unscaled
from features import Rows, rows_of
from task import Task


def train(task: Task, kind: str, **options: Any) -> nn.Module:
    """Train by one of the methods."""
    set_seed(task.seed)
    return FORMS[kind](task, **options)


def jtt(task: Task, upweight: int, first_epochs: int = 1) -> nn.Module:
    """The first network finds the errors; the second sees them `upweight` times, in as many steps as every method has."""
    first, second = task.make(task.seed), task.make(task.seed)
    Trainer(task.data, first, task.batch, torch.optim.Adam(first.parameters(), task.rate)).train(first_epochs)
    predictions = get_model_outputs(first, task.plain).argmax(1).tolist()
    groups = JTTInference(predictions, task.data.labels).infer_groups()
    indices = groups[0, 0] + groups[0, 1] * upweight
    epochs = max(1, round(task.epochs * len(task.data) / len(indices)))
    optimizer = torch.optim.Adam(second.parameters(), task.rate)
    CustomSampleERM(second, task.data, task.batch, optimizer, epochs, indices).train()
    return second.eval()


def dro(task: Task, rate: float, decay: float) -> nn.Module:
    """Group DRO on batches that are balanced by groups, as SpuCo draws them."""
    layer = task.make(task.seed)
    grouped = GroupLabeledDatasetWrapper(task.rows, task.rows.partition())
    optimizer = torch.optim.Adam(layer.parameters(), rate, weight_decay=decay)
    GroupDRO(layer, grouped, task.batch, optimizer, task.epochs).train()
    return layer.eval()


def dfr(task: Task) -> nn.Module:
    """Half of the validation images train the last layer; the other half chooses among four strengths, as SpuCo does it."""
    rows = task.held_out_rows
    halves = [_grouped(rows.take(torch.arange(start, len(rows), 2))) for start in (0, 1)]
    model = SpuCoModel(nn.Identity(), rows.pooled.shape[1], 3)
    strengths, scaled = [1.0, 0.3, 0.1, 0.03], rows_of(task.name, "plain")
    method = DFR(halves[0], model, C_range=strengths, validation_set=halves[1], data_for_scaler=scaled)
    method.train()
    _, weight, bias, scaler = method.linear_model
    told = (torch.as_tensor(each, dtype=torch.float64) for each in (weight, bias, scaler.mean_, scaler.scale_))
    return linear(*unscaled(*told))


def _grouped(rows: Rows) -> GroupLabeledDatasetWrapper:
    return GroupLabeledDatasetWrapper(rows, rows.partition())


FORMS = {"jtt": jtt, "dro": dro, "dfr": dfr}
