"""COCO (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014): its instances, and files in its format."""

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from sightline._core.checks import check_choice
from sightline.data.file_dataset import FileDataset, Record, path_from
from sightline.data.files import locate
from sightline.data.leaks import content_keys
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits
from sightline.errors import SightlineError, unknown_name
from sightline.formats.box_readers import check_inside
from sightline.formats.coco_file import CocoFile
from sightline.formats.coco_instances import ByClass, dominant, read_instances
from sightline.formats.coco_masks import Instances, check_runs_fit
from sightline.formats.frames import Frame, find_frame, unknown_orientation
from sightline.formats.splitting import official_splits


@DATASETS.register("coco", masks="some", groups=False)
def coco(
    root: str,
    *,
    train: str = "annotations/instances_train2017.json",
    test: str = "annotations/instances_val2017.json",
    train_images: str = "train2017",
    test_images: str = "val2017",
    labels: Literal["dominant", "multiple"] = "dominant",
    classes: Sequence[str] | None = None,
    avoid: Sequence[str] = (),
    val: float = 0.1,
    per_class: int | None = None,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> Splits:
    """COCO's instances, or your own images annotated in its format: polygons and run lengths become masks.

    "dominant" gives an image the class that covers most of it, by the annotations' areas, and the mask of that class's
    instances; "multiple" gives it all its classes, with a mask for each. A mask for each of K classes takes K bytes a pixel, so
    choose `classes` where memory is short. Images without an instance of these classes are left out.

    Categories are matched by name, so each file can number them in its own way. Two categories of one name are one class.
    A crowd decides an image's class only where the image has no other instance. An image has no mask if one of its instances
    has no segmentation. Where the file's width and height are those of the stored image, annotations are turned upright with
    the image.

    Args:
        root: the folder that the other paths start from.
        train: the annotations to train on.
        test: those to test on.
        train_images: the folder of the training images.
        test_images: that of the test images.
        labels: one class an image, or all that it shows.
        classes: keep these categories alone, in this order; None = all that an image shows, by their number in
            the training file.
        avoid: categories that are no classes: what their instances cover must not matter to the answer, such as a watermark. An
            image without such an instance has an empty region to avoid.
        val: share (float), met on average, or count (int) of the training images that go to "val", of every class where labels
            are "dominant"; the path of an image decides, so images which are added later move no other;
            0 = no such split.
        per_class: keep this many training images of every class, where labels are "dominant".
        seed: of the choice of validation and training images.
        skip_corrupt: leave out and count images that cannot be read; otherwise reading one is an error.

    Returns:
        The splits "train", "val" and "test"; every image has the boxes of the instances that its mask shows.

    Raises:
        SightlineError: files are missing or not in COCO's format, a class is unknown, or a class has too few images; an
            image has another size than its annotations tell; an annotation is no polygon, run lengths or box in pixels.
    """
    check_choice(("dominant", "multiple"), labels=labels)
    single = labels == "dominant"
    if per_class is not None and not single:
        raise SightlineError(f"per_class is {per_class}; images with several labels are not of one class")
    base = locate(root, "root")
    files = {"train": CocoFile.read(base / train), "test": CocoFile.read(base / test)}
    known = _in_order(files["train"], classes, avoid)
    found = {part: read_instances(file, known) for part, file in files.items()}
    avoided = {part: read_instances(file, avoid) for part, file in files.items()} if avoid else {}
    names = known if classes is not None else _with_images(files, known, found, avoid)
    _check_training(files["train"], found["train"], names, single, chosen=classes is not None)
    folders = {"train": base / train_images, "test": base / test_images}
    parts = {
        part: _records(files[part], folder, found[part], names, single, avoided.get(part))
        for part, folder in folders.items()
    }
    make = partial(FileDataset, classes=names, root=base, skip_corrupt=skip_corrupt)
    keys = content_keys(parts["train"] + parts["test"])
    return official_splits(parts["train"], parts["test"], make, val, seed, per_class, keys, partial(path_from, base))


def _in_order(file: CocoFile, wanted: Sequence[str] | None, avoid: Sequence[str]) -> list[str]:
    """Return the wanted categories, or all by their number, without those to avoid."""
    numbered = sorted(file.categories.items(), key=lambda item: (isinstance(item[0], str), item[0]))
    known = list(dict.fromkeys(name for _, name in numbered))
    for option, names in (("class", wanted or ()), ("category to avoid:", avoid)):
        for name in names:
            if name not in known:
                raise unknown_name(option, name, known)
    if both := [name for name in wanted or () if name in avoid]:
        raise SightlineError(f"avoid: {_quoted(both)} is among the classes, too; leave it out of one of the two")
    return [name for name in known if name not in avoid] if wanted is None else list(wanted)


def _with_images(
    files: Mapping[str, CocoFile],
    known: Sequence[str],
    found: Mapping[str, Mapping[Hashable, ByClass]],
    avoid: Sequence[str],
) -> list[str]:
    """Return the categories of which there is an instance; warn of the others, and of those of the test file alone."""
    annotated = {name for images in found.values() for by_class in images.values() for name in by_class}
    if empty := [name for name in known if name not in annotated]:
        warnings.warn(
            f"{files['train'].path}: the categories {_quoted(empty)} are no classes: no image shows them", stacklevel=4
        )
    if others := sorted(files["test"].annotated - {*known, *avoid}):
        warnings.warn(
            f"{files['test'].path}: the instances of {_quoted(others)} are left out, because {files['train'].path} has no "
            "such categories",
            stacklevel=4,
        )
    return [name for name in known if name in annotated]


def _check_training(
    file: CocoFile, found: Mapping[Hashable, ByClass], names: Sequence[str], single: bool, chosen: bool
) -> None:
    """Reject a class that the user chose and no training image has; warn of any other."""
    if single:
        shown = {dominant(by_class, names, _where(file, number)) for number, by_class in found.items()}
    else:
        shown = {name for by_class in found.values() for name in by_class}
    if missing := [name for name in names if name not in shown]:
        message = f"{file.path} has no image of {_quoted(missing)} to train on"
        if chosen:
            raise SightlineError(f"classes: {message}")
        warnings.warn(message, stacklevel=4)


def _records(
    file: CocoFile,
    folder: Path,
    found: Mapping[Hashable, ByClass],
    names: Sequence[str],
    single: bool,
    avoided: Mapping[Hashable, ByClass] | None,
) -> list[Record]:
    """Return the images with an instance of these classes; `avoided` has those to avoid, where there are any."""
    records, turned, unmasked = [], [], []
    for number, image in file.images.items():
        by_class = found.get(number, {})
        present = [name for name in names if name in by_class]
        if not present:
            continue
        if single:
            present = [dominant(by_class, names, _where(file, number))]
        path = folder / image.name
        instances = [each for name in present for each in by_class[name]]
        frame = find_frame(path, image.size, str(file.path))
        if frame is not None:
            for each in (*instances, *(each for some in (avoided or {}).get(number, {}).values() for each in some)):
                check_runs_fit(each.segmentation, frame, f"{file.path}, annotation {each.number} of {image.name}")
        if frame is not None and not frame.known:
            turned.append(path)
        mask = None
        if all(each.segmentation is not None for each in instances):
            drawn = present if single else names
            of_class = tuple(tuple(each.segmentation for each in by_class.get(name, ())) for name in drawn)
            mask = Instances(
                of_class, not single, f"instances {[each.number for each in instances]} of {file.digest}", frame
            )
        else:
            unmasked.append(path)
        boxes = [each.box for each in instances if each.box]
        if frame is not None:
            for box in boxes:
                check_inside(box, (frame.height, frame.width))
            boxes = [box.moved(frame.turn_box(box.xyxy)) for box in boxes]
        labels = tuple(names.index(name) for name in present)
        around = tuple(box.xyxy for box in boxes)
        avoid = None if avoided is None else _avoid(file, avoided.get(number, {}), frame)
        records.append(Record(path, labels[0] if single else labels, mask, boxes=around, avoid=avoid))
    if turned:
        warnings.warn(unknown_orientation(str(file.path), turned[0], len(turned)), stacklevel=4)
    if unmasked:
        warnings.warn(
            f"{file.path}: {len(unmasked)} of {len(records)} images have no mask, because one of their instances has no "
            f"segmentation; the first is {unmasked[0]}",
            stacklevel=4,
        )
    return records


def _avoid(file: CocoFile, found: ByClass, frame: Frame | None) -> Instances | None:
    """Return what instances to avoid cover; None where one of them has no segmentation."""
    instances = [each for some in found.values() for each in some]
    if any(each.segmentation is None for each in instances):
        return None
    told = f"instances {[each.number for each in instances]} to avoid of {file.digest}"
    return Instances((tuple(each.segmentation for each in instances),), False, told, frame)


def _where(file: CocoFile, number: Hashable) -> str:
    return f"{file.path}, image {file.images[number].name}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
