"""The figures of an epoch: sums of a step's terms, and means of a guide's figures."""

import torch
from lightning_fabric import Fabric

import sightline as sl
from sightline.training.meter import Meter


def test_accumulated_batches_add_up_terms_and_counts_but_not_values() -> None:
    batches = [sl.Batch(torch.rand(size, 3, 4, 4), torch.zeros(size, dtype=torch.long)) for size in (3, 1, 4)]

    def output(loss: float, figure: float, count: int, size: int) -> dict[str, torch.Tensor]:
        values = {"loss": loss, "impactx/gradient_ratio": figure, "n/impactx/unannotated": float(count)}
        return {name: torch.tensor(value) for name, value in values.items()} | {"logits": torch.zeros(size, 2)}

    meter = Meter()
    meter.add_step([output(0.5, 2.0, 1, 3), output(0.25, 6.0, 0, 1)], batches[:2])
    meter.add_step([output(1.0, 5.0, 2, 4)], batches[2:])
    found = meter.compute(Fabric(accelerator="cpu"))
    assert found["loss"] == (0.75 + 1.0) / 2
    assert found["impactx/gradient_ratio"] == (3 * 2 + 1 * 6 + 4 * 5) / 8
    assert found["n/impactx/unannotated"] == 3
    assert found["images"] == 8
