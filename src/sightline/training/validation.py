"""What an epoch is judged by: the validation splits."""

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from sightline.data.batch import Batch
from sightline.data.dataset import ImageDataset
from sightline.errors import RunFailedError
from sightline.metrics.accuracy import Accuracy, WorstGroupAccuracy
from sightline.network.input_spec import to_inputs
from sightline.network.logits import logits_of
from sightline.network.modes import evaluating
from sightline.objectives.losses import task_loss
from sightline.objectives.objective import Objective

if TYPE_CHECKING:  # a run is opened without the extra "train", which this package belongs to
    from lightning_fabric import Fabric


@torch.no_grad()
def validate(
    fabric: "Fabric",
    objective: Objective,
    batches: Iterable[Batch],
    split: ImageDataset,
    replaying: Callable[[Batch], AbstractContextManager[None]] = lambda batch: nullcontext(),
) -> dict[str, float]:
    """Loss and accuracies of the plain model on a split, over all processes.

    Args:
        fabric: knows device, precision and processes.
        objective: holds the model, which is left in the mode it was in.
        batches: this process's share of the split.
        split: knows whether there are groups, and whether images can have several labels.
        replaying: entered around the model's run on a batch, for batches of features.

    Returns:
        `loss`, `accuracy`, `mean_class_accuracy` and `worst_class_accuracy` over the classes that the split shows and, for
        groups, `worst_group_accuracy`. Where images can have several labels, `accuracy` is the share of those that show their
        likeliest class, and there are, instead of accuracies of classes, `map`, the mean average precision of the classes that
        the split shows, and `f1`, the mean of their F1 at a probability of a half.

    Raises:
        RunFailedError: the loss is not finite; on every process.
    """
    model = objective.unwrap_model()
    loss, accuracy, worst = MeanMetric(nan_strategy="disable"), Accuracy(), WorstGroupAccuracy()
    classes = WorstGroupAccuracy()  # a class is a group
    several: dict[str, Metric] = {}
    if split.multi_label:
        kinds = {"map": MultilabelAveragePrecision, "f1": MultilabelF1Score}
        several = {name: kind(len(split.classes), average="none") for name, kind in kinds.items()}
    for metric in (loss, accuracy, worst, classes, *several.values()):
        metric.to(fabric.device)
    with evaluating(model), fabric.autocast():
        for batch in batches:
            batch = batch.to(fabric.device, non_blocking=True)
            images = to_inputs(batch.images, objective.input_spec)
            with replaying(batch):
                logits = logits_of(model(images)).float()
            loss.update(task_loss(logits, batch.labels))
            scores = logits.nan_to_num()  # NaN stays in the loss, which every process sees
            accuracy.update(scores, batch.labels)
            for metric in several.values():
                metric.update(scores.sigmoid(), batch.labels)
            if not split.multi_label:
                classes.update(scores, batch.labels, batch.labels)
            if batch.groups is not None:
                worst.update(scores, batch.labels, batch.groups)
    if not math.isfinite(loss.compute().item()):
        raise RunFailedError("the validation loss is NaN or infinite; the last good checkpoint is kept. Try a lower lr")
    values = {"loss": loss.compute().item(), "accuracy": accuracy.compute().item()}
    if not split.multi_label:
        values["worst_class_accuracy"] = classes.compute().item()
        values["mean_class_accuracy"] = sum(each for each, _ in classes.table.values()) / len(classes.table)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No positive samples")  # of the classes that are left out
        for name, metric in several.items():
            values[name] = metric.compute()[split.labels.any(0)].mean().item()
    return values | ({"worst_group_accuracy": worst.compute().item()} if split.groups else {})
