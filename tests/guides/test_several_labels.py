"""Images with several labels: the task, SO-Loss with a map for each label, and what cannot train on them."""

import math

import pytest
import torch
from differences import check_gradients
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.guides import create_guide
from sightline.objectives.losses import task_loss

LABELS = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]])


class Planes(nn.Module):
    """The image's channels are the features, so that a class's Grad-CAM is their sum by the class's weights, where positive."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1, bias=False)
        self.layer.weight.data = torch.eye(3)[:, :, None, None]
        self.head = nn.Linear(3, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean((2, 3)))


def batch_of(labels: Tensor = LABELS, side: int = 6) -> sl.Batch:
    """Random images; the mask of a class is one of three columns, and the third image has none of its second class."""
    masks = torch.zeros(len(labels), 3, side, side, dtype=torch.uint8)
    for k in range(3):
        masks[:, k, 1:5, 2 * k : 2 * k + 2] = labels[:, k, None, None].to(torch.uint8)
    masks[2:, 1] = 0
    return sl.Batch(torch.rand(len(labels), 3, side, side, dtype=torch.float64), labels, masks=masks)


def by_hand(model: Planes, batch: sl.Batch) -> tuple[Tensor, list[Tensor]]:
    """The binary cross-entropies of all images, and SO-Loss of those with a labelled object."""
    logits = model(batch.images)
    task, overlap = [], []
    for i in range(len(batch)):
        terms, losses = [], []
        for k in range(3):
            probability = 1 / (1 + torch.exp(-logits[i, k]))
            present = int(batch.labels[i, k])
            terms.append(-torch.log(probability if present else 1 - probability))
            mask = (batch.masks[i, k] == 1).double()
            if present and mask.any():
                heat = sum(model.head.weight[k, c] * batch.images[i, c] for c in range(3)).clamp_min(0)
                losses.append(1 - (heat * mask).sum() / (heat.norm() * mask.norm()))
        task.append(sum(terms) / 3)
        if losses:
            overlap.append(sum(losses) / len(losses))
    return torch.stack(task), overlap


def test_segment_overlap_of_several_labels_averages_over_labels_with_masks() -> None:
    torch.manual_seed(1)
    model, batch = Planes().double(), batch_of()
    model.head.weight.data.abs_()
    output = sl.Objective(model, sl.SegmentOverlap(beta=0.3, blur=0), layer="layer")(batch)
    task, overlap = by_hand(model, batch)
    assert len(overlap) == 3  # the last image shows nothing
    torch.testing.assert_close(output["task"], task.mean().detach())
    torch.testing.assert_close(output["segment_overlap"], torch.stack(overlap).mean().detach())
    torch.testing.assert_close(output["loss"], 0.3 * task.mean() + 0.7 * torch.stack(overlap).mean())
    assert int(output["n/segment_overlap/unannotated"]) == 1
    assert int(output["n/segment_overlap/zero_maps"]) == 0


@pytest.mark.parametrize("options", [{}, {"views": 4, "resolution": "layer", "blur": 3}])
def test_one_label_each_is_the_loss_of_single_labels(options: dict[str, object]) -> None:
    torch.manual_seed(2)
    model, classes = TinyCNN().double(), torch.tensor([2, 0, 1])
    several = batch_of(nn.functional.one_hot(classes, 3))
    several.masks[2, 1, 2:4, 2:4] = 1
    single = sl.Batch(several.images, classes, masks=several.masks[torch.arange(3), classes])
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.0, **options))
    torch.testing.assert_close(objective(several)["loss"], objective(single)["loss"])


def test_the_order_of_the_classes_does_not_matter() -> None:
    torch.manual_seed(3)
    model, batch, order = TinyCNN().double(), batch_of(), torch.tensor([2, 0, 1])
    guide = sl.SegmentOverlap(beta=0.5, blur=0)
    loss = sl.Objective(model, guide)(batch)["loss"]
    model.classifier.weight.data = model.classifier.weight.data[order]
    model.classifier.bias.data = model.classifier.bias.data[order]
    permuted = sl.Batch(batch.images, batch.labels[:, order], masks=batch.masks[:, order])
    torch.testing.assert_close(sl.Objective(model, guide)(permuted)["loss"], loss)


def test_gradients_match_finite_differences() -> None:
    for seed in range(50):  # until no map is all zero, where the loss has a kink
        torch.manual_seed(seed)
        model, batch = TinyCNN().double(), batch_of(LABELS[:2])
        objective = sl.Objective(model, sl.SegmentOverlap(beta=0.5, blur=0))
        if int(objective(batch)["n/segment_overlap/zero_maps"]) == 0:
            break
    assert {"classifier.weight", "features.0.weight"} <= check_gradients(objective, batch)


def test_small_batches_add_up() -> None:
    torch.manual_seed(4)
    model, whole = TinyCNN().double(), batch_of()
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.5, blur=0))
    parts = [sl.Batch(whole.images[r], whole.labels[r], masks=whole.masks[r]) for r in (slice(1), slice(1, 4))]
    counts = objective.counts(parts)
    torch.testing.assert_close(sum(objective(p, counts)["loss"] for p in parts), objective(whole)["loss"])


def test_one_mask_serves_all_labels() -> None:
    torch.manual_seed(5)
    model, batch = Planes().double(), batch_of(LABELS[:1])
    union = sl.Batch(batch.images, batch.labels, masks=batch.masks.amax(1))
    apart = sl.Batch(batch.images, batch.labels, masks=batch.masks.amax(1, keepdim=True).expand(-1, 3, -1, -1))
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.0, blur=0), layer="layer")
    torch.testing.assert_close(objective(union)["loss"], objective(apart)["loss"])
    assert torch.equal(batch.object_masks(), union.object_masks())


def test_labels_of_a_batch_come_up_once() -> None:
    batch = batch_of()
    rounds = list(batch.each_label())
    shown = torch.zeros_like(LABELS)
    for classes, left in rounds:
        shown[left, classes[left]] += 1
    assert len(rounds) == 2
    assert torch.equal(shown, LABELS)


def test_task_loss_of_several_labels_is_the_mean_binary_cross_entropy() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    expected = -(math.log(1 / 2) + math.log(3 / 4)) / 2
    torch.testing.assert_close(task_loss(logits, torch.tensor([[0, 1]])), torch.tensor([expected]))
    ps = logits[0].sigmoid()
    smooth = -(0.1 * ps[0].log() + 0.9 * (1 - ps[0]).log() + 0.9 * ps[1].log() + 0.1 * (1 - ps[1]).log()) / 2
    torch.testing.assert_close(task_loss(logits, torch.tensor([[0, 1]]), 0.2)[0], smooth)
    with pytest.raises(SightlineError, match=r"labels have shape \(1, 3\); the model's logits have \(1, 2\)"):
        task_loss(logits, torch.tensor([[0, 1, 0]]))


def test_several_labels_where_one_is_needed_raise() -> None:
    model, batch = TinyCNN().double(), batch_of()
    for guide in (create_guide("energy"), sl.SegmentOverlap() + create_guide("energy")):
        objective = sl.Objective(model, guide)
        for use in (lambda o: o(batch), lambda o: o.counts([batch])):
            with pytest.raises(SightlineError, match="needs images with one label each"):
                use(objective)
    with pytest.raises(SightlineError, match="target 'predicted' needs images with one label each"):
        sl.Objective(model, sl.SegmentOverlap(target="predicted"))(batch)
