"""Which folders are splits, which are classes, and which images belong to neither."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sightline.data.image_listing import is_hidden, scan_images, warn_left_out
from sightline.errors import SightlineError
from sightline.formats.splitting import split_name

_MASK_FOLDER = re.compile(r"masks?|segmentations?|ground[-_ ]?truth|annotations?", re.IGNORECASE)
_MASK_STEM = re.compile(r"(.+?)[-_ ](?:masks?|seg|segmentation|gt)(?:[-_ ]?\d+)?", re.IGNORECASE)

Parts = tuple[str, ...]  # of an image's path within the root
Inner = Mapping[Parts, set[str]]  # the folders with images in each folder


@dataclass(frozen=True)
class FolderLayout:
    """The images of a folder.

    Attributes:
        classes: the classes' names.
        images: by split, "" where there are no splits, each image with the place of its class.
        within: the path of each image within the folder of its class.
    """

    classes: list[str]
    images: dict[str, list[tuple[Path, int]]]
    within: dict[Path, str]


def read_layout(root: Path, masks: Iterable[Path] = ()) -> FolderLayout:
    """Find the splits, classes and images of a folder; warn of images that belong to no class.

    Args:
        root: the folder.
        masks: the folders of masks, which may be inside.

    Raises:
        SightlineError: there are no images in class folders, folders of splits and classes are mixed, or two folders are one
            split or one class.
    """
    listing = scan_images(root)
    used = [parts for folder in masks if (parts := _parts_inside(root, folder)) is not None]
    found = [(image.parts[len(root.parts) :], image) for image in listing.images]
    found = [(parts, image) for parts, image in found if not any(parts[: len(folder)] == folder for folder in used)]
    repeated = _repeated_folders(_inner(found))
    found = [(_shorten(parts, repeated), image) for parts, image in found]
    inner = _inner(found)

    folders = [name for name in _folders(root) if (name,) not in used]
    splits = _split_folders(root, folders, inner)
    depth = 2 if splits else 1
    places: list[Parts] = [(folder,) for folder in splits] if splits else [()]
    names = {
        name for at in places for name in _folders(root.joinpath(*_lengthen(at, repeated))) if splits or name in folders
    }
    classes = sorted(name for name in names if not _repeats(name, places, inner))
    _check_names(root, classes)
    _check_count(root, classes, places, inner)

    stems = {(*parts[:-1], image.stem) for parts, image in found}
    images: dict[str, list[tuple[Path, int]]] = {}
    within: dict[Path, str] = {}
    for parts, image in found:
        suffixed = _MASK_STEM.fullmatch(image.stem)
        if len(parts) <= depth:
            listing.leave_out("outside the folders of classes", image)
        elif splits and parts[0] not in splits:
            listing.leave_out("in folders that are not splits", image)
        elif parts[depth - 1] not in classes or any(map(_MASK_FOLDER.fullmatch, parts[depth:-1])):
            listing.leave_out("in folders of masks", image)
        elif suffixed and (*parts[:-1], suffixed[1]) in stems:
            listing.leave_out("masks next to their images", image)
        else:
            images.setdefault(splits.get(parts[0], ""), []).append((image, classes.index(parts[depth - 1])))
            within[image] = "/".join(parts[depth:])
    warn_left_out(listing.left_out, root)
    for folder, split in splits.items():
        if images and split not in images and not any(parts[0] == folder for parts, _ in found):
            raise SightlineError(
                f"root: {root / folder} holds no images; remove the folder or add {folder}/CLASS/image.jpg"
            )
    if not images:
        raise SightlineError(
            f"root: {root} holds no images in class folders; expected {root}/CLASS/image.jpg or {root}/train/CLASS/image.jpg"
        )
    return FolderLayout(
        classes, {split: sorted(some, key=lambda pair: pair[1]) for split, some in images.items()}, within
    )


def _inner(found: Iterable[tuple[Parts, Path]]) -> Inner:
    """Return the folders with images in each folder."""
    inner: dict[Parts, set[str]] = defaultdict(set)
    for parts, _ in found:
        for depth in range(len(parts) - 1):
            inner[parts[:depth]].add(parts[depth])
    return inner


def _repeated_folders(inner: Inner) -> dict[str, Parts]:
    """Return the folders that hold one folder of the same name with folders in it, such as seg_train/seg_train/CLASS.

    Archives are often unpacked like this. The values are the paths of the innermost folders of that name.
    """
    repeated: dict[str, Parts] = {}
    for name in tuple(inner[()]):
        path: Parts = (name,)
        while len(inner[path]) == 1:
            (below,) = inner[path]
            same = below.casefold() == name.casefold() or (split_name(below) or "-") == split_name(name)
            if not same or not inner[(*path, below)]:
                break
            path = (*path, below)
        if len(path) > 1:
            repeated[name] = path
    return repeated


def _shorten(parts: Parts, repeated: Mapping[str, Parts]) -> Parts:
    """Return an image's path without the folders that repeat a name."""
    whole = repeated.get(parts[0], ())
    return (parts[0], *parts[len(whole) :]) if whole and parts[: len(whole)] == whole else parts


def _lengthen(folder: Parts, repeated: Mapping[str, Parts]) -> Parts:
    """Return where a folder is: the opposite of `_shorten`."""
    return (*repeated.get(folder[0], folder[:1]), *folder[1:]) if folder else folder


def _split_folders(root: Path, folders: list[str], inner: Inner) -> dict[str, str]:
    """Return the split of each folder that is one; nothing where the folders are classes."""
    named = _named_splits(folders)
    owner: dict[str, str] = {}
    for name, split in named.items():
        if owner.setdefault(split, name) != name:
            raise SightlineError(f"root: {root} has the folders {owner[split]} and {name} for one split; join them")
    train = inner[owner["train"],] if "train" in owner else set()
    if train:
        others = {name: name for name in folders if inner[(name,)] & train and not _MASK_FOLDER.fullmatch(name)}
        return others | named
    if len(named) > 1 and len(named) == len(folders):
        if not any(inner[(name,)] for name in named):
            raise SightlineError(
                f"root: the folders {', '.join(named)} in {root} look like splits, but hold no class folders; expected "
                f"{root}/{next(iter(named))}/CLASS/image.jpg"
            )
        return named
    for name in named:
        if inner[(name,)] & {*folders}:
            raise SightlineError(
                f"root: {root} has class folders and, next to them, the folder {name} of a split; move the class folders "
                f"into {root}/train"
            )
    return {}


def _named_splits(folders: list[str]) -> dict[str, str]:
    """Return the split that each folder is named after, also behind a common word such as in seg_train and seg_test."""
    if named := {name: split for name in folders if (split := split_name(name))}:
        return named
    groups: dict[str, dict[str, str]] = {}
    for name in folders:
        for mark in re.finditer(r"[-_ .]", name):
            if split := split_name(name[mark.end() :]):
                groups.setdefault(name[: mark.end()].casefold(), {})[name] = split
    return next((group for group in groups.values() if "train" in group.values() and len(group) > 1), {})


def _repeats(name: str, places: list[Parts], inner: Inner) -> bool:
    """Whether a folder holds masks in folders with the names of the class folders next to it."""
    return bool(_MASK_FOLDER.fullmatch(name)) and any(inner[(*place, name)] & inner[place] for place in places)


def _check_names(root: Path, classes: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in classes:
        if (other := seen.setdefault(name.strip().casefold(), name)) != name:
            raise SightlineError(
                f"root: the classes {other!r} and {name!r} in {root} differ only in spelling; join them"
            )


def _check_count(root: Path, classes: list[str], places: list[Parts], inner: Inner) -> None:
    """Reject a single class folder that holds what look like classes."""
    if len(classes) == 1 and len(below := sorted({name for place in places for name in inner[(*place, *classes)]})) > 1:
        shown = ", ".join(below[:3]) + (" ..." if len(below) > 3 else "")
        raise SightlineError(
            f"root: {root} has one class folder, {classes[0]}, with the folders {shown}; expected two classes or more. If "
            f"these folders are classes or splits, {'move them up' if places[0] else f'give root={root / classes[0]}'}"
        )


def _parts_inside(root: Path, masks: Path) -> Parts | None:
    """Where the folder of masks is within the root; None if it is not inside."""
    if masks.resolve() == root.resolve() or not masks.resolve().is_relative_to(root.resolve()):
        return None
    return masks.resolve().relative_to(root.resolve()).parts


def _folders(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir() if p.is_dir() and not is_hidden(p.name))
