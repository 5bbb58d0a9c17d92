"""Two processes give the value of one, whatever share of the images each has seen."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from region_classifier import RegionClassifier
from sightline.metrics import (
    ECE,
    BoxLocalization,
    CurveMetric,
    ExplanationConsistency,
    FGSMAccuracy,
    Insertion,
    LeRFMinusMoRF,
    MIoU,
    NormalizedRFS,
    ViewStability,
    WorstGroupAccuracy,
)


def measure(part: slice) -> dict[str, Tensor]:
    """Metrics over a part of seven images, some of them without a mask or a group."""
    random = torch.Generator().manual_seed(0)
    images, maps = torch.rand(7, 3, 8, 8, generator=random), torch.rand(7, 8, 8, generator=random)
    masks = (torch.rand(7, 8, 8, generator=random) > 0.5).to(torch.uint8)
    has_mask, groups = torch.tensor([1, 1, 0, 1, 1, 0, 1]).bool(), torch.tensor([0, 1, 1, 0, -1, 0, 1])
    region = torch.ones(8, 8, dtype=torch.bool)

    model = RegionClassifier(region, slope=40, offset=-20)
    miou, worst, insertion = MIoU(), WorstGroupAccuracy(), Insertion(RegionClassifier(region), steps=8)
    squares, rfs, ece = LeRFMinusMoRF(model, square=4), NormalizedRFS(model, levels=(0.3, 0.9)), ECE()
    boxes, fgsm = BoxLocalization(), FGSMAccuracy(model, eps=(0.001, 0.05))
    stability, consistency = ViewStability(model, "gaussian"), ExplanationConsistency(model, "gaussian")
    for i in range(7)[part]:
        row = slice(i, i + 1)
        miou.update(maps[row], masks[row], has_mask[row])
        worst.update(images[row].mean((2, 3)), torch.tensor([i % 3]), groups[row])
        insertion.update(images[row], maps[row], 0)
        index, label = torch.tensor([i]), torch.tensor([i % 2])
        squares.update(images[row], maps[row], indices=index)
        rfs.update(images[row], label, masks[row], has_mask[row], index)
        ece.update(model(images[row]).softmax(1), label)
        boxes.update(maps[row], masks=masks[row], has_mask=has_mask[row])
        fgsm.update(images[row], label)
        stability.update(images[row], maps[row])
        consistency.update(images[row], maps[row])
    metrics = {
        "miou": miou, "worst": worst, "insertion": insertion, "squares": squares, "rfs": rfs, "ece": ece,
        "boxes": boxes, "fgsm": fgsm, "stability": stability, "consistency": consistency,
    }  # fmt: skip
    values = {name: metric.compute() for name, metric in metrics.items()}
    counts = {f"n/{name}": torch.tensor([metric.n, metric.skipped]) for name, metric in metrics.items()}
    per_image = {f"per_image/{name}": metric.per_image() for name, metric in metrics.items()}
    table = {"table": torch.tensor([worst.table[g] for g in (0, 1)])}
    curves = {f"curve/{name}": metric.curve for name, metric in metrics.items() if isinstance(metric, CurveMetric)}
    return values | counts | per_image | table | curves


def work(rank: int, folder: str, split: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(measure(slice(0, split) if rank == 0 else slice(split, 7)), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize("split", [3, 7])
def test_two_processes_give_the_value_of_one(split: int) -> None:
    expected = measure(slice(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(work, (folder, split), nprocs=2, start_method="forkserver")
        for rank in range(2):
            torch.testing.assert_close(torch.load(Path(folder) / f"{rank}.pt"), expected, equal_nan=True)
