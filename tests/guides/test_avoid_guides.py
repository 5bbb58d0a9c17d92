"""Guides with regions to avoid: what lies in them is penalized, and everything else is free."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

import sightline as sl
from sightline.data.dataset import InMemory
from sightline.errors import SightlineError
from sightline.explainers import resize_maps
from sightline.guides import GUIDES
from sightline.guides.annotations import check_annotations
from sightline.guides.segment_overlap import segment_overlap_loss
from sightline.regions.batch_regions import object_region
from sightline.regions.inpainting import inpaint, widen

SIZE = 16
AVOID = torch.zeros(4, SIZE, SIZE, dtype=torch.uint8)
AVOID[0, :4, :6], AVOID[1, 10:, 10:], AVOID[3, :8] = 1, 1, 1
AVOID[0, 5, 5] = 255
KNOWN = torch.tensor([True, True, True, False])  # the third is empty, the fourth is not known


def batch(**changes: Any) -> sl.Batch:
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return sl.Batch(images, torch.tensor([0, 1, 2, 0]), **{"avoid": AVOID, "has_avoid": KNOWN, **changes})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.Softplus(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def guided(name: str, **options: Any) -> sl.Objective:
    model = network()
    return sl.Objective(model, GUIDES.create(name, region="avoid", **options), layer="4")


def test_avoid_region_has_outside_free_and_unknown_pixels() -> None:
    region = object_region(batch(), "avoid")
    assert region.known.tolist() == [True, True, False, False]
    assert not region.inside.any()
    assert torch.equal(region.outside[0], (AVOID[0] == 1).float())
    assert torch.equal(region.free[0], (AVOID[0] == 0).float())  # an ignored pixel is neither
    assert not region.outside[3].any()  # not known
    assert not region.free[3].any()
    whole = batch(avoid=torch.ones_like(AVOID), has_avoid=None)
    assert not object_region(whole, "avoid").known.any()  # nothing is left to look at
    half = batch(avoid=torch.full((4, SIZE, SIZE), 0.25), has_avoid=None)
    assert (object_region(half, "avoid").free == 0.75).all()
    coarse = object_region(batch(), "avoid").at((4, 4))
    assert coarse.outside[1].sum() == 36 / 16


@pytest.mark.parametrize(
    ("name", "term", "options"),
    [
        ("energy", "energy", {}),
        ("l1", "l1", {}),
        ("right_reasons", "right_reasons", {}),
        ("segment_overlap", "segment_overlap", {"weight": 1.0, "blur": 0}),
        ("attention_gate", "attention_gate", {"layer": "1"}),
    ],
)
def test_terms_average_over_the_images_with_something_to_avoid(name: str, term: str, options: dict[str, Any]) -> None:
    objective, given = guided(name, **options), batch()
    found = objective(given)
    used = AVOID[:2] == 1
    if name == "right_reasons":
        images = given.images.clone().requires_grad_()
        score = objective.model(images).log_softmax(1).sum()
        (gradient,) = torch.autograd.grad(score, images)
        values = (gradient.square().sum(1)[:2] * used).sum((1, 2))
    elif name == "attention_gate":
        gate = objective.guides[0].gate
        seen: list[Tensor] = []
        gate.register_forward_hook(lambda *args: seen.append(args[2]))
        objective.model(given.images)
        logits = seen[0][:2, ..., 0]
        losses = torch.nn.functional.softplus(logits) * used
        values = losses.sum((1, 2)) / used.sum((1, 2))
    else:
        activations, weights = objective.model[:5](given.images), objective.model[7].weight[given.labels]
        cam = torch.einsum("bc,bchw->bhw", weights, activations).relu()  # Grad-CAM before global average pooling
        maps = resize_maps(cam, (SIZE, SIZE))[:2]
        counts = AVOID[:2] != 255
        if name == "energy":
            values = (maps * used).sum((1, 2)) / (maps * counts).sum((1, 2))
        elif name == "l1":
            scaled = maps / maps.amax((1, 2), keepdim=True)
            values = (scaled * used).sum((1, 2)) / used.sum((1, 2))
        else:
            values = torch.nn.functional.cosine_similarity(maps.flatten(1), used.float().flatten(1))
    torch.testing.assert_close(found[term], values.mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["energy", "l1", "segment_overlap"])
def test_a_map_that_leaves_the_region_out_costs_nothing(name: str) -> None:
    inside = torch.zeros(1, 8, 8)
    inside[:, :2] = 1
    maps, guide = torch.rand(1, 8, 8) * (1 - inside), GUIDES.create(name, region="avoid")
    region = object_region(sl.Batch(torch.rand(1, 3, 8, 8), torch.tensor([0]), avoid=inside), "avoid")
    if name == "segment_overlap":
        assert abs(float(1 - segment_overlap_loss(maps, region.outside))) < 1e-6
        return
    assert float(guide.loss(maps, region)) == 0
    assert float(guide.loss(torch.zeros_like(maps), region)) == 0
    assert float(guide.loss(maps + inside, region)) > 0


def test_inpainting_fills_the_region_alone_and_continues_a_ramp() -> None:
    ramp = torch.linspace(-2, 3, 20).expand(2, 3, 20, 20).clone()
    stained = ramp.clone()
    region = torch.zeros(2, 20, 20, dtype=torch.bool)
    region[0, 8:11, 8:11] = True
    stained[0, :, 8:11, 8:11] = 50.0
    filled = inpaint(stained, region)
    assert torch.equal(filled[1], ramp[1])
    assert torch.equal(filled[0, :, ~region[0]], ramp[0, :, ~region[0]])
    assert (filled[0] - ramp[0]).abs().max() < 0.1
    assert torch.equal(inpaint(ramp, torch.ones_like(region)), ramp)  # nothing surrounds it
    grown = widen(region)
    assert grown[0].sum() == 49
    assert not grown[1].any()


@pytest.mark.parametrize("fill", ["random", "inpaint"])
def test_random_backgrounds_replace_what_is_to_be_avoided(fill: str) -> None:
    objective, given = guided("random_background", fill=fill).train(), batch()
    changed = objective.guides[0].transform(given, objective)
    touched = (changed.images != given.images).any(1)
    assert not (touched & ~widen(AVOID == 1)).any()
    assert touched[:2].any((1, 2)).all()
    assert not touched[2:].any()
    with torch.no_grad():
        marked = given.images.clone()
        marked[:2] = torch.where(AVOID[:2, None] == 1, 1.0, marked[:2])
        other = objective.guides[0].transform(batch().changed(images=marked), objective)
    torch.testing.assert_close(other.images, changed.images)  # nothing of the mark is left, in any image
    assert objective.eval().guides[0].transform(given, objective) is given


def test_options_without_meaning_for_a_region_to_avoid_raise() -> None:
    with pytest.raises(SightlineError, match=r"reward is 1\.0; expected 0 for the region 'avoid'"):
        sl.guides.RightReasons(region="avoid", reward=1.0)
    with pytest.raises(SightlineError, match="region"):
        GUIDES.create("region_activation", region="avoid")
    with pytest.raises(SightlineError, match="fill is 'inpaint'"):
        GUIDES.create("random_background", fill="inpaint")
    with pytest.raises(SightlineError, match="fill"):
        GUIDES.create("random_background", region="avoid", fill="black")


def test_data_without_a_region_to_avoid_is_rejected(make_objects: Any) -> None:
    plain = make_objects(4)

    def with_regions(value: int) -> InMemory:
        regions = [tv_tensors.Mask(torch.full((24, 32), value, dtype=torch.uint8)) for _ in range(4)]
        return InMemory([replace(plain[i], avoid=regions[i]) for i in range(4)], plain.classes, value)

    objective = guided("energy")
    with pytest.raises(SightlineError, match=r"needs avoid, and none of the 4 .* `marked` makes some"):
        check_annotations(objective, plain)
    for value in (0, 1):
        with pytest.raises(SightlineError, match="all empty or cover the whole image"):
            check_annotations(objective, with_regions(value))
    regions = with_regions(0)
    regions[2].avoid[3, 3] = 1
    check_annotations(objective, regions)
    with pytest.warns(UserWarning, match="needs avoid and the batch has none"):
        guided("energy")(batch(avoid=None, has_avoid=None))


def test_the_map_of_every_label_leaves_the_region_out() -> None:
    labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    several = sl.Batch(batch().images, labels, avoid=AVOID, has_avoid=KNOWN)
    objective = guided("segment_overlap", weight=1.0, blur=0)
    activations, weights = objective.model[:5](several.images), objective.model[7].weight
    used = (AVOID == 1).float()

    def similarity(image: int, label: int) -> Tensor:
        cam = torch.einsum("c,chw->hw", weights[label], activations[image]).relu()[None]
        return torch.nn.functional.cosine_similarity(resize_maps(cam, (SIZE, SIZE)).flatten(), used[image].flatten(), 0)

    expected = ((similarity(0, 0) + similarity(0, 1)) / 2 + similarity(1, 2)) / 2
    torch.testing.assert_close(objective(several)["segment_overlap"], expected, rtol=1e-4, atol=1e-6)
