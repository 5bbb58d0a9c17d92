"""Masks of a whole dataset, written as PNG files with a list of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.io import encode_png

from sightline._core.csv_files import csv_text
from sightline._core.files import is_new, make_folder, write_atomically
from sightline._core.output_lock import holding_folder
from sightline._core.progress_log import ProgressLog
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.file_dataset import FileDataset
from sightline.errors import SightlineError
from sightline.formats.found_masks import mask_names
from sightline.localization.prompts import Prompter, Segmenter, segment
from sightline.localization.writing.resumable import relative_path, work_through
from sightline.metrics.localization import foreground_iou


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

    A pass that was interrupted continues when it is run again. An image's mask has the image's path, as seen from the
    data
    set's folder, so the data set `folder` reads them by `masks=FOLDER`; images that are not files have their index for
    a name. Next to the masks of files stands `masks.csv` for the data set `csv`. An image without any prompt gets no mask,
    which says that nothing is known of it; an empty mask says that there is no object.

    Args:
        dataset: the images; their own masks serve for comparison alone.
        folder: the folder to write.
        prompter: gives the prompts.
        segmenter: makes masks from them.
        name: the segmenter's name, which tells its masks from another's.
        split: the split of the images, written into `masks.csv` so they stay in it; None = `csv` divides
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
    with holding_folder(folder):
        kept = folder / "journal"
        if not kept.exists() and not is_new(folder):
            raise SightlineError(f"{folder} exists and was not written by `sightline masks`; choose an empty folder")
        log = ProgressLog(kept, {"masks of": dataset.fingerprint, "segmenter": name, **prompter.facts})

        def work(samples: Sequence[Sample]) -> list[dict[str, Any]]:
            return [_masked(s, p, segmenter, folder / files[s.index]) for s, p in zip(samples, prompter(samples))]

        entries = work_through(dataset, log, work, "making masks", chunk_size, num_workers, progress)
        if isinstance(dataset, FileDataset) and any(entry["mask"] for entry in entries):
            write_atomically(folder / "masks.csv", _listed(dataset, folder, files, entries, split).encode())
    masks = sum(entry["mask"] for entry in entries)
    if not masks:
        raise SightlineError(
            f"there is no prompt for any of the {len(entries)} images; no mask was made; lower --threshold, "
            "or give boxes (--boxes) or --center"
        )
    overlaps = [entry["iou"] for entry in entries if entry["iou"] is not None]
    return MasksWritten(
        images=len(entries),
        masks=masks,
        without=len(entries) - masks,
        iou=sum(overlaps) / len(overlaps) if overlaps else None,
        judged=len(overlaps),
    )


def _listed(
    dataset: FileDataset, folder: Path, files: Sequence[str], entries: Sequence[dict[str, Any]], split: str | None
) -> str:
    """Return masks.csv: the path, the label and the mask of each image, and the split if it is known."""
    own = {} if split is None else {"split": split}
    rows = [
        [relative_path(folder, dataset, i), dataset.classes[label], files[i] if entry["mask"] else "", *own.values()]
        for i, (entry, label) in enumerate(zip(entries, dataset.labels.tolist()))
    ]
    return csv_text(["path", "label", "mask", *own], rows, "\n")


def _masked(sample: Sample, prompts: Sequence[Any], segmenter: Segmenter, file: Path) -> dict[str, Any]:
    """Write an image's mask; gives what the log keeps of it."""
    if not prompts:
        return {"mask": False, "iou": None}
    mask = segment(sample, prompts, segmenter)
    make_folder(file.parent)
    write_atomically(file, encode_png(mask[None].to(torch.uint8) * 255).numpy().tobytes())
    truth = sample.mask
    overlap = None if truth is None else foreground_iou(mask[None].float(), truth.as_subclass(Tensor)[None]).item()
    return {"mask": True, "iou": None if overlap is None or overlap != overlap else overlap}
