"""Values that are no labels, masks, flags or boxes are refused where a batch is made, by name."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.evaluation import evaluate_model

BOXES = torch.tensor([[[1.0, 1.0, 5.0, 5.0]], [[0.0, 2.0, 8.0, 8.0]]])
MASKS = torch.ones(2, 8, 8, dtype=torch.uint8)


def make(**given: Any) -> Batch:
    return Batch(**{"images": torch.rand(2, 3, 8, 8), "labels": torch.tensor([0, 1]), **given})


def changed(tensor: Tensor, place: tuple[int, ...], value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": torch.tensor([0, -100])}, "labels hold -100; expected class indices >= 0"),
        ({"labels": torch.tensor([-1, 1])}, "labels hold -1"),
        ({"labels": torch.tensor([[0, 2], [1, 0]])}, r"labels range over \[0, 2\]; .* expected 1 for every class"),
        ({"labels": torch.tensor([[0, 1], [-1, 0]])}, r"labels range over \[-1, 1\]"),
        ({"masks": changed(MASKS, (0, 3, 3), 7)}, "masks hold the value 7"),
        ({"masks": changed(MASKS.float(), (1, 0, 0), math.nan)}, r"masks range over .*nan"),
        ({"boxes": [BOXES[0], BOXES[1]]}, "boxes is a list; expected a tensor"),
        ({"labels": [0, 1]}, "labels is a list; expected a tensor"),
        ({"masks": MASKS.numpy()}, "masks is a ndarray; expected a tensor"),
        ({"indices": (0, 1)}, "indices is a tuple; expected a tensor"),
        ({"masks": MASKS.bool()}, "masks have dtype torch.bool"),
        ({"masks": torch.ones(2, 0, 8, 8, dtype=torch.uint8)}, "masks have shape"),
        (
            {"masks": torch.ones(2, 2, 8, 8, dtype=torch.uint8), "labels": torch.tensor([0, 2])},
            "masks have 2 classes and",
        ),
        (
            {"masks": MASKS, "has_mask": torch.ones(1, dtype=torch.bool)},
            r"has_mask has shape \(1,\) .* expected \(2,\) bool",
        ),
        ({"masks": MASKS, "has_mask": torch.ones(2)}, "has_mask has shape .* torch.float32; expected"),
        ({"masks": MASKS, "has_mask": torch.ones(2, 1, dtype=torch.bool)}, r"has_mask has shape \(2, 1\)"),
        (
            {"boxes": changed(BOXES, (0, 0, 2), 0.5)},
            r"boxes hold \[1.0, 1.0, 0.5, 5.0\]; expected x1 <= x2 and y1 <= y2",
        ),
        ({"boxes": changed(BOXES, (1, 0, 1), 9.0)}, r"boxes hold \[0.0, 9.0, 8.0, 8.0\]"),
        ({"boxes": changed(BOXES, (1, 0, 1), math.nan)}, r"boxes hold \[0.0, nan"),
        ({"boxes": changed(BOXES, (0, 0, 2), math.inf)}, "inf"),
        ({"boxes": changed(BOXES, (0, 0, 2), 1e9)}, "1000000000.0"),
        ({"boxes": BOXES > 1}, "boxes have shape .* torch.bool"),
        (
            {"boxes": BOXES, "has_box": torch.ones(2, dtype=torch.bool)},
            r"has_box has shape \(2,\) .* expected \(2, 1\) bool",
        ),
        ({"indices": torch.tensor([0, -1])}, "indices hold -1"),
        ({"indices": torch.tensor([0.0, 1.0])}, r"indices have shape \(2,\) and dtype torch.float32"),
        ({"groups": torch.tensor([[0], [1]])}, r"groups have shape \(2, 1\)"),
        ({"maps": torch.full((2, 8, 8), math.nan)}, "NaN or infinity in maps"),
        ({"maps": torch.ones(2, 8, 8, dtype=torch.int64)}, "maps have dtype torch.int64"),
        ({"parts": torch.full((2, 1, 8, 8), 3, dtype=torch.uint8)}, "parts hold other values than 0 and 1"),
    ],
)
def test_batch_invalid_values_raise(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        make(**given)


def test_a_padded_box_may_hold_anything() -> None:
    boxes = torch.cat([BOXES, torch.full_like(BOXES, math.nan)], 1)
    assert make(boxes=boxes, has_box=torch.tensor([[True, False]] * 2)).boxes is boxes


@pytest.mark.parametrize("how", ["plain", "moved", "pickled", "copied", "changed"])
def test_a_label_that_the_model_does_not_know(how: str) -> None:
    batch = batch_of(4, 8, 3)
    batch = Batch(batch.images, torch.tensor([0, 1, 99, 2]))
    ways = {
        "plain": lambda b: b,
        "moved": lambda b: b.to("cpu"),
        "pickled": lambda b: pickle.loads(pickle.dumps(b)),
        "copied": copy.deepcopy,
        "changed": lambda b: b.changed(images=b.images * 0.5),
    }
    with pytest.raises(SightlineError, match=r"labels hold 99; the model has classes 0 .. 2"):
        sl.Objective(TinyCNN().double())(ways[how](batch))


def test_labels_set_by_hand_are_not_held_against_the_old_ones() -> None:
    batch = Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 5]))
    batch.labels = torch.tensor([0, 1])
    assert sl.Objective(TinyCNN())(batch)["loss"].isfinite()
    assert set(vars(batch)) == set(Batch.__dataclass_fields__)


def test_an_evaluation_and_an_objective_know_the_classes() -> None:
    with pytest.raises(SightlineError, match=r"labels hold 5; the model has classes 0 .. 2"):
        evaluate_model(TinyCNN(), [make(labels=torch.tensor([0, 5]))], ["gaussian"], ["accuracy"])
    with pytest.raises(SightlineError, match="labels are of 2 classes; the model has 3"):
        sl.Objective(TinyCNN())(make(labels=torch.tensor([[0, 1], [1, 0]])))
    with pytest.raises(SightlineError, match="masks have 2 classes and the model 3"):
        sl.Objective(TinyCNN())(make(masks=torch.ones(2, 2, 8, 8, dtype=torch.uint8)))
