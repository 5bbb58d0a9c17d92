"""The images of a diagnosis, and where their objects are: by masks, by boxes, or by a guess that says it is one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from sightline._core.checks import check_choice, check_count
from sightline._core.seeding import generator
from sightline.data.batch import Batch, class_masks, non_empty
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.loader import Transformed, collate
from sightline.data.transforms import Fit, eval_transform
from sightline.errors import SightlineError
from sightline.explainers import create_explainer
from sightline.given import read_some
from sightline.localization.detectors import BoxDetector
from sightline.localization.grabcut import center_points, grabcut
from sightline.metrics import map_boxes
from sightline.network.input_spec import InputSpec
from sightline.regions.batch_regions import fill_boxes
from sightline.regions.boxes import tight_boxes

Annotation = Literal["auto", "masks", "boxes", "grabcut", "saliency"]
MIN_IMAGES = 30  # images below which an interval says next to nothing
ABOVE = 0.2  # share of a map's maximum above which a saliency box is drawn


@dataclass(frozen=True)
class Annotated:
    """Images in a random order with the regions of their objects.

    Attributes:
        images: (n, 3, H, W) in [0, 1].
        labels: (n,) int64.
        regions: (n, H, W) uint8 with 0 = background, 1 = object, 255 = neither.
        usable: (n,) bool, whether an image has a region with both object and background.
        indices: (n,) int64, each image's place in its data set.
        paths: where the images come from.
        kind: "masks", "boxes", "grabcut" or "saliency".
        source: a sentence that says how the regions came about.
        trust: a sentence that says how far they can be trusted.
        boxed: whether the data have boxes.
        avoid: (n, H, W) regions to avoid, as in `Batch`; None = the data have none.
        has_avoid: (n,) bool, which images have one.
        skipped: where images come from that cannot be read, and in whose place others were drawn.
    """

    images: Tensor
    labels: Tensor
    regions: Tensor
    usable: Tensor
    indices: Tensor
    paths: list[str]
    kind: str
    source: str
    trust: str
    boxed: bool
    avoid: Tensor | None = None
    has_avoid: Tensor | None = None
    skipped: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> list[Batch]:
        """Yield the images as batches, with their regions as masks."""
        rows = torch.arange(len(self)).split(size)
        return [
            Batch(
                self.images[r], self.labels[r], masks=self.regions[r], has_mask=self.usable[r], indices=self.indices[r],
                avoid=None if self.avoid is None else self.avoid[r],
                has_avoid=None if self.has_avoid is None else self.has_avoid[r],
            )
            for r in rows
        ]  # fmt: skip


def annotate(
    data: ImageDataset | Iterable[Batch],
    *,
    size: int,
    samples: int,
    annotation: Annotation,
    boxes: BoxDetector | None = None,
    saliency: tuple[nn.Module, InputSpec] | None = None,
    last: Tensor | None = None,
    fit: Fit = "crop",
    seed: int = 0,
) -> Annotated:
    """Draw images from a data set, and find out where their objects are.

    Args:
        data: a data set; or batches, all of which are read.
        size: side in pixels that images of a data set are brought to.
        samples: how many images are drawn at most, as many of each class as there are.
        annotation: "masks" = the masks of the data, "boxes" = its boxes, or those around its masks, as rectangles;
            "grabcut" = GrabCut in its boxes, or around the centre without any; "saliency" = boxes around what a pretrained
            network responds to; "auto" = the first of these that there is: masks, GrabCut in boxes, saliency, GrabCut around
            the centre.
        boxes: says where the objects of a data set are, such as an annotation file (`sightline.localization`).
        saliency: a network trained on other images, and its normalisation.
        last: (N,) bool, images of a data set that are drawn only where the others are not enough.
        fit: how images of a data set are brought to the size.
        seed: of the draw.

    Raises:
        SightlineError: the images are missing, or the annotation's requirements.
    """
    check_choice(Annotation, annotation=annotation)
    check_count(samples=samples)
    if annotation == "saliency" and saliency is None:
        raise SightlineError(
            "annotation 'saliency' needs a pretrained network; pass saliency= (--saliency-model, --saliency-weights)"
        )
    transform = eval_transform(max(1, size), fit)
    batch, paths, skipped = _draw(data, size, samples, annotation, boxes, last, transform, seed)
    return replace(_find_objects(batch, paths, annotation, saliency), skipped=skipped)


def _find_objects(
    batch: Batch, paths: list[str], annotation: Annotation, saliency: tuple[nn.Module, InputSpec] | None
) -> Annotated:
    """Return the images with the regions of their objects, by the annotation that was asked for."""
    masked = batch.masks is not None and batch.has_mask is not None and bool(batch.has_mask.any())
    if annotation in ("auto", "masks") and masked:
        return _annotated(
            batch, paths, _masks(batch), "masks", "the masks of the dataset", "as accurate as these masks."
        )
    if annotation == "masks":
        raise SightlineError("annotation is 'masks', and no image has a mask; pass boxes, or annotation='auto'")
    if annotation == "boxes":
        drawn, boxed, drawn_by = _boxes(batch) if batch.boxes is not None else _boxes_around_masks(batch)
        return _annotated(
            batch, paths, _rectangles(drawn, batch.images), "boxes", f"{drawn_by}, as rectangles",
            "good. The corners of a box are background that counts as the object, so a model that uses the background "
            "appears a "
            "little better than it is.", boxed,
        )  # fmt: skip
    if batch.boxes is not None and annotation != "saliency":
        drawn, boxed, drawn_by = _boxes(batch)
        return _annotated(
            batch, paths, grabcut(batch.images, drawn), "grabcut", f"GrabCut in {drawn_by}",
            "fair. With a tight box, GrabCut’s mean IoU with the true mask was 0.75 on 60 images of pets, and 0.79 on "
            "60 recomposed ones. The outlines on the page show where it failed.", boxed,
        )  # fmt: skip
    if saliency is not None and annotation != "grabcut":
        return _annotated(
            batch, paths, _rectangles(_salient_boxes(batch.images, *saliency), batch.images), "saliency",
            "boxes around what a pretrained network responds to (Eigen-CAM), without any annotation",
            "weak. On pets, the mean IoU of such a box with the true mask was 0.4 to 0.5. Look at the outlines on "
            "the page before you trust the verdict.",
        )  # fmt: skip
    return _annotated(
        batch, paths, grabcut(batch.images, points=[center_points(batch.images.shape[-2:])] * len(batch.labels)), "grabcut",
        "GrabCut around the center of each image, without any annotation",
        "weak. It assumes that the object is in the middle and does not touch the border, which also raises the value of a "
        "centered Gaussian, with which maps are compared. On pets, its mean IoU with the true mask was 0.75 on recomposed "
        "images and 0.5 on unchanged images. Look at the outlines on the page before you trust the verdict.",
    )  # fmt: skip


def _draw(
    data: ImageDataset | Iterable[Batch],
    size: int,
    samples: int,
    annotation: Annotation,
    boxes: BoxDetector | None,
    last: Tensor | None,
    transform: v2.Compose,
    seed: int,
) -> tuple[Batch, list[str], list[str]]:
    """Draw some images as one batch in random order, the classes in turn; with their names and the names of unreadable ones."""
    if isinstance(data, ImageDataset):
        data.check_single_label("diagnose")
        places = torch.arange(len(data))
        enough = int(data.has_mask.sum()) >= min(MIN_IMAGES, len(data))
        if data.has_mask.any() and (annotation == "masks" or (annotation == "auto" and enough)):
            places = places[data.has_mask]  # where some images have masks, only these
        late = None if last is None else last[places]
        seen = Transformed(data, transform, None)
        shown, skipped = read_some(seen, places[_in_turn(data.labels[places], seed, late)].tolist(), samples)
        chosen = list(shown)
        masks = bool(data.has_mask[chosen].any()) and not (annotation == "auto" and not enough)
        batch = collate(list(shown.values()), masks, avoid=bool(data.has_avoid[chosen].any()))
        if boxes is not None:
            batch = _with_boxes(batch, [data[place] for place in chosen], boxes, transform)
        return batch, [data.path(place) for place in chosen], skipped
    if boxes is not None:
        raise SightlineError("boxes is given together with batches; put the boxes into the batches")
    batches = [batch.to("cpu") for batch in data]
    if not batches:
        raise SightlineError("data has no images to diagnose")
    whole = _concatenate(batches)
    rows = _in_turn(whole.labels, seed)[:samples]
    assert whole.indices is not None
    return _take(whole, rows), [f"image {index}" for index in whole.indices[rows].tolist()], []


def _with_boxes(batch: Batch, samples: Sequence[Sample], source: BoxDetector, transform: v2.Compose) -> Batch:
    """Return the batch with the boxes of its samples, moved with the images; what is cropped away is left out."""
    moved = []
    for sample, found in zip(samples, source(samples)):
        corners = torch.tensor([box.xyxy for box in found]).reshape(-1, 4)
        canvas = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=tuple(sample.image.shape[-2:]))
        seen = transform(sample.image, canvas)[1].as_subclass(Tensor)
        moved.append(seen[(seen[:, 2:] > seen[:, :2]).all(1)])
    most = max(1, *(len(each) for each in moved))
    padded = torch.stack([nn.functional.pad(each, (0, 0, 0, most - len(each))) for each in moved])
    real = torch.stack([torch.arange(most) < len(each) for each in moved])
    return replace(batch, boxes=padded, has_box=real)


def _in_turn(labels: Tensor, seed: int, last: Tensor | None = None) -> Tensor:
    """Places in a random order, one of each class after the other for as long as the classes last; some of them come last."""
    order = torch.randperm(len(labels), generator=generator(seed, len(labels), "diagnosis"))
    turn = torch.zeros_like(labels)
    for label in labels.unique():
        members = labels[order] == label
        turn[members] = torch.arange(int(members.sum()))
    late = torch.zeros_like(turn) if last is None else len(labels) * last[order]
    return order[(turn + late).argsort(stable=True)]


def _concatenate(batches: list[Batch]) -> Batch:
    """All batches as one; what only some of them have is left out."""

    def joined(name: str) -> Any:
        parts = [getattr(batch, name) for batch in batches]
        if any(part is None for part in parts):
            return None
        if name in ("boxes", "has_box"):  # padded to one number of boxes an image
            most = max(part.shape[1] for part in parts)
            parts = [torch.cat([p, p.new_zeros(len(p), most - p.shape[1], *p.shape[2:])], 1) for p in parts]
        return torch.cat(parts)

    whole = Batch(**{f.name: joined(f.name) for f in fields(Batch)})
    return whole if whole.indices is not None else replace(whole, indices=torch.arange(len(whole)))


def _take(batch: Batch, rows: Tensor) -> Batch:
    """Return some images of a batch."""
    return batch._map(lambda value: value[rows])


def _masks(batch: Batch) -> Tensor:
    """Return the masks (n, H, W) uint8 with 0, 1, 255; 255 everywhere for an image without one."""
    assert batch.masks is not None
    assert batch.has_mask is not None
    masks = class_masks(batch.masks, batch.labels)
    masks = (masks >= 0.5).to(torch.uint8) if masks.is_floating_point() else masks
    return torch.where(batch.has_mask[:, None, None], masks, 255).to(torch.uint8)


def _boxes(batch: Batch) -> tuple[Tensor, Tensor, str]:
    """One box (n, 4) around all boxes of each image, which images have one, and what they are."""
    assert batch.boxes is not None
    assert batch.has_box is not None
    real, found = batch.has_box[..., None], batch.has_box.any(1)
    low = batch.boxes[..., :2].masked_fill(~real, torch.inf).amin(1)
    high = batch.boxes[..., 2:].masked_fill(~real, -torch.inf).amax(1)
    return torch.where(found[:, None], torch.cat([low, high], 1), 0.0), found, "the boxes of the dataset"


def _boxes_around_masks(batch: Batch) -> tuple[Tensor, Tensor, str]:
    """Return the boxes around each image's mask."""
    if batch.masks is None:
        raise SightlineError(
            "annotation is 'boxes', and no image has a box or a mask; pass boxes=FILE, or annotation='auto'"
        )
    return *tight_boxes(_masks(batch) == 1), "boxes around the data set's masks"


def _rectangles(boxes: Tensor, images: Tensor) -> Tensor:
    """Boxes (n, 4) as regions (n, H, W) uint8."""
    return fill_boxes(boxes, (images.shape[-2], images.shape[-1])).to(torch.uint8)


def _salient_boxes(images: Tensor, model: nn.Module, spec: InputSpec) -> Tensor:
    """Return the salient box (n, 4) of each image, regardless of the class."""
    eigencam = create_explainer("eigencam")
    device = next(model.parameters()).device
    maps = [eigencam(model, some.to(device), input_spec=spec).cpu() for some in images.split(32)]
    return map_boxes(torch.cat(maps), ABOVE, "value")


def _annotated(
    batch: Batch, paths: list[str], regions: Tensor, kind: str, source: str, trust: str, found: Tensor | None = None
) -> Annotated:
    assert batch.indices is not None
    usable = non_empty(regions == 1) & non_empty(regions == 0)
    usable = usable if found is None else usable & found
    return Annotated(
        batch.images, batch.labels, regions, usable, batch.indices, paths, kind, source, trust, batch.boxes is not None,
        batch.avoid, batch.has_avoid,
    )  # fmt: skip
