"""Attacked backgrounds: where pixels change, how far, and that the model is misled by it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.guides import create_guide
from sightline.guides.adversarial_background import AdversarialBackground


def setting() -> tuple[TinyCNN, sl.Batch]:
    torch.manual_seed(4)
    model, batch = TinyCNN(width=8).double(), batch_of()
    batch.masks[0, 0, :2] = 255
    return model, batch


def attacked(model: nn.Module, batch: sl.Batch, **options: object) -> sl.Batch:
    guide = AdversarialBackground(**options)  # type: ignore[arg-type]
    return guide.transform(batch, sl.Objective(model, guide))


@pytest.mark.parametrize("steps", [1, 3])
def test_the_object_and_what_the_mask_ignores_are_unchanged(steps: int) -> None:
    model, batch = setting()
    images = attacked(model, batch, steps=steps).images
    background = (batch.masks == 0)[:, None].expand_as(images)
    assert torch.equal(images[~background], batch.images[~background])
    change = (images - batch.images).abs()
    assert 0.149 < change.max() < 0.15 + 1e-6
    assert (change[background] > 0).float().mean() > 0.9
    assert images.min() >= 0
    assert images.max() <= 1


def test_one_step_on_a_linear_classifier_goes_along_the_sign_of_its_gradient() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).double()
    batch = batch_of()
    batch.images = batch.images * 0.5 + 0.25  # nothing to clamp
    errors = model(batch.images).softmax(1) - F.one_hot(batch.labels, 3)
    sign = (errors @ model[1].weight).unflatten(1, (3, 8, 8)).sign()
    expected = batch.images + 0.1 * sign * (batch.masks == 0)[:, None]
    ours = attacked(model, batch, steps=1, eps=0.1).images
    torch.testing.assert_close(ours, expected.detach(), atol=1e-6, rtol=0)


def test_adversarial_background_raises_the_loss_more_than_noise_and_with_every_step() -> None:
    torch.manual_seed(4)
    model, batch = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 3)), batch_of(16)
    batch.images, model = batch.images.float(), model.float()

    def loss(images: torch.Tensor) -> float:
        return F.cross_entropy(model(images), batch.labels).item()

    background = (batch.masks == 0)[:, None]
    noise = batch.images + 0.15 * torch.randn_like(batch.images).sign() * background
    clean, one, three = loss(batch.images), *(loss(attacked(model, batch, steps=s).images) for s in (1, 3))
    assert clean < loss(noise.clamp(0, 1)) + 0.1 < one < three


def test_flags_statistics_and_gradients_are_unchanged() -> None:
    model = sl.load_model("sightline/small_cnn", classes=3)[0].train()
    model.blocks[0].norm1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    attacked(model, batch_of(side=32, dtype=torch.float32))
    assert flags == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_only_training_batches_and_images_with_an_object_change() -> None:
    model, batch = setting()
    batch.masks[3] = 0
    batch.has_mask = torch.tensor([True, False, True, True])
    images = attacked(model, batch).images
    assert [torch.equal(a, b) for a, b in zip(images, batch.images)] == [False, True, False, True]
    guide = AdversarialBackground()
    assert guide.transform(batch, sl.Objective(model, guide).eval()) is batch
    assert attacked(model, sl.Batch(batch.images, batch.labels)).images is batch.images


def test_adversarial_background_with_boxes_changes_pixels_outside_them() -> None:
    model, batch = setting()
    batch.boxes = torch.tensor([[[2.0, 2, 6, 6]]]).expand(4, 1, 4)
    batch.has_box = torch.ones(4, 1, dtype=torch.bool)
    guide = AdversarialBackground(region="boxes")
    images = guide.transform(
        batch, sl.Objective(model, guide, input_spec=sl.InputSpec((0.5,) * 3, (0.2,) * 3, (8, 8)))
    ).images
    assert torch.equal(images[:, :, 2:6, 2:6], batch.images[:, :, 2:6, 2:6])
    assert (images != batch.images)[:, :, :2].float().mean() > 0.9
    batch.images = 2 * batch.images
    with pytest.raises(SightlineError, match=r"expected \[0, 1\]"):
        attacked(model, batch)


def test_adversarial_background_works_with_a_loss_on_maps() -> None:
    model, batch = setting()
    guide = AdversarialBackground()
    objective = sl.Objective(model, sl.SegmentOverlap(weight=0.5) + guide)
    on_attacked = sl.Objective(model, sl.SegmentOverlap(weight=0.5))(guide.transform(batch, objective))
    torch.testing.assert_close(objective(batch)["loss"], on_attacked["loss"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"eps": 2.0}, "eps is 2.0"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"region": "mask"}, "did you mean 'masks'"),
    ],
)
def test_adversarial_background_invalid_options_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        create_guide("adversarial_background", **options)
