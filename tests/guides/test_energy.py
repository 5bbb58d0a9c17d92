"""The energy and L1 losses: by hand, and through the network against finite differences."""

import pytest
import torch
from differences import check_gradients

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.explainers import resize_maps
from sightline.guides import Guide, create_guide
from sightline.guides.energy import L1, Energy, energy_loss, l1_loss


def lively(guide: Guide, size: int = 4) -> tuple[TinyCNN, sl.Batch]:
    """A network and images without an all-zero map, where the losses have a kink."""
    for seed in range(4, 60):
        torch.manual_seed(seed)
        model, batch = TinyCNN().double(), batch_of(size)
        output = sl.Objective(model, guide)(batch)
        if not any(int(value) for name, value in output.items() if name.endswith("zero_maps")):
            return model, batch
    raise AssertionError("no seed gives maps everywhere")


def test_energy_loss_is_the_share_outside() -> None:
    maps = torch.tensor([[[3.0, 1.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    inside = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]).expand(2, -1, -1)
    torch.testing.assert_close(energy_loss(maps, inside, 1 - inside), torch.tensor([5 / 8, 1.0]))
    ignored = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]).expand(2, -1, -1)  # the 4 counts on neither side
    torch.testing.assert_close(energy_loss(maps, inside, ignored), torch.tensor([1 / 4, 1.0]))
    torch.testing.assert_close(energy_loss(1e-30 * maps, inside, 1 - inside), torch.tensor([5 / 8, 1.0]))


def test_l1_loss_is_the_mean_absolute_difference() -> None:
    maps = torch.tensor([[[4.0, 1.0], [0.0, 2.0]]])
    inside = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    # |1 - 1| + |1/4 - 0| + |0 - 0| + |1/2 - 1| over four pixels
    torch.testing.assert_close(l1_loss(maps, inside, 1 - inside), torch.tensor([0.75 / 4]))
    torch.testing.assert_close(l1_loss(maps, inside, 1 - inside, reward=0.0), torch.tensor([0.25 / 4]))
    random, mask = torch.rand(2, 5, 5), (torch.rand(2, 5, 5) > 0.5).float()
    scaled = random / random.amax((1, 2), keepdim=True)
    torch.testing.assert_close(l1_loss(random, mask, 1 - mask), (scaled - mask).abs().mean((1, 2)))


@pytest.mark.parametrize("guide", [Energy, L1])
def test_energy_is_the_loss_of_the_map_of_the_label(guide: type[Energy] | type[L1]) -> None:
    model, batch = lively(guide())
    activations = model.features(batch.images)
    scores = model.classifier(model.head(activations)).gather(1, batch.labels[:, None]).sum()
    (gradients,) = torch.autograd.grad(scores, activations)
    maps = (gradients.mean((2, 3), keepdim=True) * activations).sum(1).relu().detach()
    mask = batch.masks.to(maps.dtype)
    loss = energy_loss if guide is Energy else l1_loss
    name = "energy" if guide is Energy else "l1"
    torch.testing.assert_close(sl.Objective(model, guide())(batch)[name], loss(maps, mask, 1 - mask).mean())


def test_a_coarse_map_is_compared_at_the_inputs_resolution() -> None:
    torch.manual_seed(4)
    model, batch = sl.load_model("sightline/small_cnn", classes=3)[0], batch_of(side=32, dtype=torch.float32)
    output = sl.Objective(model, Energy())(batch)
    maps, mask = output["maps"], batch.masks.float()
    assert torch.equal(maps, resize_maps(maps, (32, 32)))
    torch.testing.assert_close(output["energy"], energy_loss(maps, mask, 1 - mask).mean())


@pytest.mark.parametrize(
    "guide",
    [Energy(), Energy(explainer="layercam"), Energy(region="boxes"), L1(), L1(reward=0.2, explainer="hirescam")],
    ids=lambda guide: f"{guide.name} {guide.explainer.function.func.__name__} {guide.region}",
)
def test_gradients_of_every_parameter_match_finite_differences(guide: Energy | L1) -> None:
    model, batch = lively(guide, size=2)
    batch.boxes = torch.tensor([[[1.0, 2, 6, 7]], [[0, 0, 3, 8]]], dtype=torch.float64)
    batch.has_box = torch.ones(2, 1, dtype=torch.bool)
    seen = check_gradients(sl.Objective(model, guide, task_weight=0.0), batch, weight=10.0)
    assert {"classifier.weight", "features.0.weight"} <= seen  # a first-order map would leave the last layer unguided


@pytest.mark.parametrize("name", ["energy", "l1"])
def test_boxes_and_the_masks_that_fill_them_are_one(name: str) -> None:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of()
    batch.masks[:] = 0
    batch.masks[:, 2:7, 1:6] = 1
    batch.boxes = torch.tensor([[[1.0, 2, 6, 7]]]).expand(4, 1, 4)
    batch.has_box = torch.ones(4, 1, dtype=torch.bool)
    masked, boxed = (
        sl.Objective(model, create_guide(name, region=region))(batch)[name] for region in ("masks", "boxes")
    )
    torch.testing.assert_close(masked, boxed)


@pytest.mark.parametrize("name", ["energy", "l1"])
def test_images_without_an_object_weigh_nothing_and_are_counted(name: str) -> None:
    guide = create_guide(name)
    model, batch = lively(guide)
    first = sl.Objective(model, guide)(sl.Batch(batch.images[:2], batch.labels[:2], masks=batch.masks[:2]))
    batch.masks[3] = 0
    batch.has_mask = torch.tensor([True, True, False, True])
    mixed = sl.Objective(model, guide)(batch)
    torch.testing.assert_close(mixed[name], first[name])
    assert int(mixed[f"n/{name}/unannotated"]) == 2
    none = sl.Objective(model, guide, task_weight=0.0)(sl.Batch(batch.images, batch.labels))
    none["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", ["energy", "l1"])
def test_descending_it_moves_the_map_onto_the_object(name: str) -> None:
    torch.manual_seed(5)
    model, batch = TinyCNN(width=8), batch_of(dtype=torch.float32)
    batch.masks[:] = 0
    batch.masks[:, :, :4] = 1
    objective = sl.Objective(model, create_guide(name, explainer="layercam"))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = objective(batch)[name].item()
    for _ in range(100):
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    assert objective(batch)[name].item() < first - 0.1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("energy", {"weight": -1.0}, "weight is -1.0"),
        ("energy", {"region": "mask"}, "did you mean 'masks'"),
        ("energy", {"explainer": "eigencam"}, "'eigencam' is not differentiable; a loss can use"),
        ("l1", {"reward": -0.5}, "reward is -0.5"),
        ("l1", {"explainer": "gaussian"}, "not differentiable"),
    ],
)
def test_energy_and_l1_invalid_options_raise(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        create_guide(name, **options)
