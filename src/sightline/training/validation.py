"""What an epoch is judged by: the validation splits."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torchmetrics import MeanMetric

from sightline.data.batch import Batch
from sightline.errors import RunFailedError
from sightline.metrics.accuracy import Accuracy, WorstGroupAccuracy
from sightline.objective import Objective
from sightline.tap import evaluating, logits_of


@torch.no_grad()
def validate(fabric: Fabric, objective: Objective, batches: Iterable[Batch], grouped: bool) -> dict[str, float]:
    """Loss and accuracies of the plain model on a split, over all processes.

    Args:
        fabric: knows device, precision and processes.
        objective: holds the model, which is left in the mode it was in.
        batches: this process's share of the split.
        grouped: whether the split has groups.

    Returns:
        `loss`, `accuracy` and, for groups, `worst_group_accuracy`.

    Raises:
        RunFailedError: the loss is not finite; on every process.
    """
    model = objective.deployable()
    loss, accuracy, worst = MeanMetric(nan_strategy="disable"), Accuracy(), WorstGroupAccuracy()
    for metric in (loss, accuracy, worst):
        metric.to(fabric.device)
    with evaluating(model), fabric.autocast():
        for batch in batches:
            batch = batch.to(fabric.device, non_blocking=True)
            images = batch.images if objective.input_spec is None else objective.input_spec.normalize(batch.images)
            logits = logits_of(model(images)).float()
            loss.update(F.cross_entropy(logits, batch.labels, reduction="none"))
            scores = logits.nan_to_num()  # NaN stays in the loss, which every process sees
            accuracy.update(scores, batch.labels)
            if batch.groups is not None:
                worst.update(scores, batch.labels, batch.groups)
    if not math.isfinite(loss.compute().item()):
        raise RunFailedError("the validation loss is NaN or infinite; the last good checkpoint is kept. Try a lower lr")
    figures = {"loss": loss.compute().item(), "accuracy": accuracy.compute().item()}
    return figures | ({"worst_group_accuracy": worst.compute().item()} if grouped else {})
