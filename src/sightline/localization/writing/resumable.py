"""What passes over a dataset share: a log of finished images, and paths relative to a folder."""

from collections.abc import Callable, Sequence
from os.path import relpath
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from sightline._core.checks import check_count
from sightline._core.progress import bar
from sightline._core.progress_log import ProgressLog
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.file_dataset import FileDataset


def work_through(
    dataset: ImageDataset,
    log: ProgressLog,
    work: Callable[[Sequence[Sample]], list[dict[str, Any]]],
    description: str,
    chunk_size: int,
    num_workers: int,
    progress: bool,
) -> list[dict[str, Any]]:
    """Work on the images that the log does not have yet, and return the entries of all images in their order.

    Args:
        dataset: the images.
        log: the finished images.
        work: takes samples and returns an entry of the log for each.
        description: of the progress bar.
        chunk_size: images that are worked on together.
        num_workers: processes that load images.
        progress: show a bar with the time that remains.
    """
    check_count(chunk_size=chunk_size)
    left = [index for index in range(len(dataset)) if index not in log.entries]
    groups = [left[start : start + chunk_size] for start in range(0, len(left), chunk_size)]
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=groups, num_workers=num_workers, collate_fn=list)
    with bar(progress, description, total=len(left)) as advance:
        for group, samples in zip(groups, loader):
            log.add(dict(zip(group, work(samples))))
            advance(len(samples))
    return [log.entries[index] for index in range(len(dataset))]


def relative_path(folder: Path, dataset: ImageDataset, index: int) -> str:
    """Return the path of an image relative to a folder; unchanged if the image is not a file."""
    path = dataset.path(index)
    return Path(relpath(path, folder)).as_posix() if isinstance(dataset, FileDataset) else path
