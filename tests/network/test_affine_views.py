"""Affine views: scaling, rotation, shear, translation."""

import math
from itertools import product

import pytest
import torch
from torchvision.transforms.v2 import functional as TF

import sightline as sl
from networks import TinyCNN
from sightline.data import Batch
from sightline.errors import SightlineError
from sightline.guides.segment_overlap import SegmentOverlap, pool_views
from sightline.network.views import D4, IDENTITY, NAMED, AffineView, View, check_views, choose_views

SEVERAL = [
    AffineView(scale=0.8),
    AffineView(scale=1.25),
    AffineView(angle=15),
    AffineView(shear=(15, 0)),
    AffineView(shear=(0, -15)),
    AffineView(translate=(0.1, -0.2)),
    AffineView(flip=True, turns=2, angle=-20, translate=(0.05, 0.1), scale=1.2, shear=(10, 5)),
]


def smooth(height: int, width: int) -> torch.Tensor:
    """Two images (2, 1, H, W) in float64 that interpolation hardly changes."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([torch.sin(3 * x + 2 * y), x * y])[:, None].double()


@pytest.mark.parametrize(("flip", "turns"), list(product([False, True], range(4))))
def test_the_dihedral_group_is_a_special_case(flip: bool, turns: int) -> None:
    images = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    exact, affine = View(flip, turns), AffineView(flip=flip, angle=-90 * turns)
    torch.testing.assert_close(affine(images), exact(images), atol=1e-12, rtol=0)
    torch.testing.assert_close(affine.inverse(images), exact.inverse(images), atol=1e-12, rtol=0)
    assert affine.seen((9, 9)).all()
    combined = AffineView(flip=flip, turns=turns)
    torch.testing.assert_close(combined(images), exact(images), atol=1e-12, rtol=0)


@pytest.mark.parametrize("view", [v for v in SEVERAL if not v.flip], ids=str)
@pytest.mark.parametrize("size", [(20, 20), (16, 24)])
def test_torchvisions_affine_agrees_where_it_has_pixels(view: AffineView, size: tuple[int, int]) -> None:
    images = torch.rand(1, 1, *size, dtype=torch.float64)
    offset = [view.translate[0] * size[1], view.translate[1] * size[0]]

    def theirs(pixels: torch.Tensor) -> torch.Tensor:
        return TF.affine(
            pixels, view.angle, offset, view.scale, list(view.shear), interpolation=TF.InterpolationMode.BILINEAR
        )

    inside = theirs(torch.ones_like(images)) > 1 - 1e-9  # elsewhere it mixes with black
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(view(images)[inside], theirs(images)[inside], atol=1e-6, rtol=0)


@pytest.mark.parametrize("view", SEVERAL, ids=str)
@pytest.mark.parametrize("size", [(64, 64), (48, 72)])
def test_the_inverse_undoes_the_view_where_it_shows_the_image(view: AffineView, size: tuple[int, int]) -> None:
    images = smooth(*size)
    back = view.inverse(view(images))
    seen = view.seen(size)
    assert back.shape == images.shape
    assert seen.shape == size
    assert seen.float().mean() > 0.5
    # Of values over [-1, 1]: what twice interpolating loses, and half a pixel's slope at the frame.
    assert (back - images).abs()[:, :, seen].max() < 0.04
    inner = seen & (torch.nn.functional.avg_pool2d(seen[None].double(), 5, 1, 2)[0] == 1)
    assert (back - images).abs()[:, :, inner].max() < 2e-3


def test_seen_marks_the_pixels_that_stay_in_the_frame() -> None:
    # Enlarged twice, the middle half of a 8 x 8 image fills the frame; shrunk, everything is there.
    seen = AffineView(scale=2).seen((8, 8))
    assert seen[2:6, 2:6].all()
    assert seen.sum() == 16
    assert AffineView(scale=0.5).seen((8, 8)).all()
    # A quarter to the right: the last quarter of the columns is gone.
    assert torch.equal(AffineView(translate=(0.25, 0)).seen((4, 8)), torch.arange(8).expand(4, 8) < 6)
    # The flip comes first, so that it is then the first quarter.
    assert torch.equal(AffineView(flip=True, translate=(0.25, 0)).seen((4, 8)), torch.arange(8).expand(4, 8) >= 2)
    assert all(view.seen((3, 5)).all() for view in D4[:4])


def test_a_pixel_goes_where_it_should() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 2, 5] = 1
    moved = AffineView(translate=(0.25, 0.5))(image)
    assert moved[0, 0, 6, 7] == 1
    assert AffineView(translate=(0.25, 0.5)).inverse(moved)[0, 0, 2, 5] == 1
    # Beyond the border stands the mirror image: the first two columns are the columns 1 and 0.
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(AffineView(translate=(0.25, 0))(ramp)[0, 0, 0], torch.tensor([1.0, 0, 0, 1, 2, 3, 4, 5]))


@pytest.mark.parametrize("view", SEVERAL, ids=str)
def test_gradients_flow_through_both_directions(view: AffineView) -> None:
    image = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(view, image)
    assert torch.autograd.gradcheck(view.inverse, image)
    assert torch.autograd.gradgradcheck(view.inverse, image)


def test_half_precision_keeps_its_type_and_the_places() -> None:
    images = smooth(64, 64)
    view = AffineView(angle=15, scale=1.25)
    half = view(images.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half.double() - view(images)).abs().max() < 0.01


def test_choose_views_takes_numbers_names_and_options() -> None:
    assert choose_views(8) == D4
    assert len(choose_views("scaling")) == 4
    assert len(choose_views("affine")) == 8
    assert all(views[0] == IDENTITY and len(set(views)) == len(views) for views in NAMED.values())
    chosen = choose_views([{"scale": 0.5}, {"angle": 30, "translate": [0.1, 0], "flip": True}])
    assert chosen == (IDENTITY, AffineView(scale=0.5), AffineView(flip=True, angle=30, translate=(0.1, 0)))
    assert len({*chosen, AffineView()}) == 4  # hashable, and an affine identity is not the exact one
    check_views(chosen, (4, 6))
    with pytest.raises(SightlineError, match="did you mean 'scaling'"):
        choose_views("scalling")
    with pytest.raises(SightlineError, match="did you mean 'scale'"):
        choose_views([{"scales": 2}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0}, "scale is 0; expected a number > 0"),
        ({"scale": math.nan}, "scale is nan"),
        ({"shear": (90, 0)}, "shear is .* degrees in"),
        ({"shear": 10}, "shear is 10; expected two numbers"),
        ({"translate": (1.5, 0)}, "translate is .* fractions"),
    ],
)
def test_affine_view_invalid_options_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        AffineView(**options)


# ---- in SO-Loss ----


@pytest.mark.parametrize("pooling", ["softmax", "logsumexp", "max", "mean"])
def test_pooling_leaves_a_view_out_where_it_shows_nothing(pooling: str) -> None:
    maps = torch.rand(3, 2, 1, 4, dtype=torch.float64)
    maps[..., 0] = 1  # each view's maximum, which all show
    seen = torch.tensor([[[1, 1, 1, 1]], [[1, 0, 1, 0]], [[1, 1, 0, 0]]], dtype=torch.bool)
    pooled = pool_views(maps, pooling, 0.1, seen)
    for column in range(4):
        shown = maps[seen[:, 0, column]]
        alone = torch.cat([torch.ones_like(shown[..., :1]), shown[..., column : column + 1]], -1)  # keeps the maximum
        expected = pool_views(torch.cat([alone, alone]), pooling, 0.1)  # twice, as one view alone is not pooled
        torch.testing.assert_close(pooled[..., column], expected[..., 1])
    everywhere = torch.ones_like(seen)
    torch.testing.assert_close(pool_views(maps, pooling, 0.1, everywhere), pool_views(maps, pooling, 0.1))


def test_the_loss_with_quarter_turns_as_affine_views_is_that_of_the_group() -> None:
    batch = Batch(torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 0]), masks=torch.zeros(3, 16, 16, dtype=torch.uint8))
    batch.masks[:, 4:9, 3:12] = 1
    model = TinyCNN().eval()
    quarters = [{"flip": v.flip, "angle": -90 * v.turns} for v in D4[1:]]
    losses, gradients = [], []
    for views in (8, quarters):
        output = sl.Objective(model, SegmentOverlap(views=views, blur=0))(batch)
        gradients.append(torch.autograd.grad(output["loss"], list(model.parameters())))
        losses.append(output["segment_overlap"])
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=0)
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("views", ["scaling", "affine", [{"scale": 0.7}]])
def test_descending_the_loss_with_affine_views_raises_the_overlap(views: object) -> None:
    batch = Batch(torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]), masks=torch.zeros(4, 16, 16, dtype=torch.uint8))
    batch.masks[:, 4:9, 3:12] = 1
    model = TinyCNN().eval()
    objective = sl.Objective(model, SegmentOverlap(beta=0, views=views), view_chunk=2)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(6):
        output = objective(batch)
        losses.append(float(output["segment_overlap"]))
        optimiser.zero_grad()
        output["loss"].backward()
        optimiser.step()
    assert losses[-1] < losses[0]
