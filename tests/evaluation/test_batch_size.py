"""What is drawn at random for an image depends on the image, not on how images are batched."""

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from explainer_names import ELSEWHERE
from networks import TinyCNN
from sightline.evaluation import evaluate_model
from sightline.explainers import create_explainer, list_explainers
from sightline.explainers.maps import compute_maps
from sightline.metrics import METRICS, RFS, Coherency, ExplanationConsistency, MoRF, noised

IMAGES = 9
SIZES = (1, 4, 32)
SPEC = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (12, 12))
QUICK = {
    "insertion": {"steps": 4}, "deletion": {"steps": 4}, "morf": {"repeats": 1}, "lerf": {"repeats": 1},
    "lerf_minus_morf": {"repeats": 1},
}  # fmt: skip
FEW = {
    "lime": {"samples": 8, "patch": 6}, "kernel_shap": {"samples": 8, "patch": 6}, "rise": {"masks": 20},
    "smoothgrad": {"samples": 3}, "partition_shap": {"evaluations": 20}, "weighted_shap": {"evaluations": 20},
    "lots": {"iterations": 3}, "integrated_gradients": {"steps": 3}, "augmented": {"method": "randomcam"},
}  # fmt: skip


def network() -> nn.Module:
    """ReLUs and max pooling, so that every explainer is defined."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ).eval()  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    return torch.rand(IMAGES, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def batches(images: Tensor, size: int) -> list[sl.Batch]:
    masks = torch.zeros(len(images), 12, 12, dtype=torch.uint8)
    masks[:, 3:8, 2:9] = 1
    index = torch.arange(len(images))
    boxes = torch.tensor([[[1.0, 2, 8, 9]]]).repeat(len(images), 1, 1)
    parts = torch.stack([masks, masks.roll(3, 1)], 1)
    return [
        sl.Batch(
            images[rows], rows % 2, masks=masks[rows], boxes=boxes[rows], indices=rows + 20, groups=rows % 2, parts=parts[rows],
            avoid=masks[rows].roll((3, 3), (1, 2)),
        )
        for rows in index.split(size)
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(list_explainers()) - ELSEWHERE))
def test_maps_are_the_same_for_every_batch_size(name: str, images: Tensor) -> None:
    model, options = network(), FEW.get(name, {})
    layer = "4" if sl.explainers.needs_layer(name) else None
    whole = create_explainer(name, **options)(model, images, layer=layer)
    kept = create_explainer(name, **options)
    fours = torch.cat([kept(model, part, layer=layer) for part in images.split(4)])
    ones = torch.cat([create_explainer(name, **options)(model, part, layer=layer) for part in images.split(1)])
    torch.testing.assert_close(fours, whole, atol=2e-4, rtol=0)
    torch.testing.assert_close(ones, whole, atol=2e-4, rtol=0)


def test_metrics_of_random_maps_are_the_same_for_every_batch_size(images: Tensor) -> None:
    options = {name: QUICK.get(name, {}) for name in METRICS.names()}
    found = [
        evaluate_model(network(), batches(images, size), ["randomcam"], options, input_spec=SPEC, layer="4")
        for size in SIZES
    ]
    alone = evaluate_model(network(), batches(images, 4), ["randomcam"], ["energy_in_mask"], input_spec=SPEC, layer="4")
    assert found[0].facts["left_out"] == {}
    for other in (*found[1:], alone):
        for name, column in other.samples.items():
            torch.testing.assert_close(column, found[0].samples[name], equal_nan=True, atol=1e-5, rtol=1e-4)
    # Chance: the explanation image gets other weights, so its map is another.
    assert found[0].samples["coherency@randomcam"].std() > 0


@pytest.mark.parametrize("metric", [RFS, MoRF, Coherency, ExplanationConsistency])
def test_metrics_by_themselves_are_the_same_for_every_batch_size(metric: type, images: Tensor) -> None:
    model, values = network(), []
    for size in SIZES:
        options = {"explainer": "randomcam", "layer": "4"} if metric in (Coherency, ExplanationConsistency) else {}
        one = metric(model, **options)
        for batch in batches(images, size):
            if metric is RFS:
                one.update(batch.images, batch.labels, batch.masks)
            else:
                one.update(batch.images, sl.explain(model, batch.images, "randomcam", layer="4"))
        values.append(one.per_image())
    torch.testing.assert_close(values[1], values[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(values[2], values[0], atol=1e-5, rtol=1e-4)


def test_noise_without_indices_is_keyed_by_the_pixels(images: Tensor) -> None:
    region = torch.ones(IMAGES, 12, 12, dtype=torch.bool)
    whole = noised(images, region, 0.1)
    assert torch.equal(torch.cat([noised(a, b, 0.1) for a, b in zip(images.split(2), region.split(2))]), whole)
    noise = (whole - images).flatten(1)
    assert len(noise.unique(dim=0)) == IMAGES
    with pytest.raises(sl.SightlineError, match="indices has 2 entries; expected one for each of the 9 images"):
        noised(images, region, 0.1, indices=torch.arange(2))


def test_random_weights_differ_by_image_purpose_layer_and_seed(images: Tensor) -> None:
    model = TinyCNN().eval()
    explainer = create_explainer("randomcam")
    again = explainer.for_images(images, None, "again")
    maps = explainer(model, images)
    torch.testing.assert_close(explainer.for_images(images)(model, images), maps)
    assert not torch.equal(again(model, images), maps)
    torch.testing.assert_close(again(model, images + 1e-6), again(model, images), atol=1e-3, rtol=0)  # the same weights
    indexed = explainer.for_images(images, torch.arange(IMAGES))
    turned = explainer.for_images(images.flip(0), torch.arange(IMAGES).flip(0))
    torch.testing.assert_close(turned(model, images.flip(0)), indexed(model, images).flip(0))
    ones = torch.ones(IMAGES, 6, 2, 2)
    first, second = (indexed.contributions(number, ones, ones)[:, :, 0, 0] for number in (0, 1))
    assert len(torch.cat([first, second]).unique(dim=0)) == 2 * IMAGES
    assert -1 <= first.min() < -0.5 < 0.5 < first.max() <= 1


def test_a_guide_on_random_maps_does_not_depend_on_the_batch_and_draws_again_in_every_epoch(images: Tensor) -> None:
    model = TinyCNN().double()
    objective = sl.Objective(model, sl.Energy(explainer="randomcam"))
    batch = batches(images.double(), IMAGES)[0]
    losses = [objective(part)["energy"] for part in batches(images.double(), 3)]
    torch.testing.assert_close(torch.stack(losses).mean(), objective(batch)["energy"])
    torch.testing.assert_close(objective(batch)["energy"], objective(batch)["energy"])
    before = objective(batch)["energy"]
    objective.on_epoch_start([batch], 1)
    assert abs(objective(batch)["energy"] - before) > 1e-4


def test_stored_maps_do_not_depend_on_the_size_of_the_chunks(tmp_path, make_objects) -> None:
    dataset, model = make_objects(count=7), TinyCNN().eval()
    spec = sl.InputSpec((0.0,) * 3, (1.0,) * 3, (16, 16))
    stores = [
        compute_maps(model, dataset, tmp_path / str(size), "randomcam", input_spec=spec, chunk_size=size)
        for size in (1, 4, 32)
    ]
    for store in stores[1:]:
        torch.testing.assert_close(store.read(range(7)), stores[0].read(range(7)), atol=1 / 254, rtol=0)
