"""The dihedral group D4."""

import pytest
import torch

from sightline.errors import SightlineError
from sightline.network.views import D4, IDENTITY, check_views, dihedral_views


def test_the_eight_views_differ_and_invert() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    seen = [view(image) for view in D4]
    assert len({tuple(v.flatten().tolist()) for v in seen}) == 8
    for view in D4:
        assert torch.equal(view.inverse(view(image)), image)
        assert torch.equal(view(view.inverse(image)), image)


def test_the_group_is_closed() -> None:
    image = torch.arange(9.0).reshape(3, 3)
    elements = {tuple(view(image).flatten().tolist()) for view in D4}
    for first in D4:
        for second in D4:
            assert tuple(second(first(image)).flatten().tolist()) in elements


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_counts_start_with_the_identity(count: int) -> None:
    views = dihedral_views(count)
    assert len(views) == count
    assert views[0] == IDENTITY


def test_other_counts_are_rejected() -> None:
    with pytest.raises(SightlineError, match="views is 3; accepted are 1, 2, 4 and 8"):
        dihedral_views(3)


def test_four_views_keep_the_shape_of_any_image() -> None:
    image = torch.rand(2, 3, 4, 6)
    assert all(view(image).shape == image.shape for view in dihedral_views(4))
    check_views(dihedral_views(4), (4, 6))
    with pytest.raises(SightlineError, match="4 x 6; eight views need square"):
        check_views(dihedral_views(8), (4, 6))
