"""The user's own images in tar files, as the library WebDataset lays them out."""

import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sightline.data.contents import content_of_files
from sightline.data.files import UnreadableFileError, locate
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import MissingFileError, SightlineError
from sightline.formats.packed import Packed, PackedDataset, name_classes
from sightline.formats.splitting import divide_parts, split_name

IMAGES = ("jpg", "jpeg", "png", "webp", "ppm", "pgm", "bmp", "tif", "tiff", "gif")
REGIONS = ("mask", "avoid")
OPEN = 64  # shards that a process keeps open
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}


@dataclass
class Member:
    """One image in a shard: where its files begin and how long they are, in bytes.

    Attributes:
        shard: Number of the shard.
        key: Name in the shard, without suffix.
        text: Its label as the shard has it.
        places: "image", "mask" and "avoid" -> (start, length).
        label: Its class.
    """

    shard: int
    key: str
    text: str | None = None
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    label: int = -1


class ShardDataset(PackedDataset):
    """Images in uncompressed tar files, read in any order: each file of an image is one read at a known place.

    Args:
        members: The images.
        classes: Names of the classes.
        shards: The tar files.
        names: What the shards are called, by number.
        ignore: As for `PackedDataset`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        classes: Sequence[str],
        shards: Sequence[Path],
        names: Sequence[str],
        ignore: int | None,
    ) -> None:
        self.shards, self._names = list(shards), list(names)
        self._keys = [member.key for member in members]
        # Numbers in one array: a million objects would take a gigabyte in each process that loads.
        self._places = np.array(
            [
                [m.shard, *m.places["image"], *m.places.get("mask", (0, 0)), *m.places.get("avoid", (0, 0))]
                for m in members
            ]
        ).reshape(len(members), 7)
        has_mask, has_avoid = (["mask" in m.places for m in members], ["avoid" in m.places for m in members])
        told = [(names[m.shard], m.key, m.places["image"][1]) for m in members]
        super().__init__(classes, [m.label for m in members], has_mask, has_avoid, told, ignore)
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # a new process opens the shards itself

    def path(self, index: int) -> str:
        """Return the shard and the key of the image."""
        return f"{self._names[self._places[index, 0]]}/{self._keys[index]}"

    def unpack(self, index: int) -> Packed:
        """Read the files of the image at an index."""
        shard, *places = self._places[index].tolist()
        image, mask, avoid = (self._read(shard, start, length) for start, length in zip(places[::2], places[1::2]))
        return Packed(image or b"", mask, avoid)

    @cached_property
    def content(self) -> str | None:
        """16 hexadecimal digits that change with the content of the shards, see `content_of_files`."""
        used = np.unique(self._places[:, 0]).tolist()
        return content_of_files([self.shards[shard] for shard in used])

    def _read(self, shard: int, start: int, length: int) -> bytes | None:
        if not length:
            return None
        try:
            if shard not in self._open:
                if len(self._open) == OPEN:
                    os.close(self._open.pop(next(iter(self._open))))
                self._open[shard] = os.open(self.shards[shard], os.O_RDONLY)
            # A read at a place moves no position: forked processes can share the file.
            return os.pread(self._open[shard], length, start)
        except OSError as error:
            raise UnreadableFileError(f"cannot read the shard {self.shards[shard]}: {error.strerror}") from error


@DATASETS.register("webdataset", masks="some", groups=False)
def webdataset(
    root: str,
    *,
    label: str = "cls",
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Your own images in tar files (shards), as the library WebDataset lays them out.

    The files of one image follow each other and have one name: `0001.jpg`, `0001.cls`, and optionally `0001.mask.png` and
    `0001.avoid.png`. Shards are read in any order without unpacking them: everything works as with single files. They
    must be uncompressed tar files on disk; the images in them may have any format.

    The folder or the first word of a shard's name is its split, as in `train/0001.tar` and `val-0001.tar`. A missing "val" is
    taken from "train", and `test` is not used. Without such names the images are divided by their names.

    Args:
        root: A folder with shards, in it or in its folders; or a pattern, such as `/disk*/photos/*.tar`, for shards on several
            disks.
        label: Suffix of the file with the label: a class index or the name of a class.
        classes: The names of the classes in their order; None = those of the labels, sorted, or the class indices.
        ignore: A value of the masks that means neither object nor background, such as 255.
        val: Share (float), met on average, or count (int) of every class that goes to "val"; 0 = no such split.
        test: The same for "test".
        seed: Seed of the division.

    Raises:
        SightlineError: There is no shard, a shard is compressed or damaged, or an image has no label.
    """
    shards, base = _find(root)
    names = [Path(os.path.relpath(shard, base)).as_posix() for shard in shards]
    members = [member for number, shard in enumerate(shards) for member in _scan(shard, number, label)]
    if not members:
        raise SightlineError(f"root: the shards of {root} hold no image with a suffix of {', '.join(IMAGES)}")
    indices, known = name_classes([str(member.text) for member in members], classes, f"the files *.{label}")
    for member, index in zip(members, indices):
        member.label = index
    parts: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        parts[_split(names[member.shard])].append(member)
    divided = divide_parts(parts, lambda member: member.key, {"val": val, "test": test}, seed)
    return Splits({name: ShardDataset(some, known, shards, names, ignore) for name, some in divided.items()})


def _find(root: str) -> tuple[list[Path], Path]:
    """Return the shards, and the folder from which they are named."""
    if any(sign in root for sign in "*?["):
        shards = sorted(Path(each) for each in glob(os.path.expanduser(root), recursive=True) if os.path.isfile(each))
        if not shards:
            raise MissingFileError(f"root: no file matches {root!r}; expected .tar files")
        return shards, Path(os.path.commonpath([shard.absolute().parent for shard in shards]))
    base = locate(root, "root")
    if base.is_file():
        return [base], base.parent
    shards = sorted(base.rglob("*.tar"))
    if not shards:
        packed = sorted(base.rglob("*.tar.*"))
        why = f"; {packed[0]} is compressed: unpack it by gunzip or the like" if packed else ""
        raise SightlineError(f"root: there is no .tar file in {base}{why}")
    return shards, base


def _split(name: str) -> str:
    """Return the split that a shard is named after; empty = none."""
    folders, _, file = name.rpartition("/")
    words = [*folders.split("/"), re.split(r"[-_.\d]", file, maxsplit=1)[0]]
    return next((split for word in words if (split := split_name(word))), "")


def _scan(shard: Path, number: int, label: str) -> Iterator[Member]:
    """Yield the images of a shard."""
    try:
        with shard.open("rb") as file:
            if packing := COMPRESSED.get(file.read(2)):
                raise SightlineError(
                    f"the shard {shard} is compressed by {packing}; expected a plain tar file. Decompress it"
                )
            file.seek(0)
            yield from _members(file, shard, number, label)
    except (tarfile.TarError, OSError) as error:
        raise SightlineError(f"cannot read the shard {shard}: {error}") from error


def _members(file: BinaryIO, shard: Path, number: int, label: str) -> Iterator[Member]:
    member: Member | None = None
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps the headers of all files
            folder, _, name = info.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if not info.isfile() or not stem:
                continue
            key = f"{folder}/{stem}" if folder else stem
            if member is None or member.key != key:
                if member is not None and "image" in member.places:
                    yield _labeled(member, shard, label)
                member = Member(number, key)
            kind, kinds = suffix.lower(), {"image": IMAGES, **{r: tuple(f"{r}.{i}" for i in IMAGES) for r in REGIONS}}
            if kind == label:
                member.text = os.pread(file.fileno(), info.size, info.offset_data).decode("utf-8", "replace").strip()
            for what, suffixes in kinds.items():
                if kind in suffixes:
                    member.places[what] = info.offset_data, info.size
    if member is not None and "image" in member.places:
        yield _labeled(member, shard, label)


def _labeled(member: Member, shard: Path, label: str) -> Member:
    if not member.text:
        raise SightlineError(
            f"the image {member.key} in {shard} has no label; expected a file {member.key}.{label} next to it, or another "
            "suffix by label="
        )
    return member
