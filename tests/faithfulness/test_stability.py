import numpy as np
import pytest
import torch
from torch import Tensor

import sightline as sl
from region_classifier import RegionClassifier
from sightline.metrics import ViewStability, pearson, view_stability

ZERO = torch.zeros(3, dtype=torch.int64)


def test_a_map_that_turns_with_the_image_is_stable() -> None:
    images = torch.rand(3, 3, 8, 8, dtype=torch.float64)

    def local(images: Tensor, targets: Tensor) -> Tensor:
        return images.square().mean(1)

    for views in (None, 2, 4, 8):
        stability = view_stability(local, images, local(images, ZERO), ZERO, views)
        torch.testing.assert_close(stability, torch.ones(3, dtype=torch.float64))


def test_constant_map_scores_its_own_symmetry() -> None:
    fixed = torch.rand(8, 8)

    def blind(images: Tensor, targets: Tensor) -> Tensor:
        return fixed.expand(len(images), 8, 8)

    # Written out: the map of every view is the same, so that turning it back is a turn of the map itself.
    turns = [np.rot90(f, k) for f in (fixed.numpy(), fixed.numpy()[:, ::-1]) for k in range(4)][1:]
    expected = np.mean([np.corrcoef(fixed.flatten(), turn.flatten())[0, 1] for turn in turns])
    images = torch.rand(3, 3, 8, 8)
    stability = view_stability(blind, images, blind(images, ZERO), ZERO)
    torch.testing.assert_close(stability, torch.full((3,), float(expected)), atol=1e-5, rtol=0)
    two = view_stability(blind, images, blind(images, ZERO), ZERO, views=2)
    torch.testing.assert_close(two, pearson(fixed[None], fixed.flip(1)[None]).float().expand(3))


def test_the_opposite_map_is_the_worst() -> None:
    images = torch.rand(3, 3, 8, 8)
    original = images.clone()

    def spiteful(images: Tensor, targets: Tensor) -> Tensor:
        return images[:, 0] if torch.equal(images, original) else 1 - images[:, 0]

    stability = view_stability(spiteful, images, spiteful(images, ZERO), ZERO)
    torch.testing.assert_close(stability, -torch.ones(3))


def test_constant_maps_count_as_zero_and_targets_stay() -> None:
    asked = []

    def nothing(images: Tensor, targets: Tensor) -> Tensor:
        asked.append(targets.tolist())
        return torch.zeros(len(images), 8, 8)

    targets = torch.tensor([2, 0, 1])
    assert view_stability(nothing, torch.rand(3, 3, 8, 8), torch.zeros(3, 8, 8), targets).tolist() == [0, 0, 0]
    assert asked == [[2, 0, 1]] * 7


def test_oblong_images_have_four_views(region: Tensor) -> None:
    sizes = []

    def watched(images: Tensor, targets: Tensor) -> Tensor:
        sizes.append(tuple(images.shape[-2:]))
        return images[:, 0]

    images = torch.rand(3, 3, 6, 8)
    torch.testing.assert_close(view_stability(watched, images, images[:, 0], ZERO), torch.ones(3))
    assert sizes == [(6, 8)] * 3
    with pytest.raises(sl.SightlineError, match="eight views need square"):
        view_stability(watched, images, images[:, 0], ZERO, views=8)
    with pytest.raises(sl.SightlineError, match="views is 1"):
        view_stability(watched, images, images[:, 0], ZERO, views=1)


def test_the_metric_averages_the_function(region: Tensor) -> None:
    model, images = RegionClassifier(region), torch.rand(4, 3, 8, 8)
    maps = sl.explain(model, images, "gaussian")
    metric = ViewStability(model, "gaussian")
    metric.update(images, maps)
    torch.testing.assert_close(metric.compute(), torch.tensor(1.0))  # a centred Gaussian is its own turn
