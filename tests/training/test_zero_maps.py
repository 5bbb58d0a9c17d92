import warnings

import pytest
from safetensors.torch import save_file

import sightline as sl
from sightline.errors import RunFailedError
from sightline.training.zero_maps import ZeroMapCheck
from tiny import recipe


@pytest.fixture
def headless(tmp_path):
    """Weights whose head is zero: every Grad-CAM of them is zero."""
    state = sl.load_model("sightline/lenet5", classes=2)[0].state_dict()
    state["head.weight"].zero_()
    state["head.bias"].zero_()
    save_file(state, tmp_path / "zero.safetensors")
    return str(tmp_path / "zero.safetensors")


def test_a_training_whose_maps_are_all_zero_stops_after_an_epoch(headless, tmp_path):
    keys = {"model": {"name": "sightline/lenet5", "weights": headless}, "guide": {"name": "segment_overlap", "beta": 0}}
    with pytest.raises(
        RunFailedError, match=r"segment_overlap: in epoch 1, the saliency maps of 20 of 20 images \(100%\)"
    ):
        sl.train(recipe(**keys), output=tmp_path / "run")


def test_zero_maps_of_a_guide_without_weight_do_not_matter(headless, tmp_path):
    keys = {"model": {"name": "sightline/lenet5", "weights": headless}, "guide": {"name": "segment_overlap", "beta": 1}}
    assert len(sl.train(recipe(**keys), output=tmp_path / "run").rows) == 2


def test_a_share_of_zero_maps_is_told_once_for_each_guide():
    check = ZeroMapCheck()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for epoch, count in enumerate((1, 3, 4), start=1):
            check.check({"n/energy/zero_maps": count, "n/energy/unannotated": 20.0, "energy": 1.0}, 20, epoch)
    assert [str(each.message).partition(". ")[0] for each in told] == [
        "energy: in epoch 2, the saliency maps of 3 of 20 images (15%) are zero"
    ]
