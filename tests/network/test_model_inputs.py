"""What a model does not take is rejected with what to do, and what classifiers return in other forms is read."""

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError


class OfOneSize(nn.Module):
    """A network for gray images of 28 x 28 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 5), nn.ReLU())
        self.classifier = nn.Linear(6 * 8 * 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


def vision_transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=3)


@pytest.mark.parametrize("method", ["gradcam", "saliency", "scorecam", "occlusion"])
@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (OfOneSize(), (2, 3, 28, 28), "does not take images with this number of channels .* convert the images"),
        (OfOneSize(), (2, 1, 32, 32), "does not take images of this size .* give images of the size"),
        (OfOneSize(), (2, 1, 8, 8), "does not take images of this size"),
        (vision_transformer(), (2, 3, 64, 64), "does not take images of this size"),
        (vision_transformer(), (2, 1, 32, 32), "does not take images with this number of channels"),
        (TinyCNN(), (2, 1, 16, 16), "does not take images with this number of channels"),
    ],
)
def test_images_that_the_model_does_not_take_are_rejected_with_advice(model, shape, message, method) -> None:
    with pytest.raises(SightlineError, match=message):
        sl.explain(model, torch.rand(shape), method=method)


def test_training_step_on_images_of_another_size_is_rejected_with_advice() -> None:
    objective = sl.Objective(
        vision_transformer(), layer=sl.Layer("encoder.layers.encoder_layer_0.ln_1", "tokens", prefix=1)
    )
    with pytest.raises(SightlineError, match="does not take images of this size"):
        objective(sl.Batch(torch.rand(2, 3, 48, 48), torch.tensor([0, 1])))


def test_error_of_the_model_itself_is_left_alone() -> None:
    class Failing(TinyCNN):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("no licence for this model")

    with pytest.raises(ValueError, match=r"^no licence for this model$"):
        sl.explain(Failing(), torch.rand(1, 3, 16, 16), layer="features.0")


def test_weights_made_in_inference_mode_are_named() -> None:
    with torch.inference_mode():
        model = TinyCNN()
    with pytest.raises(SightlineError, match=r"made in torch\.inference_mode"):
        sl.explain(model, torch.rand(1, 3, 16, 16))


def test_mapping_with_logits_is_explained_as_the_logits() -> None:
    class Answer(TinyCNN):
        def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"loss": torch.zeros(()), "logits": super().forward(images)}

    plain, images = TinyCNN().eval(), torch.rand(2, 3, 16, 16)
    answering = Answer().eval()
    answering.load_state_dict(plain.state_dict())
    for method in ("gradcam", "saliency", "scorecam"):
        assert torch.equal(sl.explain(answering, images, method=method), sl.explain(plain, images, method=method))


def test_tuple_and_squeezed_logit_are_rejected_with_advice() -> None:
    class Returning(TinyCNN):
        def __init__(self, change) -> None:
            super().__init__()
            self.change = change

        def forward(self, images: Tensor) -> Tensor:
            return self.change(super().forward(images))

    for change, came in ((lambda z: (z, z), "tuple"), (lambda z: z[:, 0], r"shape \(2,\)")):
        with pytest.raises(SightlineError, match=rf"returned {came}; expected logits .*\(B, 1\) of a single logit"):
            sl.explain(Returning(change), torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize("given", [[0, 1], (0, 1), np.array([0, 1])])
def test_list_of_classes_is_the_tensor_of_them(given) -> None:
    model, images = TinyCNN(), torch.rand(2, 3, 16, 16)
    expected = sl.explain(model, images, targets=torch.tensor([0, 1]))
    assert torch.equal(sl.explain(model, images, targets=given), expected)


@pytest.mark.parametrize("given", [[0.0, 1.0], [True, False], ["cat", "dog"], [[0], [1, 2]], [0, 1, 0]])
def test_list_that_does_not_name_a_class_an_image_is_rejected(given) -> None:
    with pytest.raises(SightlineError, match="targets"):
        sl.explain(TinyCNN(), torch.rand(2, 3, 16, 16), targets=given)


def test_model_without_places_names_explainers_of_pixels() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(SightlineError, match=r"no layer of Sequential returns feature maps .* 'saliency'"):
        sl.explain(model, torch.rand(1, 3, 16, 16))
    assert sl.explain(model, torch.rand(1, 3, 16, 16), method="saliency").shape == (1, 16, 16)


def test_layers_that_the_error_of_a_channels_last_model_names_work() -> None:
    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mix, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 64), nn.Linear(64, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.mix(self.stem(images).relu().permute(0, 2, 3, 1)).relu().mean((1, 2)))

    model, images = ChannelsLast(), torch.rand(1, 3, 16, 24)
    with pytest.raises(SightlineError, match=r"such as 'stem' or sightline.Layer\('mix', 'channels_last'\) \("):
        sl.explain(model, images)
    for layer in ("stem", sl.Layer("mix", "channels_last")):
        assert sl.explain(model, images, layer=layer).shape == (1, 16, 24)
