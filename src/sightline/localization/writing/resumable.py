"""What passes over a dataset share: a log of finished images, paths relative to a folder, files written whole."""

from collections.abc import Callable, Sequence
from os.path import relpath
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from sightline._core.files import write_atomically
from sightline._core.progress import bar
from sightline._core.progress_log import ProgressLog
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.file_dataset import FileDataset
from sightline.errors import RunFailedError, SightlineError


def work_through(
    dataset: ImageDataset,
    log: ProgressLog,
    work: Callable[[Sequence[Sample]], list[dict[str, Any]]],
    description: str,
    chunk_size: int,
    num_workers: int,
    progress: bool,
) -> None:
    """Work on the images that the log does not have yet.

    Args:
        dataset: the images.
        log: the finished images, in order.
        work: takes samples and returns an entry of the log for each.
        description: of the progress bar.
        chunk_size: images that are worked on together.
        num_workers: processes that load images.
        progress: show a bar with the time that remains.
    """
    if chunk_size < 1:
        raise SightlineError(f"chunk_size is {chunk_size}; expected at least 1")
    first, last = len(log.entries), len(dataset)
    groups = [list(range(start, min(start + chunk_size, last))) for start in range(first, last, chunk_size)]
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=groups, num_workers=num_workers, collate_fn=list)
    with bar(progress, description, total=last - first) as advance:
        for samples in loader:
            log.add(work(samples))
            advance(len(samples))


def relative_path(folder: Path, dataset: ImageDataset, index: int) -> str:
    """Return the path of an image relative to a folder; unchanged if the image is not a file."""
    path = dataset.path(index)
    return Path(relpath(path, folder)).as_posix() if isinstance(dataset, FileDataset) else path


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        RunFailedError: the file cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise RunFailedError(f"cannot write {path}: {error.strerror or error}") from error
