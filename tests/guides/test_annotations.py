"""A guide without the annotation that it needs is refused where it can be, and warned of otherwise."""

import warnings
from collections.abc import Sequence

import pytest
import torch
from torchvision import tv_tensors

import sightline as sl
from sightline.data.dataset import ImageDataset, Sample
from sightline.errors import SightlineError
from sightline.guides import Guide
from sightline.guides.annotations import check_annotations
from sightline.models import load_model


class Annotated(ImageDataset):
    """Gray images, of which the first have masks or boxes, with an object or empty."""

    def __init__(self, masks: int = 0, boxes: int = 0, groups: Sequence[str] = (), empty: bool = False) -> None:
        self.empty = empty
        ids = [i % len(groups) for i in range(40)] if groups else None
        has_mask, has_boxes = ([i < count for i in range(40)] for count in (masks, boxes))
        super().__init__(
            ["a", "b"], [i % 2 for i in range(40)], has_mask, groups=groups, group_ids=ids, has_boxes=has_boxes
        )

    def load(self, index: int) -> Sample:
        mask = torch.full((8, 8), 0 if self.empty else 1, dtype=torch.uint8)
        boxes = torch.tensor([[1.0, 1.0, 1.0 if self.empty else 4.0, 5.0]])
        return Sample(
            image=tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8)),
            label=index % 2,
            mask=tv_tensors.Mask(mask) if self.has_mask[index] else None,
            index=index,
            group=None if self.group_ids is None else int(self.group_ids[index]),
            path=str(index),
            boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(8, 8)) if self.has_boxes[index] else None,
        )


def objective(guide: Guide) -> sl.Objective:
    model, spec = load_model("sightline/lenet5", None, 2, 32)
    return sl.Objective(model, guide, input_spec=spec)


ON_MASKS = (
    "segment_overlap",
    "energy",
    "l1",
    "right_reasons",
    "attention_gate",
    "adversarial_background",
    "random_background",
)
ON_BOXES = ("energy", "l1", "right_reasons", "attention_gate", "adversarial_background", "region_activation")


@pytest.mark.parametrize("name", ON_MASKS)
def test_guides_on_masks_raise_without_masks_and_warn_with_few(name: str) -> None:
    guided = objective(sl.guides.create_guide(name))
    kind = type(guided.guides[0]).__name__
    with pytest.raises(SightlineError, match=f"{kind} needs masks, and none of the 40 training images has any"):
        check_annotations(guided, Annotated(boxes=40))
    with pytest.raises(SightlineError, match=f"{kind} needs masks, and those of the 40 training images are all empty"):
        check_annotations(guided, Annotated(masks=20, empty=True))
    with pytest.warns(UserWarning, match=f"{kind} needs masks, which 3 of the 40 training images have"):
        check_annotations(guided, Annotated(masks=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_annotations(guided, Annotated(masks=4))


@pytest.mark.parametrize("name", ON_BOXES)
def test_guides_on_boxes_raise_without_boxes(name: str) -> None:
    guided = objective(sl.guides.create_guide(name, region="boxes"))
    with pytest.raises(SightlineError, match="needs boxes, and none of the 40 training images has any"):
        check_annotations(guided, Annotated(masks=40))
    with pytest.raises(SightlineError, match="needs boxes, and those of the 40 training images are all empty"):
        check_annotations(guided, Annotated(boxes=40, empty=True))
    check_annotations(guided, Annotated(boxes=40))


def test_guides_on_maps_or_groups_raise_without_them() -> None:
    for name in ("impactx", "wae"):
        guided = objective(sl.guides.create_guide(name, size=32))
        with pytest.raises(SightlineError, match=r"needs maps, and none .*`maps:` in the recipe"):
            check_annotations(guided, Annotated())
        check_annotations(guided, Annotated(), maps=True)
    check_annotations(objective(sl.guides.IMPACTX(size=32, weight=0)), Annotated())
    check_annotations(objective(sl.guides.IMPACTX(size=32, freeze=False, teacher="gradcam")), Annotated())
    with pytest.raises(SightlineError, match="GroupDRO needs groups, and none"):
        check_annotations(objective(sl.guides.GroupDRO(groups=2)), Annotated())
    check_annotations(objective(sl.guides.GroupDRO(groups=2)), Annotated(groups=["sea", "land"]))
    with pytest.raises(SightlineError, match="groups of GroupDRO is 2; expected 3"):
        check_annotations(objective(sl.guides.GroupDRO(groups=2)), Annotated(groups=["sea", "land", "sky"]))


def test_guides_without_need_or_weight_accept_data_without_annotation() -> None:
    for guide in (sl.guides.GAIN(), sl.guides.Energy(weight=0), sl.guides.Focal(), sl.SegmentOverlap(beta=1.0)):
        check_annotations(objective(guide), Annotated())
    with pytest.raises(SightlineError, match="GAIN needs masks"):
        check_annotations(objective(sl.guides.GAIN(supervision=1.0)), Annotated())
    with pytest.raises(SightlineError, match="Energy needs boxes"):
        check_annotations(objective(sl.SegmentOverlap() + 0.5 * sl.guides.Energy(region="boxes")), Annotated(masks=40))


def test_a_loop_of_ones_own_is_warned_once() -> None:
    guided = objective(sl.SegmentOverlap(beta=0.5))
    batch = sl.Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    with pytest.warns(UserWarning, match="SegmentOverlap needs masks and the batch has none") as caught:
        assert guided(batch)["loss"] == guided(batch)["loss"]
    assert len([each for each in caught if "needs masks" in str(each.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective(sl.SegmentOverlap(beta=0.5)).eval()(batch)
