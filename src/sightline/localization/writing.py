"""Boxes and masks of whole data sets, each written in one pass that can be interrupted."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.io import encode_png

from sightline._core.csv_files import csv_text
from sightline._core.files import write_atomically
from sightline._core.progress import bar
from sightline._core.progress_log import ProgressLog
from sightline.data.boxes import tight_boxes
from sightline.data.dataset import FileDataset, ImageDataset, Sample
from sightline.data.formats.found_masks import mask_names
from sightline.errors import RunFailedError, SightlineError
from sightline.localization.detectors import Box, BoxDetector
from sightline.localization.prompts import Prompter, Segmenter, segment
from sightline.metrics.corloc import corloc
from sightline.metrics.localization import foreground_iou


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


@dataclass(frozen=True)
class MasksWritten:
    """What `write_masks` did.

    Attributes:
        images: images of the data set.
        masks: masks that were written.
        without: images without any prompt, which have no mask.
        iou: mean IoU with the true masks, over the images that have both; None where there are none.
        judged: how many images those are.
    """

    images: int
    masks: int
    without: int
    iou: float | None
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
    path = Path(path)
    formats: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {".csv": _as_csv, ".json": _as_coco}
    if path.suffix.lower() not in formats:
        raise SightlineError(f"{path} has the suffix {path.suffix!r}; expected .csv or .json (COCO)")
    kept = path.with_name(f"{path.name}.journal")
    if path.exists() and not kept.exists():
        raise SightlineError(f"{path} is there already, and no {kept.name} says what it is of; name another file")
    journal = ProgressLog(kept, {"boxes of": dataset.fingerprint, **source.facts})

    def work(samples: Sequence[Sample]) -> list[dict[str, Any]]:
        return [_boxed(sample, found) for sample, found in zip(samples, source(samples))]

    _go_on(dataset, journal, work, "finding boxes", chunk_size, num_workers, progress)
    entries = journal.entries
    boxes = sum(len(entry["boxes"]) for entry in entries)
    if not boxes:
        raise SightlineError(f"there is no box in any of the {len(entries)} images; does the source know them?")
    folder = path.parent
    named = [{**entry, "path": _seen_from(folder, dataset, index)} for index, entry in enumerate(entries)]
    _write(path, formats[path.suffix.lower()](named).encode())
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


def write_masks(
    dataset: ImageDataset,
    folder: str | Path,
    prompter: Prompter,
    segmenter: Segmenter,
    *,
    name: str,
    split: str | None = None,
    chunk_size: int = 32,
    num_workers: int = 0,
    progress: bool = False,
) -> MasksWritten:
    """Make a mask of every image of a data set from prompts, and write it as a PNG: 255 = object, 0 = background.

    A pass that was interrupted goes on when it is asked for again. An image's mask has the image's path, as seen from the data
    set's folder, so that the data set `folder` reads them by `masks=FOLDER`; images that are no files have their index for
    a name. Beside the masks of files stands `masks.csv` for the data set `csv`. An image without any prompt gets no mask,
    which says that nothing is known of it; an empty mask says that there is no object.

    Args:
        dataset: the images; their own masks serve for comparison alone.
        folder: the folder to write.
        prompter: gives the prompts.
        segmenter: makes masks from them.
        name: the segmenter's name, which tells its masks from another's.
        split: the split that the images are, written into `masks.csv` so that they stay in it; None = `csv` divides
            them.
        chunk_size: images that are worked on together.
        num_workers: processes that load images.
        progress: show a bar with the time that remains.

    Raises:
        SightlineError: an image cannot be read, the folder is of something else, two images would have one mask file, the
            segmenter returned no mask, or there is no prompt for any image.
        RunFailedError: the folder cannot be written any more; what is finished is kept.
    """
    dataset.check_single_label("a list of masks")
    folder = Path(folder)
    files = mask_names(dataset)
    kept = folder / "journal"
    if folder.exists() and not kept.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SightlineError(f"{folder} holds something that no journal speaks of; name another folder")
    journal = ProgressLog(kept, {"masks of": dataset.fingerprint, "segmenter": name, **prompter.facts})

    def work(samples: Sequence[Sample]) -> list[dict[str, Any]]:
        return [_masked(s, p, segmenter, folder / files[s.index]) for s, p in zip(samples, prompter(samples))]

    _go_on(dataset, journal, work, "making masks", chunk_size, num_workers, progress)
    entries = journal.entries
    masks = sum(entry["mask"] for entry in entries)
    if not masks:
        raise SightlineError(f"there is no prompt for any of the {len(entries)} images; no mask was made")
    if isinstance(dataset, FileDataset):
        own = {} if split is None else {"split": split}
        listed = [
            [_seen_from(folder, dataset, i), dataset.classes[label], files[i] if entry["mask"] else "", *own.values()]
            for i, (entry, label) in enumerate(zip(entries, dataset.labels.tolist()))
        ]
        _write(folder / "masks.csv", csv_text(["path", "label", "mask", *own], listed, "\n").encode())
    overlaps = [entry["iou"] for entry in entries if entry["iou"] is not None]
    return MasksWritten(
        images=len(entries),
        masks=masks,
        without=len(entries) - masks,
        iou=sum(overlaps) / len(overlaps) if overlaps else None,
        judged=len(overlaps),
    )


def _go_on(
    dataset: ImageDataset,
    journal: ProgressLog,
    work: Callable[[Sequence[Sample]], list[dict[str, Any]]],
    description: str,
    chunk_size: int,
    num_workers: int,
    progress: bool,
) -> None:
    """Work on the images that the journal does not have yet."""
    if chunk_size < 1:
        raise SightlineError(f"chunk_size is {chunk_size}; expected at least 1")
    first, last = len(journal.entries), len(dataset)
    groups = [list(range(start, min(start + chunk_size, last))) for start in range(first, last, chunk_size)]
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=groups, num_workers=num_workers, collate_fn=list)
    with bar(progress, description, total=last - first) as advance:
        for samples in loader:
            journal.add(work(samples))
            advance(len(samples))


def _boxed(sample: Sample, found: Iterable[Box]) -> dict[str, Any]:
    """What the journal keeps of an image's boxes."""
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


def _masked(sample: Sample, prompts: Sequence[Any], segmenter: Segmenter, file: Path) -> dict[str, Any]:
    """Write an image's mask; gives what the journal keeps of it."""
    if not prompts:
        return {"mask": False, "iou": None}
    mask = segment(sample, prompts, segmenter)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailedError(f"cannot write {file}: {error.strerror or error}") from error
    _write(file, encode_png(mask[None].to(torch.uint8) * 255).numpy().tobytes())
    truth = sample.mask
    overlap = None if truth is None else foreground_iou(mask[None].float(), truth.as_subclass(Tensor)[None]).item()
    return {"mask": True, "iou": None if overlap is None or overlap != overlap else overlap}


def _seen_from(folder: Path, dataset: ImageDataset, index: int) -> str:
    """An image's path from a folder; as it is where the image is no file."""
    path = dataset.path(index)
    return Path(relpath(path, folder)).as_posix() if isinstance(dataset, FileDataset) else path


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


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise RunFailedError(f"cannot write {path}: {error.strerror or error}") from error
