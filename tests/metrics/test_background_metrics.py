"""Accuracies on ImageNet-9's variants, and BG-gap."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

import sightline as sl
from sightline.data.dataset import InMemory, Sample
from sightline.data.loader import create_loader
from sightline.datasets.derived.variants import BackgroundVariant, MaskedImages
from sightline.evaluation import evaluate_model
from sightline.metrics import METRICS, BGGap, MixedNextAccuracy, MixedRandAccuracy, MixedSameAccuracy
from sightline.regions.background_sources import backgrounds_of
from sightline.regions.backgrounds import VARIANTS

NAMES = [f"{variant}_accuracy" for variant in VARIANTS if variant != "original"]
BOX = (slice(2, 6), slice(2, 6))


class Reads(nn.Module):
    """Answers by the brightest of three channels, in the middle of the object or at the edge of the image."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.place = 3 if where == "object" else 0

    def forward(self, images: Tensor) -> Tensor:
        return 10 * images[:, :, self.place, self.place]


def samples(labels: Sequence[int], unmasked: Sequence[int] = ()) -> list[Sample]:
    """8 x 8 images whose object and background both have the colour of their class, the object brighter."""
    made = []
    for i, label in enumerate(labels):
        image, mask = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)
        image[label] = 100
        image[(label, *BOX)] = 200
        mask[BOX] = 1
        known = None if i in unmasked else tv_tensors.Mask(mask)
        made.append(Sample(tv_tensors.Image(image), label, known, i, None, str(i)))
    return made


def dataset(labels: Sequence[int], unmasked: Sequence[int] = ()) -> InMemory:
    return InMemory(samples(labels, unmasked), ["a", "b", "c"], (list(labels), list(unmasked)))


LABELS = [0] * 5 + [1] * 4 + [2] * 6  # sorted by class, as test sets are


def values(
    where: str, data: InMemory, names: Sequence[str], batch_size: int = 4, **options: object
) -> dict[str, float]:
    batches = create_loader(data, size=8, batch_size=batch_size, train=False)
    found = evaluate_model(Reads(where), batches, [], dict.fromkeys(names, options))
    return {result.metric: result.value for result in found.results}


def test_a_model_of_the_object_alone_keeps_its_accuracy_on_every_background() -> None:
    found = values("object", dataset(LABELS), [*NAMES, "bg_gap"])
    # In no_fg and only_bg_b all three channels are black, which is class 0: 5 of 15. The tiles have the class's colour.
    assert found == pytest.approx(
        dict.fromkeys(NAMES, 1.0) | {"no_fg_accuracy": 1 / 3, "only_bg_b_accuracy": 1 / 3, "bg_gap": 0.0}
    )


def test_a_model_of_the_background_alone_follows_every_background() -> None:
    data = dataset(LABELS)
    found = values("background", data, [*NAMES, "bg_gap"])
    squares = MaskedImages(data, size=8)
    own = [LABELS[giver] == label for giver, label in zip(squares.givers["mixed_rand"], LABELS)]
    assert 0 < sum(own) < len(own)
    assert found == pytest.approx(
        {
            "only_fg_accuracy": 1 / 3,  # black is class 0
            "no_fg_accuracy": 1.0,
            "only_bg_b_accuracy": 1.0,
            "only_bg_t_accuracy": 1.0,
            "mixed_same_accuracy": 1.0,
            "mixed_next_accuracy": 0.0,
            "mixed_rand_accuracy": sum(own) / len(own),
            "bg_gap": 1 - sum(own) / len(own),
        }
    )


class Half(nn.Module):
    """Right about an image if its background, else its label's colour at the object, says class 0."""

    def forward(self, images: Tensor) -> Tensor:
        return 10 * (images[:, :, 3, 3] * 0.6 + images[:, :, 0, 0] * torch.tensor([1.5, 0.1, 0.1]))


def test_bg_gap_is_mixed_same_minus_mixed_rand() -> None:
    # The object weighs 0.6 x 200, the background 1.5 x 100 where it is of class 0 and 0.1 x 100 otherwise (all / 255): the
    # answer is 0 on backgrounds of class 0, and the object's class on others.
    data = dataset(LABELS)
    givers = MaskedImages(data, size=8).givers
    expected = []
    for label, same, rand in zip(LABELS, givers["mixed_same"], givers["mixed_rand"]):
        right = [label if LABELS[giver] else 0 for giver in (same, rand)]
        expected.append(int(right[0] == label) - int(right[1] == label))
    assert {0, 1} == set(expected)
    batches = create_loader(data, size=8, batch_size=4, train=False)
    found = evaluate_model(Half(), batches, [], ["bg_gap"])
    assert found.samples["bg_gap"].tolist() == expected
    (result,) = found.results
    assert result.value == pytest.approx(sum(expected) / 15)
    assert result.low <= result.value <= result.high
    assert result.n == 15
    assert not result.higher_is_better


@pytest.mark.parametrize("fill", ["tile", "inpaint"])
def test_metrics_equal_accuracies_on_the_data_sets(fill: str) -> None:
    """What `evaluate --metrics` composes is what `background_variants` holds."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)).eval()
    pictures = samples(LABELS, unmasked=[2])
    pictures[6].mask.fill_(1)  # no background: it neither gets one nor lends one
    for sample in pictures:
        sample.image.copy_(torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8))
    data = InMemory(pictures, ["a", "b", "c"], "noise")
    metrics = {name: {"fill": fill, "seed": 3} for name in NAMES}
    found = evaluate_model(model, create_loader(data, size=8, batch_size=4, train=False), [], metrics)
    squares = MaskedImages(data, size=8, fill=fill, seed=3)
    for name in NAMES:
        split = BackgroundVariant(squares, name.removesuffix("_accuracy"))
        other = evaluate_model(model, create_loader(split, size=8, batch_size=5, train=False), [], ["accuracy"])
        assert found.samples[name][squares.indices].tolist() == other.samples["accuracy"].tolist()
    assert squares.indices == [i for i in range(15) if i not in (2, 6)]


def test_images_without_masks_are_skipped_and_counted() -> None:
    data = dataset(LABELS, unmasked=[0, 6])
    data._samples[1].mask.fill_(0)  # no object
    data._samples[2].mask.fill_(1)  # no background
    metric = MixedSameAccuracy(Reads("background"))
    for batch in (batches := list(create_loader(data, size=8, batch_size=4, train=False))):
        metric.update(
            batch.images, batch.labels, batch.masks, batch.has_mask, batch.indices, backgrounds=backgrounds_of(batches)
        )
    assert metric.compute() == 1
    assert (metric.n, metric.skipped) == (11, 4)
    assert metric.per_image()[[0, 1, 2, 6]].isnan().all()


def test_the_order_and_size_of_batches_change_nothing() -> None:
    data = dataset(LABELS)
    first = values("background", data, ["mixed_rand_accuracy", "bg_gap"])
    assert values("background", data, ["mixed_rand_accuracy", "bg_gap"], batch_size=15) == first
    batches = list(create_loader(data, size=8, batch_size=6, train=False))
    found = evaluate_model(Reads("background"), batches, [], ["mixed_rand_accuracy", "bg_gap"])
    assert {r.metric: r.value for r in found.results} == first
    assert values("background", data, ["mixed_rand_accuracy"], seed=1) != values(
        "background", data, ["mixed_rand_accuracy"], seed=0
    )
    # A part of the data set keeps the backgrounds of all of it.
    some = create_loader(data, size=8, batch_size=3, train=False, indices=[2, 7, 8])
    part = evaluate_model(Reads("background"), some, [], ["mixed_rand_accuracy"])
    whole = evaluate_model(Reads("background"), batches, [], ["mixed_rand_accuracy"])
    column = whole.samples["mixed_rand_accuracy"]
    assert part.samples["mixed_rand_accuracy"].tolist() == column[[2, 7, 8]].tolist()


def test_background_metrics_outside_an_evaluation_take_backgrounds_from_the_batch() -> None:
    (batch,) = create_loader(dataset(LABELS), size=8, batch_size=15, train=False)
    for metric_class, expected in ((MixedSameAccuracy, 1), (MixedNextAccuracy, 0)):
        metric = metric_class(Reads("background"))
        metric.update(batch.images, batch.labels, batch.masks)
        assert metric.compute() == expected
    rand, gap = MixedRandAccuracy(Reads("background")), BGGap(Reads("background"))
    for metric in (rand, gap):
        metric.update(batch.images, batch.labels, batch.masks)
    assert gap.compute() == pytest.approx(1 - float(rand.compute()))
    alone = BGGap(Reads("object"))
    alone.update(batch.images[:1], batch.labels[:1], batch.masks[:1])
    with pytest.raises(sl.SightlineError, match="no image to average over"):
        alone.compute()
    assert alone.skipped == 1


def test_masks_per_class_and_soft_masks_are_taken() -> None:
    (batch,) = create_loader(dataset(LABELS), size=8, batch_size=15, train=False)
    of_classes = torch.zeros(15, 3, 8, 8, dtype=torch.uint8)
    of_classes[torch.arange(15), batch.labels] = batch.masks
    for masks in (of_classes, batch.masks[:, None], batch.masks.float() * 0.6):
        metric = MixedNextAccuracy(Reads("object"))
        metric.update(batch.images, batch.labels, masks)
        assert metric.compute() == 1
        assert metric.n == 15


def test_background_metrics_invalid_arguments_raise() -> None:
    (batch,) = create_loader(dataset(LABELS), size=8, batch_size=15, train=False)
    metric = BGGap(Reads("object"))
    with pytest.raises(sl.SightlineError, match="because what is taken away becomes black here"):
        metric.update(batch.images * 2, batch.labels, batch.masks)
    with pytest.raises(sl.SightlineError, match=r"masks have shape \(15, 4, 4\)"):
        metric.update(batch.images, batch.labels, batch.masks[:, :4, :4])
    with pytest.raises(sl.SightlineError, match="needs images with one label each"):
        metric.update(batch.images, torch.ones(15, 3, dtype=torch.int64), batch.masks)
    with pytest.raises(sl.SightlineError, match="did you mean 'tile'"):
        BGGap(Reads("object"), fill="tiled")


def test_background_metrics_capabilities_name_masks_and_model() -> None:
    for name in (*NAMES, "bg_gap"):
        capabilities = METRICS[name].capabilities
        assert capabilities["needs_masks"]
        assert capabilities["needs_model"]
        assert not capabilities["needs_maps"]
