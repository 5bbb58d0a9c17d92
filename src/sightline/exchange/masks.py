"""The masks of a dataset to an annotation tool, and the annotations of a tool to mask files."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torchvision.io import encode_png

from sightline._core.checks import check_fraction
from sightline._core.files import check_new, make_folder, replacing_folder, write_atomically
from sightline.data.dataset import ImageDataset
from sightline.data.files import locate
from sightline.data.image_listing import list_images
from sightline.errors import SightlineError, unknown_name
from sightline.exchange.coco import read_coco, write_coco
from sightline.exchange.cvat import read_cvat, write_cvat
from sightline.exchange.heat_maps import open_maps, relative_names, whole_map
from sightline.exchange.label_studio import read_label_studio, write_label_studio
from sightline.exchange.labelme import read_labelme, write_labelme
from sightline.exchange.marked import MarkedImage, Region
from sightline.formats.frames import find_frame, unknown_orientation

AVOID = "avoid"  # the label of regions that must not matter to the answer


@dataclass(frozen=True)
class Tool:
    """An annotation tool.

    Attributes:
        write: writes images to a file or folder.
        read: reads them.
        suffix: of the file that `write` makes; empty = a folder.
    """

    write: Callable[[Sequence[MarkedImage], Path], None]
    read: Callable[[Path], list[MarkedImage]]
    suffix: str


TOOLS = {
    "coco": Tool(write_coco, read_coco, ".json"),
    "cvat": Tool(write_cvat, read_cvat, ".xml"),
    "label-studio": Tool(write_label_studio, read_label_studio, ".json"),
    "labelme": Tool(write_labelme, read_labelme, ""),
}


def find_tool(name: str) -> Tool:
    """Return the tool of that name."""
    if name not in TOOLS:
        raise unknown_name("annotation tool", name, TOOLS)
    return TOOLS[name]


def export_masks(
    dataset: ImageDataset, tool: str, output: str | Path, maps: str | Path | None = None, threshold: float = 0.5
) -> int:
    """Write the masks and regions to avoid of a dataset as an annotation tool reads them, and return of how many images.

    The label of a mask is the class of its image; that of a region to avoid is "avoid". Images without either are left out.

    Args:
        dataset: the images; where they are files, they are named by their path in the folder of the dataset.
        tool: "coco", "cvat", "label-studio" or "labelme".
        output: the file to write, or for LabelMe the folder.
        maps: a store of maps (`sightline explain --store`), whose high values are the masks; None = the masks of the data.
        threshold: where a map counts as the object, as a share of its maximum, in (0, 1].

    Raises:
        SightlineError: there is no such tool, no mask, or the output is there or has another suffix.
    """
    known, place = find_tool(tool), Path(output)
    if place.suffix != known.suffix:
        expected = f"a name that ends in {known.suffix}" if known.suffix else "a folder, without a suffix"
        raise SightlineError(f"output is {output}; expected {expected} for {tool}")
    check_new(place)
    check_fraction("(0, 1]", threshold=threshold)
    dataset.check_single_label("an export of masks")
    marked = list(_masked_images(dataset) if maps is None else _mapped_images(dataset, maps, threshold))
    if not marked:
        raise SightlineError("no image has a mask or a region to avoid; give masks=FOLDER or avoid=FOLDER")
    known.write(marked, place)
    return len(marked)


def _masked_images(dataset: ImageDataset) -> Iterator[MarkedImage]:
    names = relative_names(dataset)
    for index in (dataset.has_mask | dataset.has_avoid).nonzero()[:, 0].tolist():
        sample = dataset[index]
        found = [(dataset.classes[int(dataset.labels[index])], sample.mask), (AVOID, sample.avoid)]
        yield _marked(names[index], [(label, mask.numpy() == 1) for label, mask in found if mask is not None])


def _mapped_images(dataset: ImageDataset, maps: str | Path, threshold: float) -> Iterator[MarkedImage]:
    store = open_maps(maps, dataset)
    for index, name in enumerate(relative_names(dataset)):
        saliency = whole_map(store, dataset, index)
        mask = (saliency > 0) & (saliency >= threshold * saliency.max())
        yield _marked(name, [(dataset.classes[int(dataset.labels[index])], mask.numpy())])


def _marked(name: str, masks: Sequence[tuple[str, np.ndarray]]) -> MarkedImage:
    height, width = masks[0][1].shape
    regions = [Region(label, mask) for label, mask in masks if mask.any()]
    return MarkedImage(name, height, width, regions)


def import_masks(
    source: str | Path, tool: str, images: str | Path, output: str | Path, labels: Sequence[str] | None = None
) -> int:
    """Write the annotations of a tool as masks, 255 = object, with the paths of the images, and return how many.

    Regions of one image are one mask. An image that the tool has without a region of these labels gets no mask.

    Args:
        source: what the tool exported: a file, or for LabelMe a folder.
        tool: "coco", "cvat", "label-studio" or "labelme".
        images: the folder of the images. They are found by their path in it, else by their name where only one has it.
        output: the folder to write, which must be new.
        labels: of the regions that count; None = all but "avoid".

    Raises:
        SightlineError: a file is missing or damaged, no annotation belongs to an image, or an image has another size.
    """
    known, root, place = find_tool(tool), locate(Path(images), "images"), Path(output)
    check_new(place)
    marked = known.read(locate(Path(source), "source"))
    present = sorted({region.label for image in marked for region in image.regions})
    for label in labels or ():
        if label not in present:
            raise unknown_name("label", label, present)
    wanted = [label for label in present if label != AVOID] if labels is None else list(labels)
    files = list_images(root)
    by_path = {file.relative_to(root).as_posix(): file for file in files}
    by_name: dict[str, list[Path]] = {}
    for one in files:
        by_name.setdefault(one.name, []).append(one)
    masks: dict[Path, np.ndarray] = {}
    lost: list[str] = []
    for image in marked:
        regions = [region.mask for region in image.regions if region.label in wanted]
        if not regions:
            continue
        if (file := _find(image.path, by_path, by_name)) is None:
            lost.append(image.path)
            continue
        mask = _upright(np.any(regions, axis=0), image, file, str(source))
        masks[file] = masks[file] | mask if file in masks else mask
    if lost:
        warnings.warn(f"{len(lost)} annotated images are not in {images}, such as {lost[0]}", stacklevel=2)
    if not masks:
        raise SightlineError(
            f"no annotation in {source} belongs to an image in {images}; its labels are {', '.join(present) or 'none'}"
        )
    _write(masks, root, place)
    return len(masks)


def _write(masks: dict[Path, np.ndarray], root: Path, output: Path) -> None:
    with replacing_folder(output) as folder:
        for file, mask in masks.items():
            target = (folder / file.relative_to(root)).with_suffix(".png")
            if target.exists():
                raise SightlineError(f"{file} and another image would have one mask; rename one of them")
            make_folder(target.parent)
            write_atomically(target, encode_png(torch.from_numpy(mask.astype(np.uint8))[None] * 255).numpy().tobytes())


def _find(path: str, by_path: dict[str, Path], by_name: dict[str, list[Path]]) -> Path | None:
    """Return the image with this path, or with the end of this path, or with its name alone."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    for start in range(len(parts)):
        if file := by_path.get("/".join(parts[start:])):
            return file
    named = by_name.get(parts[-1], []) if parts else []
    return named[0] if len(named) == 1 else None


def _upright(mask: np.ndarray, image: MarkedImage, file: Path, where: str) -> np.ndarray:
    frame = find_frame(file, (image.height, image.width), where)
    if frame is None:
        raise SightlineError(f"cannot read the image {file}, which {where} annotates")
    if not frame.known:
        warnings.warn(unknown_orientation(where, file), stacklevel=3)
    return frame.turn_mask(torch.from_numpy(np.ascontiguousarray(mask))).numpy()
