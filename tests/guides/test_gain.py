"""GAIN: the mined and the supervised term written out, and against finite differences."""

import copy

import pytest
import torch
from differences import check_gradients
from torch import Tensor

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.guides import create_guide
from sightline.guides.gain import GAIN, soft_mask


def setting(size: int = 4) -> tuple[TinyCNN, sl.Batch]:
    """A network and images without an all-zero map, where the map has a kink."""
    for seed in range(4, 60):
        torch.manual_seed(seed)
        model, batch = TinyCNN().double(), batch_of(size)
        if bool((sl.Objective(model, GAIN())(batch)["maps"].amax((1, 2)) > 0).all()):
            return model, batch
    raise AssertionError("no seed gives maps everywhere")


def by_hand(model: TinyCNN, batch: sl.Batch, supervision: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i, label in enumerate(batch.labels.tolist()):
        image = batch.images[i : i + 1]
        activations = model.features(image)
        score = model.classifier(model.head(activations))[0, label]
        (gradient,) = torch.autograd.grad(score, activations, create_graph=True)
        attention = (gradient.mean((2, 3))[0, :, None, None] * activations[0]).sum(0).relu()
        attention = attention / attention.max()
        erased = image - image / (1 + torch.exp(-10 * (attention - 0.5)))
        mined = torch.softmax(model(erased), 1)[0, label]
        distance = ((attention - batch.masks[i]) ** 2).mean()
        total = total + (mined + supervision * distance) / len(batch)
    return total


@pytest.mark.parametrize("supervision", [0.0, 3.0])
def test_the_terms_and_their_gradients_equal_the_formula_written_out(supervision: float) -> None:
    model, batch = setting()
    ours = sl.Objective(model, GAIN(supervision=supervision), task_weight=0.0)(batch)
    expected = by_hand(model, batch, supervision)
    torch.testing.assert_close(ours["loss"], expected)
    assert ("gain_mask" in ours) == (supervision > 0)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(ours["loss"], parameters), torch.autograd.grad(expected, parameters)):
        torch.testing.assert_close(a, b)


def test_gradients_of_every_parameter_match_finite_differences() -> None:
    model, batch = setting(size=2)
    seen = check_gradients(sl.Objective(model, GAIN(supervision=1.0), task_weight=0.0), batch, weight=10.0)
    assert {"classifier.weight", "features.0.weight"} <= seen


def test_soft_mask_is_a_sigmoid_of_the_map() -> None:
    maps = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(soft_mask(maps, 10.0, 0.5), torch.tensor([0.0066929, 0.5, 0.9933071]))


def test_mining_needs_no_mask_and_supervision_leaves_out_images_without() -> None:
    model, batch = setting()
    bare = sl.Batch(batch.images, batch.labels)
    assert int(sl.Objective(model, GAIN())(bare)["n/gain/unannotated"]) == 0
    some = sl.Batch(batch.images, batch.labels, masks=batch.masks, has_mask=torch.tensor([True, False, True, False]))
    output = sl.Objective(model, GAIN(supervision=1.0))(some)
    assert int(output["n/gain/unannotated"]) == 0
    assert int(output["n/gain_mask/unannotated"]) == 2
    half = sl.Batch(batch.images[::2], batch.labels[::2], masks=batch.masks[::2])
    torch.testing.assert_close(output["gain_mask"], sl.Objective(model, GAIN(supervision=1.0))(half)["gain_mask"])


def test_batch_norm_counts_each_image_once() -> None:
    model = sl.load_model("sightline/small_cnn", classes=3)[0]
    plain, batch = copy.deepcopy(model), batch_of(side=32, dtype=torch.float32)
    sl.Objective(plain)(batch)
    sl.Objective(model, GAIN())(batch)
    for ours, one in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, one)


def test_erased_pixels_are_black_before_the_normalization() -> None:
    model, batch = setting()
    spec = sl.InputSpec((0.5,) * 3, (0.25,) * 3, (8, 8))
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    objective = sl.Objective(model, GAIN(slope=1000.0), input_spec=spec)
    objective(batch)  # the first step looks for the target layer
    seen.clear()
    maps = objective(batch)["maps"]
    at_maximum = maps == maps.amax((1, 2), keepdim=True)
    assert len(seen) == 2
    torch.testing.assert_close(seen[1].movedim(1, -1)[at_maximum], torch.full((4, 3), -2.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight is -1.0"),
        ({"supervision": -1.0}, "supervision is -1.0"),
        ({"slope": 0.0}, "slope is 0.0"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"explainer": "eigencam"}, "'eigencam' is not differentiable"),
    ],
)
def test_gain_invalid_options_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        create_guide("gain", **options)
