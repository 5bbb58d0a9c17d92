"""The images of `fix`, and what is given of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.dataset import ImageDataset
from sightline.data.file_dataset import FileDataset
from sightline.data.files import locate
from sightline.errors import SightlineError, unknown_name
from sightline.given import Normalization, as_dataset, readable_part
from sightline.localization.detectors import AnnotatedBoxes
from sightline.localization.grabcut import grabcut
from sightline.models.opening import OpenedModel


@dataclass(frozen=True)
class Given:
    """Images with the marks that were given.

    Attributes:
        images: counted by the classes of the model.
        names: the path of each image.
        classes: the name of each class of the model; those of the images where it has none.
        objects: masks by place, (h, w) uint8 with 1 = object.
        avoid: regions to avoid by place, (h, w) bool.
        notes: what was read, in words.
        root: the folder of the images; None = they are not files, or in several folders of splits.
    """

    images: ImageDataset
    names: list[str]
    classes: list[str]
    objects: Mapping[int, np.ndarray] = field(default_factory=dict)
    avoid: Mapping[int, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    root: Path | None = None

    @property
    def relative_names(self) -> list[str]:
        """The paths of the images below the folder that all of them share."""
        parts = [Path(name).parts for name in self.names]
        shared = 0
        while all(len(each) > shared + 1 for each in parts) and len({each[shared] for each in parts}) == 1:
            shared += 1
        return ["/".join(each[shared:]) for each in parts]

    def drawn(self) -> Tensor:
        """Return which images (N,) have a mark."""
        return torch.tensor([i in self.objects or i in self.avoid for i in range(len(self.images))])

    def marked(self) -> Tensor:
        """Return which images (N,) decide between ways to refit: the marked ones; all where none is."""
        drawn = self.drawn()
        return drawn if drawn.any() else torch.ones_like(drawn)


def read_given(
    opened: OpenedModel,
    data: Any,
    masks: str | Path | Mapping[str, np.ndarray] | None,
    boxes: str | Path | None,
    avoid: str | Path | Mapping[str, np.ndarray] | None,
) -> Given:
    """Open images with their masks, boxes and regions to avoid.

    Raises:
        SightlineError: there are no such files, no mark belongs to an image, or images can have several labels.
    """
    spec = opened.input_spec
    folders = {n: str(v) for n, v in (("masks", masks), ("avoid", avoid)) if isinstance(v, str | Path)}
    dataset = as_dataset(data, classes=opened.names, normalization=Normalization(spec.mean, spec.std), **folders)
    dataset.check_single_label("fix")
    whole = opened.match(dataset)
    images = readable_part(whole)
    left_out = [f"{len(images.skipped)} images cannot be read and are left out: {', '.join(images.skipped)}"]
    classes = images.classes if opened.classes is None else opened.names
    names = [images.path(index) for index in range(len(images))]
    objects = {**_own(images, "mask"), **_by_name(masks, names, images, "masks")}
    avoided = {**_own(images, "avoid"), **_by_name(avoid, names, images, "avoid")}
    if boxes is not None:
        objects = {**_boxed(images, Path(locate(str(boxes), "boxes"))), **objects}
    for argument, some in (("masks", objects), ("avoid", avoided)):
        if some and not any((mask == 1).any() for mask in some.values()):
            raise SightlineError(f"{argument}: all {len(some)} are empty; expected one that marks something")
    told = [
        f"{len(some)} images have {what}"
        for some, what in ((objects, "a mask"), (avoided, "a region to avoid"))
        if some
    ]
    regions = {index: mask == 1 for index, mask in avoided.items()}
    return Given(
        images, names, classes, objects, regions,
        [f"{len(images)} images in {len(images.classes)} classes", *told, *(left_out if images.skipped else [])],
        root=dataset.root if isinstance(dataset, FileDataset) else None,
    )  # fmt: skip


def _own(images: ImageDataset, kind: str) -> dict[int, np.ndarray]:
    """Return the masks or regions that a dataset has."""
    has = images.has_mask if kind == "mask" else images.has_avoid
    return {index: np.asarray(getattr(images[index], kind)) for index in has.nonzero()[:, 0].tolist()}


def _by_name(given: object, names: list[str], images: ImageDataset, argument: str) -> dict[int, np.ndarray]:
    """Masks that were given by the path of the image, or the end of the path where no other image has it."""
    if not isinstance(given, Mapping):
        return {}
    found = {}
    for name, mask in given.items():
        matches = [index for index, path in enumerate(names) if path == name or path.endswith(f"/{name}")]
        if len(matches) != 1:
            if matches:
                raise SightlineError(f"{argument}: {len(matches)} images are called {name!r}; give more of the path")
            raise unknown_name(f"{argument}: image", str(name), names)
        array = np.asarray(mask)
        if array.ndim != 2:
            raise SightlineError(f"{argument}: the mask of {name} has shape {array.shape}; expected (h, w)")
        found[matches[0]] = (array != 0).astype(np.uint8)
    return found


def _boxed(images: ImageDataset, file: Path) -> dict[int, np.ndarray]:
    """Masks that GrabCut makes of boxes."""
    detector = AnnotatedBoxes(file)
    found = {}
    for index in range(len(images)):
        sample = images[index]
        boxes = [box for each in detector([sample])[0] if (box := each.within(sample.image.shape[-2:])) is not None]
        if boxes:
            image = sample.image.as_subclass(Tensor)[None] / 255
            masks = [grabcut(image, torch.tensor(box.xyxy)[None])[0] for box in boxes]
            found[index] = torch.stack(masks).amax(0).numpy()
    if not found:
        raise SightlineError(
            f"boxes: no box in {file} belongs to an image of the data; name images by their paths in the data's folder"
        )
    return found
