"""The values of an epoch, summed where they are computed."""

from collections import defaultdict

import torch
from lightning_fabric import Fabric
from torch import Tensor

from sightline.data.batch import Batch
from sightline.network.logits import hits


class Meter:
    """Sums of what the objective returns, over the images of an epoch.

    A step's loss or term is the sum of its batches' (they are divided by the count of the whole step); an epoch's is the mean
    of its steps', weighted by their images, over all processes. A guide's value, named `guide/...`, is the mean of its
    batches', weighted by their images. Counts, named `n/...`, are summed.
    """

    def __init__(self) -> None:
        self._sums: defaultdict[str, Tensor | float] = defaultdict(float)

    def add_step(self, outputs: list[dict[str, Tensor]], batches: list[Batch]) -> None:
        """Take the batches of one optimiser step with what the objective returned for each."""
        images = sum(len(batch) for batch in batches)
        self._sums["images"] += images
        for output, batch in zip(outputs, batches):
            self._sums["accuracy"] += hits(output["logits"], batch.labels).sum()
            for name, value in output.items():
                if value.ndim == 0:
                    share = 1 if name.startswith("n/") else len(batch) if "/" in name else images
                    self._sums[name] += value.detach() * share

    def compute(self, fabric: Fabric) -> dict[str, float]:
        """Return the values of the epoch over all processes, which must have seen the same terms."""
        names = sorted(self._sums)
        sums = torch.stack([torch.as_tensor(self._sums[name], device=fabric.device).float() for name in names])
        everyone = torch.as_tensor(fabric.all_reduce(sums, reduce_op="sum"))
        total = dict(zip(names, everyone.tolist()))
        return {
            name: value if name == "images" or name.startswith("n/") else value / total["images"]
            for name, value in total.items()
        }
