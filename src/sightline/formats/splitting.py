"""Make splits from records: as given, or divided by the names of the files."""

import hashlib
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, TypeVar

from sightline.data.file_dataset import FileDataset, Record, checks_files
from sightline.data.leaks import content_keys, refuse_leaks
from sightline.data.splits import Splits, check_sizes, divide, nothing_left
from sightline.errors import SightlineError

_SPLIT_NAME = re.compile(
    r"(?:(train)(?:ing)?|(val)(?:id(?:ation)?)?|(dev)|(test)(?:ing)?)(?:[-_ ]?(?:set|data|images|split))?",
    re.IGNORECASE,
)
_USUAL = ("train", "val", "test", "training", "valid", "validation", "testing")


class Labeled(Protocol):
    """An image with its class, or a tuple of all that it shows."""

    @property
    def label(self) -> int | tuple[int, ...]:
        """The class."""
        ...


L = TypeVar("L", bound=Labeled)


def split_name(name: str) -> str | None:
    """Return "train", "val" or "test" for any usual name of it, such as "Training" and "valid"; None for another name."""
    match = _SPLIT_NAME.fullmatch(name.strip())
    return match[match.lastindex].lower().replace("dev", "val") if match and match.lastindex else None


def own_splits(
    parts: Mapping[str, Sequence[Record]],
    sizes: Mapping[str, float],
    seed: int,
    make: Callable[[Sequence[Record]], FileDataset],
    name: Callable[[Path], str],
) -> Splits:
    """Return the parts as given, with a missing "val" taken from "train"; or one part without a name, divided by the sizes.

    Files of equal content stay together.

    Args:
        parts: records by split; "" = no split was given.
        sizes: of "val" and "test", see `divide_by_name`.
        seed: of the division.
        make: makes a split of records.
        name: the name of a file that decides its split.
    """
    keys = content_keys([record for part in parts.values() for record in part])
    divided = divide_parts(parts, lambda record: name(keys.get(record.path, record.path)), sizes, seed)
    splits = Splits({name: make(part) for name, part in divided.items()})
    seen = set(splits["train"].labels.tolist())
    for label, name_of_class in enumerate(splits.classes):
        if label not in seen:
            raise SightlineError(f"the class {name_of_class!r} has no image to train on; add images, or leave it out")
    if checks_files():
        refuse_leaks(splits, keys)
    return splits


def divide_parts(
    parts: Mapping[str, Sequence[L]], name: Callable[[L], str], sizes: Mapping[str, float], seed: int
) -> dict[str, Sequence[L]]:
    """Return the parts as given, with a missing "val" taken from "train"; or one part without a name, divided by the sizes.

    Args:
        parts: images by split; "" = no split was given.
        name: the name of an image that decides its split.
        sizes: of "val" and "test", see `divide_by_name`.
        seed: of the division.

    Raises:
        SightlineError: some images have a split and some have none, or none is for training.
    """
    if "" in parts and len(parts) > 1:
        raise SightlineError("some rows have a split and some have none; give every row one, or none")
    for split in parts:
        if split.isalpha() and (meant := get_close_matches(split.lower(), _USUAL, 1, 0.75)) and split not in _USUAL:
            warnings.warn(f"a split has the name {split!r}; was {meant[0]!r} meant?", stacklevel=4)
    pool = "" if "" in parts else "train"
    if pool not in parts:
        raise SightlineError(f"the splits are {sorted(parts)}; 'train' is missing")
    if pool == "train":
        sizes = {part: size for part, size in sizes.items() if part == "val" and part not in parts}
    drawn = divide_by_name(parts[pool], [name(each) for each in parts[pool]], sizes, seed)
    return {**drawn, **{split: part for split, part in parts.items() if split != pool}}


def official_splits(
    train: Sequence[Record],
    test: Sequence[Record],
    make: Callable[[Sequence[Record]], FileDataset],
    val: float,
    seed: int,
    per_class: int | None = None,
    keys: Mapping[Path, Path] | None = None,
    name: Callable[[Path], str] | None = None,
) -> Splits:
    """Draw "val" from the official training records and keep the official test records as "test".

    Records of one file stay together, and those of equal content where `keys` tell it (see `content_keys`). Data that may
    grow gives a `name` of each file, which decides its split; otherwise its place does.
    """
    keys = keys or {}
    copies: dict[Path, list[Record]] = {}
    for record in train:
        copies.setdefault(keys.get(record.path, record.path), []).append(record)
    firsts = [same[0] for same in copies.values()]
    if name is None:
        drawn = divide_records(firsts, {"val": val}, seed, per_class)
    else:
        drawn = divide_by_name(firsts, [name(path) for path in copies], {"val": val}, seed, per_class)
    parts = {
        name: [record for first in some for record in copies[keys.get(first.path, first.path)]]
        for name, some in drawn.items()
    }
    splits = Splits({name: make(part) for name, part in {**parts, "test": test}.items()})
    if checks_files():
        refuse_leaks(splits, keys)
    return splits


def divide_records(
    records: Sequence[Record], sizes: Mapping[str, float], seed: int, per_class: int | None = None
) -> dict[str, list[Record]]:
    """Divide records at random into "train" and the named parts, as `divide` does with indices."""
    divided = divide([record.label for record in records], sizes, seed, per_class)
    return {name: [records[index] for index in indices] for name, indices in divided.items()}


def divide_by_name(
    records: Sequence[L],
    names: Sequence[str],
    sizes: Mapping[str, float],
    seed: int,
    per_class: int | None = None,
) -> dict[str, list[L]]:
    """Divide records into the named parts, each by the name of its own file; "train" is what remains.

    A file is in a part if a hash of its name is below the part's share, so shares are met on average. A file that is
    added leaves the others where they are. Classes of few images are the exception: a part whose share makes more than half an
    image gets at least one, as long as "train" gets one. A count takes the files with the lowest hashes. There, a file that is
    added can move another one to "train", but none from there.

    Args:
        records: the files with their classes; those with several classes are divided together.
        names: the name of each record; records of one name stay together.
        sizes: for each part a share of every class, as a float in [0, 1), or a count of every class, as an int.
        seed: another seed, another division.
        per_class: keep this many of each class for "train"; a larger number contains what a smaller one keeps.

    Returns:
        Records by part, in their order; an empty part is left out.

    Raises:
        SightlineError: a size is out of its range, or the sizes leave nothing, or less than `per_class`, of a class.
    """
    check_sizes(sizes)
    members: dict[int, list[int]] = {}
    for index, record in enumerate(records):
        members.setdefault(record.label if isinstance(record.label, int) else -1, []).append(index)
    parts: dict[str, list[int]] = {part: [] for part in ("train", *sizes)}
    for label, indices in sorted(members.items()):
        for part, chosen in _divide_class([names[index] for index in indices], sizes, seed, per_class or 1).items():
            if part == "train" and len(chosen) < (per_class or 1):
                raise nothing_left(label, len(indices), sizes, len(chosen), per_class)
            if part == "train" and per_class is not None:
                chosen = sorted(chosen, key=lambda i: _hash(seed, part, names[indices[i]]))[:per_class]
            parts[part] += [indices[i] for i in chosen]
    return {part: [records[index] for index in sorted(indices)] for part, indices in parts.items() if indices}


def _divide_class(names: Sequence[str], sizes: Mapping[str, float], seed: int, train: int) -> dict[str, list[int]]:
    """Return the positions of one class's names by part, "train" last; `shares` leave this many for it; and the counts."""
    counts = sum(size for size in sizes.values() if isinstance(size, int))
    remaining, shared, parts = set(names), 1.0, {}
    for part, size in reversed([*sizes.items()]):  # "test" comes first, so the size of "val" does not change it
        places = {name: _hash(seed, part, name) for name in remaining}
        if isinstance(size, float):
            drawn = sum(place < size / shared for place in places.values())
            least = 1 if round(size * len(names)) else 0
            count = max(0, min(max(drawn, least), len(places) - counts - train))
            shared -= size
        else:
            count, counts = size, counts - size
        parts[part] = set(sorted(places, key=places.__getitem__)[:count])
        remaining -= parts[part]
    parts["train"] = remaining
    return {part: [place for place, name in enumerate(names) if name in chosen] for part, chosen in parts.items()}


def _hash(seed: int, part: str, name: str) -> float:
    """Return a number in [0, 1), equal on every machine and for two spellings that are the same text in Unicode."""
    key = repr((seed, part)) + unicodedata.normalize("NFC", name)
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
