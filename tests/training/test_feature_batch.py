import pytest
import torch

from sightline.data.batch import Batch
from sightline.training.feature_batch import FeatureBatch, join


def batch(size, boxes, first=0):
    images = torch.rand(size, 3, 8, 8)
    known = Batch(
        images,
        torch.arange(size) % 2,
        masks=torch.ones(size, 8, 8, dtype=torch.uint8),
        boxes=torch.tensor([[1.0, 1.0, 5.0, 5.0]]).repeat(size, boxes, 1),
        indices=torch.arange(first, first + size),
        groups=torch.arange(size),
    )
    features = torch.rand(size, 4, 2, 2).to(memory_format=torch.channels_last), torch.rand(size, 5).T.contiguous().T
    return known, FeatureBatch.of(known, features)


def test_rows_keep_their_values_and_their_order_in_memory():
    known, kept = batch(6, boxes=2)
    chosen = kept.rows(torch.tensor([4, 1, 1]))
    assert len(chosen) == 3
    assert chosen.images.shape == (3, 3, 8, 8)
    assert chosen.images.isnan().all()
    for name, tensor in kept.tensors.items():
        assert torch.equal(chosen.tensors[name], tensor[[4, 1, 1]])
    assert chosen.features[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(chosen.labels, known.labels[[4, 1, 1]])
    chosen.features[0].zero_()
    assert kept.features[0].all()  # of their own


def test_joined_boxes_are_padded():
    (one, first), (two, second) = batch(2, boxes=1), batch(3, boxes=3, first=2)
    joined = join([first, second])
    assert joined.indices.tolist() == [0, 1, 2, 3, 4]
    assert joined.boxes.shape == (5, 3, 4)
    assert joined.has_box.sum(1).tolist() == [1, 1, 3, 3, 3]
    assert torch.equal(joined.boxes[joined.has_box], torch.cat([one.boxes.flatten(0, 1), two.boxes.flatten(0, 1)]))
    assert joined.images.shape == (5, 3, 8, 8)


@pytest.mark.parametrize("change", [lambda kept: kept.to("cpu"), lambda kept: kept.changed(labels=kept.labels)])
def test_a_changed_batch_is_one_of_features(change):
    _, kept = batch(2, boxes=1)
    again = change(kept)
    assert isinstance(again, FeatureBatch)
    assert all(torch.equal(each, kept.tensors[name]) for name, each in again.tensors.items())
    again.check_classes(2)
