"""Boxes of a whole dataset, written as CSV or in COCO's layout."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sightline._core.csv_files import csv_text
from sightline._core.files import write_atomically
from sightline._core.output_lock import holding_file
from sightline._core.progress_log import ProgressLog
from sightline.data.dataset import ImageDataset, Sample
from sightline.errors import SightlineError
from sightline.localization.detectors import Box, BoxDetector
from sightline.localization.writing.resumable import relative_path, work_through
from sightline.metrics.corloc import corloc
from sightline.regions.boxes import tight_boxes


@dataclass(frozen=True)
class BoxesWritten:
    """What `write_boxes` did.

    Attributes:
        images: images of the data set.
        boxes: boxes that were written.
        without: images that have no box.
        clipped: boxes that reached beyond their image and were cut off at its border.
        dropped: boxes without an area in their image, which were left out.
        corloc: share of the images with a mask in which a box overlaps that of the mask by an IoU of 0.5; None without masks.
        judged: how many images those are.
    """

    images: int
    boxes: int
    without: int
    clipped: int
    dropped: int
    corloc: float | None
    judged: int


def write_boxes(
    dataset: ImageDataset,
    path: str | Path,
    source: BoxDetector,
    *,
    chunk_size: int = 32,
    num_workers: int = 0,
    progress: bool = False,
) -> BoxesWritten:
    """Find the boxes in every image of a data set, and write them to a file.

    To resume an interrupted pass, call the function again: at most `chunk_size` images are worked on twice. `PATH.journal`
    keeps what is finished. Paths are written as seen from the file's folder.

    Args:
        dataset: the images.
        path: a `.csv` with the columns path,x1,y1,x2,y2,score,label, one row a box, or a `.json` in COCO's layout.
        source: where the boxes come from.
        chunk_size: images that are worked on together.
        num_workers: processes that load images.
        progress: show a bar with the time that remains.

    Raises:
        SightlineError: another suffix, an image cannot be read, the file is not of this data set and source, or there is no
            box in any image.
        RunFailedError: the file cannot be written any more; what is finished is kept.
    """
    path = check_boxes_name(path)
    text = _as_csv if path.suffix.lower() == ".csv" else _as_coco
    with holding_file(path):
        return _write(dataset, path, source, text, (chunk_size, num_workers, progress))


def check_boxes_name(path: str | Path) -> Path:
    """Return the path of a file of boxes, or raise SightlineError where its suffix names no format."""
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".json"):
        raise SightlineError(f"{path} has the suffix {path.suffix!r}; expected .csv or .json (COCO)")
    return path


def _write(
    dataset: ImageDataset,
    path: Path,
    source: BoxDetector,
    text: Callable[[Sequence[dict[str, Any]]], str],
    how: tuple[int, int, bool],
) -> BoxesWritten:
    kept = path.with_name(f"{path.name}.journal")
    if path.exists() and not kept.exists():
        raise SightlineError(
            f"{path} exists already, and {kept.name}, which describes it, is missing; choose another file"
        )
    log = ProgressLog(kept, {"boxes of": dataset.fingerprint, **source.facts})

    def work(samples: Sequence[Sample]) -> list[dict[str, Any]]:
        return [_boxed(sample, found) for sample, found in zip(samples, source(samples))]

    entries = work_through(dataset, log, work, "finding boxes", *how)
    boxes = sum(len(entry["boxes"]) for entry in entries)
    if not boxes:
        raise SightlineError(f"none of the {len(entries)} images has a box; check that the source covers them")
    folder = path.parent
    named = [{**entry, "path": relative_path(folder, dataset, index)} for index, entry in enumerate(entries)]
    write_atomically(path, text(named).encode())
    hits = [entry["hit"] for entry in entries if entry["hit"] is not None]
    return BoxesWritten(
        images=len(entries),
        boxes=boxes,
        without=sum(not entry["boxes"] for entry in entries),
        clipped=sum(entry["clipped"] for entry in entries),
        dropped=sum(entry["dropped"] for entry in entries),
        corloc=sum(hits) / len(hits) if hits else None,
        judged=len(hits),
    )


def _boxed(sample: Sample, found: Iterable[Box]) -> dict[str, Any]:
    """Return what the log stores of an image's boxes."""
    size = tuple(sample.image.shape[-2:])
    found = list(found)
    within = [box.within(size) for box in found]
    real = [box for box in within if box is not None]
    cut = sum(box is not None and box != whole for box, whole in zip(within, found))
    return {
        "size": size,
        "boxes": [[*box.xyxy, box.score, box.label] for box in real],
        "clipped": cut,
        "dropped": len(found) - len(real),
        "hit": _hit(sample, real),
    }


def _hit(sample: Sample, boxes: Sequence[Box]) -> bool | None:
    """Whether one of the boxes is that of the image's mask; None where there is no object in a mask."""
    if sample.mask is None or not (sample.mask == 1).any():
        return None
    truth, _ = tight_boxes((sample.mask == 1).as_subclass(Tensor)[None])
    found = torch.tensor([box.xyxy for box in boxes]).view(-1, 4)
    return bool(corloc(truth, found[None])) if len(found) else False


def _as_csv(entries: Sequence[dict[str, Any]]) -> str:
    rows = [
        [entry["path"], *("" if value is None else value for value in box)]
        for entry in entries
        for box in entry["boxes"]
    ]
    return csv_text(["path", "x1", "y1", "x2", "y2", "score", "label"], rows, "\n")


def _as_coco(entries: Sequence[dict[str, Any]]) -> str:
    names = sorted({box[5] or "object" for entry in entries for box in entry["boxes"]})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, start=1):
        height, width = entry["size"]
        images.append({"id": number, "file_name": entry["path"], "width": width, "height": height})
        for x1, y1, x2, y2, score, label in entry["boxes"]:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": names.index(label or "object") + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            annotations.append(annotation if score is None else {**annotation, "score": score})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}, indent=1)
