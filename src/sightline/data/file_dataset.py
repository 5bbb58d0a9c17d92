"""Datasets of image files on disk, with masks as files or drawn, and boxes."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torchvision import tv_tensors

from sightline.data.dataset import ImageDataset, Sample
from sightline.data.files import UnreadableFileError
from sightline.data.image_files import read_image
from sightline.data.mask_files import mask_meaning, read_mask
from sightline.errors import SightlineError


class DrawnMask(Protocol):
    """A mask that is not an image file, such as polygons. Its `repr` identifies it in the fingerprint."""

    def draw(self, height: int, width: int) -> Tensor:
        """(height, width) or (K, height, width) uint8 with 0 = background, 1 = object, 255 = ignore."""
        ...


REMEDY = "`sightline data check` lists such files, and the option skip_corrupt=true of the data leaves them out"

_checks_files: ContextVar[bool] = ContextVar("_checks_files", default=True)


@contextmanager
def files_unchecked() -> Iterator[None]:
    """Within it, data sets are made of files that may be missing or in two splits, so a check can count those."""
    token = _checks_files.set(False)
    try:
        yield
    finally:
        _checks_files.reset(token)


def checks_files() -> bool:
    """Return whether data sets reject files that are missing or in two splits."""
    return _checks_files.get()


@dataclass(frozen=True)
class Record:
    """One line of a file data set: an image, its class, and where known its mask, group, boxes and region to avoid.

    Args:
        path: the image's file.
        label: its class, or a tuple of all that it shows.
        mask: the mask's file, or what draws it.
        group: its group.
        boxes: xyxy in pixels; what is beyond the image is cut off.
        avoid: the file of the region to avoid, or what draws it.
    """

    path: Path
    label: int | tuple[int, ...]
    mask: Path | DrawnMask | None = None
    group: int | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    avoid: Path | DrawnMask | None = None

    @property
    def files(self) -> list[Path]:
        """The image and the files of its masks."""
        return [file for file in (self.path, self.mask, self.avoid) if isinstance(file, Path)]


class FileDataset(ImageDataset):
    """Images on disk.

    Args:
        records: the images; their masks and regions to avoid are files of the same height and width.
        classes: the classes' names.
        root: the folder to which paths in the fingerprint are relative, so moving the data does not change it.
        groups: the groups' names; empty = no groups.
        meaning: (256,) uint8, what each value of a mask file stands for, or (K, 256), what it stands for in the mask of each
            class; default: every value but 0 is the object. Every value but 0 of a region to avoid is to be avoided.
        colors: (256, 3) uint8, the color of each value of a mask file, see `read_mask`.
        skip_corrupt: read every file once now, and leave out and count those that are missing or cannot be read.

    Raises:
        SightlineError: see `ImageDataset`; a file is missing. On reading: a file cannot be read, or a mask has another
            size than its image.
    """

    def __init__(
        self,
        records: Sequence[Record],
        classes: Sequence[str],
        root: Path,
        *,
        groups: Sequence[str] = (),
        meaning: Tensor | None = None,
        colors: Tensor | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        self.meaning = mask_meaning() if meaning is None else meaning
        self.colors = colors
        for record in records:
            for what, file in (("mask", record.mask), ("region to avoid", record.avoid)):
                if file == record.path:
                    raise SightlineError(f"the {what} of {record.path} is the image itself; expected another file")
        skipped = []
        if not skip_corrupt:
            missing = [str(f) for r in records for f in r.files if not f.is_file()] if checks_files() else []
            if missing:
                raise SightlineError(f"{len(missing)} files are missing, the first of them {missing[0]}. {REMEDY}")
        else:
            readable = [self._is_readable(record) for record in records]
            skipped = [str(record.path) for record, good in zip(records, readable) if not good]
            records = [record for record, good in zip(records, readable) if good]
        if unnamed := [path for r in records for path in r.files if not _is_text(path)]:
            raise SightlineError(
                f"{len(unnamed)} files have a name that is not UTF-8, the first of them {os.fsencode(unnamed[0])!r}; rename "
                "them, because results name files (`convmv -f latin1 -t utf8 --notest -r FOLDER` does it)"
            )
        self.records = list(records)
        self.root = root
        told = [(path_from(root, r.path), _told(root, r.mask)) for r in records]
        boxes = [r.boxes for r in records]
        avoid = [_told(root, r.avoid) for r in records]
        super().__init__(
            classes,
            [r.label for r in records],  # type: ignore[arg-type]  # all of one kind
            [r.mask is not None for r in records],
            groups=groups,
            group_ids=[r.group for r in records if r.group is not None] if groups else None,
            identity=(told, self.meaning.tolist(), *([boxes] if any(boxes) else []), *([avoid] if any(avoid) else [])),
            has_boxes=[bool(b) for b in boxes],
            has_avoid=[r.avoid is not None for r in records],
        )
        self.skipped = skipped

    def path(self, index: int) -> str:
        """Return the path of the image file."""
        return str(self.records[index].path)

    def files(self, index: int) -> list[Path]:
        """Return the image file and the files of its masks."""
        return self.records[index].files

    def load(self, index: int) -> Sample:
        """Read an image with its mask and its region to avoid."""
        record = self.records[index]
        try:
            image, mask, avoid = self._read(record)
        except UnreadableFileError as error:
            raise UnreadableFileError(f"{error}. {REMEDY}") from error
        return Sample(
            image=tv_tensors.Image(image),
            label=self.label(index),
            mask=None if mask is None else tv_tensors.Mask(mask),
            index=index,
            group=record.group,
            path=str(record.path),
            boxes=as_boxes(record.boxes, image.shape[-2:]) if record.boxes else None,
            avoid=None if avoid is None else tv_tensors.Mask(avoid),
        )

    def _read(self, record: Record) -> tuple[Tensor, Tensor | None, Tensor | None]:
        image = read_image(record.path)
        size = (image.shape[1], image.shape[2])
        mask, avoid = (
            _read_region(record, region, size, meaning, colors)
            for region, meaning, colors in (
                (record.mask, self.meaning, self.colors), (record.avoid, mask_meaning(), None)
            )
        )  # fmt: skip
        return image, mask, avoid

    def _is_readable(self, record: Record) -> bool:
        try:
            self._read(record)
        except UnreadableFileError:
            return False
        return True


def _read_region(
    record: Record, region: Path | DrawnMask | None, size: tuple[int, int], meaning: Tensor, colors: Tensor | None
) -> Tensor | None:
    """Read the mask or the region to avoid of a record, whose image has a size (height, width)."""
    if region is None:
        return None
    if not isinstance(region, Path):
        return region.draw(*size)
    mask = read_mask(region, meaning, colors)
    if mask.shape[-2:] != size:
        turned = (
            ". If the image is turned by its EXIF orientation, give the mask the same orientation"
            if mask.shape[-2:] == size[::-1]
            else ""
        )
        raise SightlineError(
            f"the mask {region} is {mask.shape[-1]} x {mask.shape[-2]} pixels (width x height) and its image "
            f"{record.path} is {size[1]} x {size[0]}; they must agree{turned}"
        )
    return mask


def as_boxes(boxes: Sequence[Sequence[float]], size: Sequence[int]) -> tv_tensors.BoundingBoxes:
    """Boxes, xyxy in pixels, of an image (height, width)."""
    edges = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return tv_tensors.BoundingBoxes(edges, format="XYXY", canvas_size=tuple(size))


def _told(root: Path, region: Path | DrawnMask | None) -> str | DrawnMask | None:
    """Return a mask as the fingerprint tells it."""
    return path_from(root, region) if isinstance(region, Path) else region


def path_from(root: Path, path: Path) -> str:
    """Return a path relative to a folder, with forward slashes."""
    return Path(os.path.relpath(path, root)).as_posix()


def _is_text(path: Path) -> bool:
    """Whether a path can be written to a file of text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
