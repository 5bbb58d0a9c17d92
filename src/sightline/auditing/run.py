"""LOTS as an image-quality tool: which images of a data set distract a model (thesis, section 6.3).

LOTS with the zero target shows every pixel that the model uses, for any class. Where much of that is outside the
evidence for the class that the model predicts, it reads something else in the image: another object, a caption, the scene.
Whether that is a fault is for a person to say, so the images are ranked and shown, not removed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from sightline._core.csv_files import csv_text
from sightline._core.files import write_atomically
from sightline._core.output_lock import holding_folder
from sightline.auditing import page as audit_page
from sightline.auditing.result import AuditResult
from sightline.data.batch import Batch
from sightline.data.dataset import ImageDataset
from sightline.data.loader import Transformed, collate, create_loader
from sightline.data.transforms import eval_transform
from sightline.errors import SightlineError
from sightline.explainers import create_explainer, resize_maps
from sightline.explainers.maps import compute_maps
from sightline.metrics import Scorer
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.reporting.page import write_page

SHOWN = 24  # images at the top of the page; a third as many at its end, for comparison


def share_outside(used: Tensor, evidence: Tensor) -> Tensor:
    """Return the share of each map outside the evidence: sum u (1 - e) / sum u.

    Args:
        used: (B, H, W) non-negative, what the model uses.
        evidence: (B, H, W) in [0, 1].

    Returns:
        (B,) in [0, 1], NaN for a map that is zero everywhere.
    """
    total = used.sum((1, 2))
    return torch.where(total > 0, (used * (1 - evidence)).sum((1, 2)) / total, torch.nan)


def audit(
    model: nn.Module,
    dataset: ImageDataset,
    output: str | Path,
    *,
    input_spec: InputSpec,
    reference_explainer: str = "gradcam",
    layer: LayerChoice | None = None,
    iterations: int = 500,
    classes: Sequence[str] | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    name: str = "",
    progress: bool = False,
) -> list[AuditResult]:
    """Rank the images of a data set by how much of what a model uses is outside the evidence for its prediction.

    Writes `audit.csv` (every image, the largest share first), `index.html` (the ranked gallery) and `maps/` (the maps of
    LOTS, by which an interrupted audit continues) to a folder.

    Args:
        model: a classifier that returns logits (B, K).
        dataset: the images.
        output: the folder.
        input_spec: the model's normalisation and size.
        reference_explainer: the explainer that shows the evidence for the predicted class.
        layer: its target layer.
        iterations: of LOTS; fewer are faster, and coarser on images that have not converged.
        classes: names of the model's classes; None = the data set's.
        batch_size: images that are explained together.
        num_workers: processes that load images.
        name: the model's name, for the page.
        progress: show a bar with the time that remains.

    Returns:
        A result for every image, the largest share outside first, those without a map last.

    Raises:
        SightlineError: an unknown explainer, or a folder that holds the maps of another model or data set.
        OutputInUseError: another process works on the folder.
        RunFailedError: the folder cannot be written any more.
    """
    dataset.check_single_label("audit")
    output = Path(output)
    classes = dataset.classes if classes is None else classes
    explainer = create_explainer(reference_explainer)
    with holding_folder(output):
        store = compute_maps(
            model, dataset, output / "maps", "lots", options={"iterations": iterations}, input_spec=input_spec,
            chunk_size=batch_size, num_workers=num_workers, progress=progress,
        )  # fmt: skip
        device = next(model.parameters()).device

        def explained(batch: Batch) -> tuple[Tensor, Tensor]:
            """Return the map of what the model uses in each image of a batch, and the evidence for the predicted classes."""
            assert batch.indices is not None
            used = resize_maps(store.read(batch.indices), input_spec.size).to(device)
            return used, explainer(model, batch.images, layer=layer, input_spec=input_spec)

        results: list[AuditResult] = []
        scorer = Scorer(model, input_spec)
        for batch in create_loader(
            dataset, size=input_spec.size[0], batch_size=batch_size, train=False, num_workers=num_workers
        ):
            batch = batch.to(device, non_blocking=True)
            results += _describe(dataset, classes, batch, scorer(batch.images), *explained(batch))
        results.sort(key=lambda f: (math.isnan(f.outside_fraction), -f.outside_fraction))
        counted = [f for f in results if not math.isnan(f.outside_fraction)]
        if not counted:
            raise SightlineError("LOTS changed no pixel in any image; check that the model is trained")

        def draw(some: list[AuditResult]) -> list[audit_page.GalleryItem]:
            items = []
            for result in some:
                sample = Transformed(dataset, eval_transform(input_spec.size[0]), None)[0, result.index]
                batch = collate([sample], masks=False).to(device)
                items.append(
                    audit_page.draw_item(result, batch.images[0].cpu(), *(m[0].cpu() for m in explained(batch)))
                )
            return items

        worst = draw(counted[:SHOWN])
        best = draw(counted[SHOWN:][-SHOWN // 3 :][::-1])
        facts = {
            "model": name or type(model).__name__,
            "reference explainer": reference_explainer,
            "LOTS iterations": iterations,
        }
        write_atomically(output / "audit.csv", _csv(results).encode())
        write_page(
            audit_page.render(results, worst, best, {**facts, "data": dataset.fingerprint}), output / "index.html"
        )
        return results


def _describe(
    dataset: ImageDataset, classes: Sequence[str], batch: Batch, probabilities: Tensor, used: Tensor, evidence: Tensor
) -> Iterator[AuditResult]:
    """Yield a result for each image of a batch."""
    assert batch.indices is not None
    best = probabilities.topk(2)
    outside, chance = share_outside(used, evidence), share_outside(torch.ones_like(evidence), evidence)
    columns = (batch.indices, batch.labels, best.values, best.indices, outside, chance)
    for index, label, values, places, share, expected in zip(*(column.tolist() for column in columns)):
        yield AuditResult(
            index=index,
            path=dataset.path(index),
            label=dataset.classes[label],
            predicted=classes[places[0]],
            probability=values[0],
            runner_up=classes[places[1]],
            runner_up_probability=values[1],
            outside_fraction=share,
            chance=expected,
        )


def _csv(results: Sequence[AuditResult]) -> str:
    rows = ({"rank": rank, **asdict(result)} for rank, result in enumerate(results, start=1))
    return csv_text(["rank", *(f.name for f in fields(AuditResult))], rows)
