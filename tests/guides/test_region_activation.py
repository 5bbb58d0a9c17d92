"""RIA: values by hand, the straight-through gradient, and what descending it does."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.guides import create_guide
from sightline.guides.region_activation import RegionActivation, ria_loss
from sightline.regions.batch_regions import fill_boxes


def blob(center: Tensor, width: Tensor, size: int = 64) -> Tensor:
    """A Gaussian (1, size, size) with its maximum of 1 at `center` (x, y)."""
    at = torch.arange(size, dtype=center.dtype) + 0.5
    across, down = ((at - c) ** 2 for c in center)
    return torch.exp(-(down[:, None] + across) / (2 * width**2))[None]


def test_the_value_is_the_boxes_by_hand() -> None:
    maps = torch.zeros(3, 8, 8)
    maps[0, 2:6, 1:4] = 0.8  # box 3 x 4, of which the object's box holds 2 x 4
    maps[0, 3, 2] = 1.0
    maps[0, 7, 7] = 0.9  # not connected with the maximum
    maps[1, 4, 4] = 1.0  # one pixel, outside
    inside = fill_boxes(torch.tensor([[2.0, 0, 8, 8], [0, 0, 2, 2], [0, 0, 8, 8]]), (8, 8))
    loss, found = ria_loss(maps, inside, penalty=0.1)
    torch.testing.assert_close(loss, torch.tensor([1 - 8 / 12 + 0.1 * 5, 1 + 0.1 * 2**0.5, 0.0]))
    assert found.tolist() == [True, True, False]


def test_a_larger_box_of_the_object_does_no_harm() -> None:
    """Equation 6 divides by the map's box alone."""
    maps = blob(torch.tensor([20.0, 30.0]), torch.tensor(4.0))
    boxes = torch.tensor([[10.0, 20, 30, 40]]), torch.tensor([[0.0, 0, 64, 64]])
    tight, whole = (ria_loss(maps, fill_boxes(box, (64, 64)), 0.0)[0] for box in boxes)
    assert tight == whole == 0


@pytest.mark.parametrize("center", [(20.3, 31.1), (33.7, 18.2), (12.4, 12.9), (45.2, 40.6)])
def test_the_gradient_points_where_a_smoothed_box_points(center: tuple[float, float]) -> None:
    """Moving and widening a blob changes the exact loss as the soft gradient says: cosine above 0.9.

    The exact loss is a staircase; its difference over +-3 pixels, averaged over sub-pixel shifts, is its slope.
    """
    inside = fill_boxes(torch.tensor([[16.0, 16, 36, 36]]), (64, 64))
    place = torch.tensor([*center, 6.0], dtype=torch.float64)

    def exact(at: Tensor) -> float:
        shifts = [(dx / 5, dy / 5) for dx in range(-2, 3) for dy in range(-2, 3)]
        values = [ria_loss(blob(at[:2] + torch.tensor(s), at[2]), inside, 0.1 / 90)[0] for s in shifts]
        return float(torch.stack(values).mean())

    leaf = place.clone().requires_grad_()
    (soft,) = torch.autograd.grad(ria_loss(blob(leaf[:2], leaf[2]), inside, 0.1 / 90)[0].sum(), leaf)
    slope = []
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 3.0 if axis < 2 else 1.0
        slope.append((exact(place + step) - exact(place - step)) / (2 * step[axis]))
    assert torch.cosine_similarity(soft, torch.tensor(slope), dim=0) > 0.9


def test_descending_it_moves_and_shrinks_the_box() -> None:
    """A map that is free to change: IoU-hat rises to 1, and the box gets smaller."""
    torch.manual_seed(0)
    inside = fill_boxes(torch.tensor([[2.0, 2, 10, 10]]), (16, 16))
    raw = (blob(torch.tensor([9.0, 9.0]), torch.tensor(4.0), 16) + 0.05 * torch.rand(1, 16, 16)).requires_grad_()

    def loss(penalty: float) -> Tensor:
        return ria_loss(sl.explainers.normalize_maps(raw), inside, penalty)[0].sum()

    share, whole = 1 - loss(0.0).item(), loss(1.0).item() - loss(0.0).item()  # IoU-hat, and the diagonal in pixels
    optimizer = torch.optim.SGD([raw], lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        loss(0.1 / 16).backward()
        optimizer.step()
    assert share < 0.6
    assert 1 - loss(0.0).item() > 0.95
    assert loss(1.0).item() - loss(0.0).item() < 0.8 * whole


def test_training_a_network_by_it_raises_iou_hat() -> None:
    """Bright squares on noise: the box of the label's map comes to lie in the square's."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    images, labels = 0.3 * torch.rand(8, 3, 24, 24), torch.arange(8) % 2
    corners = torch.randint(0, 14, (8, 2))
    for image, label, (x, y) in zip(images, labels, corners):
        image[label, y : y + 10, x : x + 10] += 0.7
    boxes = torch.cat([corners, corners + 10], 1)[:, None].float()
    batch = sl.Batch(images, labels, boxes=boxes)
    objective = sl.Objective(model, RegionActivation(target="label", penalty=0.0), layer="3")
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        output = objective(batch)
        output["loss"].backward()
        optimizer.step()
        values.append(output["region_activation"].item())
    assert values[0] > 0.5  # IoU-hat below a half
    assert sum(values[-5:]) / 5 < 0.5 * values[0]


def test_the_last_layer_learns() -> None:
    """The gradient is second order: through the channel weights, not through the activations alone."""
    torch.manual_seed(1)
    model, batch = TinyCNN().double(), batch_of(6)
    objective = sl.Objective(model, RegionActivation(region="masks", target="label"), task_weight=0.0)
    objective(batch)["loss"].backward()
    assert model.classifier.weight.grad.abs().max() > 1e-8


def test_a_batch_is_its_images_one_by_one() -> None:
    torch.manual_seed(1)
    model, batch = TinyCNN().double().eval(), batch_of(4)
    objective = sl.Objective(model, RegionActivation(region="masks")).eval()
    ones = [
        objective(sl.Batch(batch.images[i : i + 1], batch.labels[i : i + 1], masks=batch.masks[i : i + 1]))
        for i in range(4)
    ]
    known = objective.guides[0].sample_mask(batch)["region_activation"]
    single = torch.stack([one["region_activation"] for one, k in zip(ones, known) if k]).mean()
    torch.testing.assert_close(objective(batch)["region_activation"], single)


def test_boxes_are_counted_where_they_are_missing_outside_or_empty() -> None:
    torch.manual_seed(1)
    model, batch = TinyCNN().double(), batch_of(4)
    side = batch.images.shape[-1]
    boxes = torch.tensor([[[0.0, 0, side, side]], [[-9, -9, -1, -1]], [[3, 3, 3, 6]], [[0, 0, side, side]]])
    boxed = sl.Batch(
        batch.images, batch.labels, boxes=boxes.double(), has_box=torch.tensor([[True], [True], [True], [False]])
    )
    output = sl.Objective(model, RegionActivation(penalty=0.0))(boxed)
    assert int(output["n/region_activation/unannotated"]) == 3
    assert output["region_activation"] == 0  # the whole image is the object's box
    without = sl.Objective(model, RegionActivation())(sl.Batch(batch.images, batch.labels))
    assert int(without["n/region_activation/unannotated"]) == 4
    torch.testing.assert_close(without["loss"], without["task"])


def test_a_map_without_contrast_is_counted_and_costs_nothing() -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 2, 1)
            self.head = nn.Linear(2, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.features(images * 0).mean((2, 3)))

    model = Blind()
    batch = sl.Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), boxes=torch.tensor([[[0.0, 0, 4, 4]]] * 2))
    output = sl.Objective(model, RegionActivation(), layer="features", task_weight=0.0)(batch)
    output["loss"].backward()
    assert int(output["n/region_activation/no_region"]) == 2
    assert output["loss"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_an_image_without_a_region_leaves_the_mean() -> None:
    """The first image is black, so that its map is flat; the term is that of the other one alone, as is its gradient."""

    class Bright(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 2, 3, padding=1, bias=False)
            self.head = nn.Linear(2, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.features(images).mean((2, 3)))

    torch.manual_seed(3)
    model = Bright().double()
    images = torch.rand(2, 3, 8, 8).double()
    images[0] = 0
    boxes = torch.tensor([[[0.0, 0, 4, 4]]] * 2).double()
    objective = sl.Objective(model, RegionActivation(), layer="features")
    both = objective(sl.Batch(images, torch.tensor([0, 1]), boxes=boxes))
    alone = objective(sl.Batch(images[1:], torch.tensor([1]), boxes=boxes[1:]))
    assert int(both["n/region_activation/no_region"]) == 1
    assert alone["region_activation"] > 0
    torch.testing.assert_close(both["region_activation"], alone["region_activation"])


def test_pixels_are_the_literal_unit() -> None:
    torch.manual_seed(1)
    model, batch = TinyCNN().double(), batch_of(4)
    losses = [
        sl.Objective(model, RegionActivation(region="masks", unit=unit, penalty=penalty))(batch)["region_activation"]
        for unit, penalty in (("fraction", 0.0), ("fraction", 0.1), ("pixels", 0.1))
    ]
    size = batch.images.shape[-2:]
    torch.testing.assert_close(losses[2] - losses[0], (losses[1] - losses[0]) * (size[0] ** 2 + size[1] ** 2) ** 0.5)


def test_region_activation_adds_to_other_guides_copies_and_pickles() -> None:
    torch.manual_seed(1)
    model, batch = TinyCNN().double(), batch_of(4)
    guide = 0.5 * create_guide("region_activation", region="masks") + create_guide("energy")
    objective = sl.Objective(model, guide)
    output = objective(batch)
    expected = output["task"] + 0.25 * output["region_activation"] + output["energy"]
    torch.testing.assert_close(output["loss"].detach(), expected)
    for again in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        torch.testing.assert_close(again(batch)["loss"], output["loss"])


def test_half_precision_is_finite() -> None:
    torch.manual_seed(1)
    model, batch = TinyCNN(), batch_of(4)
    batch = sl.Batch(batch.images.float(), batch.labels, masks=batch.masks, has_mask=batch.has_mask)
    with torch.autocast("cpu", torch.bfloat16):
        output = sl.Objective(model, RegionActivation(region="masks"))(batch)
    output["loss"].backward()
    assert output["loss"].isfinite()


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 1.0},
        {"penalty": -1},
        {"softness": 0},
        {"target": "true"},
        {"unit": "metres"},
        {"region": "outline"},
        {"weight": -1},
        {"explainer": "eigencam"},
    ],
)
def test_region_activation_with_invalid_options_raises(options: dict[str, object]) -> None:
    with pytest.raises(SightlineError, match=next(iter(options))):
        create_guide("region_activation", **options)
