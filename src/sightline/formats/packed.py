"""Images whose files are packed into larger ones, such as tar shards and Arrow tables, and are read in any order."""

from abc import abstractmethod
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

from torch import Tensor
from torchvision import tv_tensors

from sightline.data.dataset import ImageDataset, Sample
from sightline.data.image_files import decode_image
from sightline.data.mask_files import decode_mask, mask_meaning
from sightline.errors import SightlineError, unknown_name
from sightline.formats.table import sort_names


class Packed(NamedTuple):
    """The content of the files of one image.

    Attributes:
        image: An image file.
        mask: A mask file; None = not annotated.
        avoid: A file of the region to avoid; None = not annotated.
    """

    image: bytes
    mask: bytes | None = None
    avoid: bytes | None = None


class PackedDataset(ImageDataset):
    """Labeled images in packed files. A subclass says how to `unpack` one.

    Args:
        classes: Names of the classes.
        labels: Class of each image.
        has_mask: Whether each image has a mask.
        has_avoid: Whether each image has a region to avoid.
        identity: What tells these images from others, for the fingerprint.
        ignore: A value of the masks that means neither object nor background; None = there is none.
    """

    def __init__(
        self,
        classes: Sequence[str],
        labels: Sequence[int],
        has_mask: Sequence[bool],
        has_avoid: Sequence[bool],
        identity: object,
        ignore: int | None,
    ) -> None:
        super().__init__(classes, labels, has_mask, identity=(identity, ignore), has_avoid=has_avoid)
        self._meaning = mask_meaning(ignore)

    @abstractmethod
    def unpack(self, index: int) -> Packed:
        """Read the files of the image at an index."""

    def load(self, index: int) -> Sample:
        """Decode the image at an index with its mask and its region to avoid.

        Raises:
            UnreadableFileError: A file is damaged.
            SightlineError: A mask has another size than its image.
        """
        name, packed = self.path(index), self.unpack(index)
        image = decode_image(BytesIO(packed.image), name)
        size = (image.shape[1], image.shape[2])
        return Sample(
            image=tv_tensors.Image(image),
            label=self.label(index),
            mask=_decode(packed.mask, f"of {name}", self._meaning, size),
            index=index,
            group=None,
            path=name,
            avoid=_decode(packed.avoid, f"of the region to avoid of {name}", mask_meaning(), size),
        )


def _decode(content: bytes | None, name: str, meaning: Tensor, size: tuple[int, int]) -> tv_tensors.Mask | None:
    if content is None:
        return None
    mask = decode_mask(content, name, meaning)
    if mask.shape[-2:] != size:
        raise SightlineError(
            f"the mask {name} is {mask.shape[-1]} x {mask.shape[-2]} pixels (width x height) and its image {size[1]} x "
            f"{size[0]}; they must agree"
        )
    return tv_tensors.Mask(mask)


def name_classes(
    values: Sequence[str | int | None], classes: Sequence[str] | None, where: str
) -> tuple[list[int], list[str]]:
    """Return the class of each image and the names of the classes.

    Args:
        values: Label of each image. Whole numbers are class indices; other labels are names.
        classes: Names in the order of the classes; None = for whole numbers 0 to the largest, else the names, sorted.
        where: What errors call the place of the labels.

    Raises:
        SightlineError: A label is not among the classes.
    """
    if missing := sum((isinstance(value, int) and value < 0) or value is None for value in values):
        raise SightlineError(f"{missing} images have no label in {where}; expected a label for each image")
    texts = [str(value).strip() for value in values]
    distinct = set(texts)
    if all(text.isdecimal() for text in distinct):
        last = max(map(int, distinct))
        names = list(classes) if classes is not None else [str(index) for index in range(last + 1)]
        if last >= len(names):
            raise SightlineError(
                f"{where} hold the label {last}; classes has {len(names)} names, for 0 .. {len(names) - 1}"
            )
        return [int(text) for text in texts], names
    names = list(classes) if classes is not None else sort_names(distinct)
    place = {name: index for index, name in enumerate(names)}
    for text in texts:
        if text not in place:
            raise unknown_name(f"class in {where}:", text, names)
    return [place[text] for text in texts], names
