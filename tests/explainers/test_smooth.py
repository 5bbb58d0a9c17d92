"""Maps averaged over copies, against loops over the copies and against the peers."""

import pickle
from copy import deepcopy

import pytest
import torch
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline._core.seeding import generator
from sightline.errors import SightlineError
from sightline.explainers import normalize_maps, resize_maps


@pytest.fixture
def tiny() -> TinyCNN:
    torch.manual_seed(0)
    return TinyCNN().double().eval()


def literal_smooth(model: TinyCNN, image: Tensor, target: int, noise: float, samples: int, seed: int = 0) -> Tensor:
    """One image, one copy at a time, by the formula; the derivatives by plain autograd on the parts of the network."""

    def after(a: Tensor) -> Tensor:
        return model.classifier(model.head(a))[0, target]

    random = generator(seed, "smoothgradcam++")
    powers = [0, 0, 0]
    for _ in range(samples):
        draw = torch.randn(image.shape, generator=random, dtype=torch.float64)
        a = model.features((image + noise * draw)[None]).detach().requires_grad_()
        (g,) = torch.autograd.grad(after(a), a)
        powers = [p + g[0] ** (k + 1) / samples for k, p in enumerate(powers)]
    a = model.features(image[None])[0].detach()
    total = torch.zeros_like(a[0])
    for k in range(len(a)):
        weight = 0.0
        for i in range(a.shape[1]):
            for j in range(a.shape[2]):
                denominator = 2 * powers[1][k, i, j] + a[k].sum() * powers[2][k, i, j]
                if denominator != 0:
                    weight += powers[1][k, i, j] / denominator * max(powers[0][k, i, j], 0)
        total += weight * a[k]
    return normalize_maps(resize_maps(total.relu()[None], image.shape[-2:]))[0]


@pytest.mark.parametrize("absolute", [False, True])
def test_smoothgradcam_equals_its_formula(tiny: TinyCNN, absolute: bool) -> None:
    images = 3 * torch.randn(3, 3, 7, 7, dtype=torch.float64)
    targets = torch.tensor([2, 0, 1])
    explainer = sl.create_explainer("smoothgradcam++", samples=3, noise=0.2, absolute=absolute)
    maps = explainer(tiny, images, targets, layer="features")
    for image, target, found in zip(images, targets, maps):
        noise = 0.2 if absolute else 0.2 * float(image.max() - image.min())
        torch.testing.assert_close(found, literal_smooth(tiny, image, int(target), noise, 3))


def test_smooth_gradcam_plus_plus_without_noise_is_gradcam_plus_plus(tiny: TinyCNN) -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    smooth = sl.create_explainer("smoothgradcam++", noise=0.0)(tiny, images, layer=["features.0", "features"])
    torch.testing.assert_close(smooth, sl.explain(tiny, images, "gradcam++", layer=["features.0", "features"]))


def test_the_class_is_that_of_the_image_and_not_of_its_noisy_copies(tiny: TinyCNN) -> None:
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    explainer = sl.create_explainer("smoothgradcam++", noise=20.0, absolute=True)  # enough to change what is predicted
    with torch.no_grad():
        tiny.classifier.weight.mul_(10)
        tiny.classifier.bias.sub_(tiny(images).mean(0))  # so that not all are of one class
    predicted = tiny(images).argmax(1)
    assert len(predicted.unique()) > 1
    torch.testing.assert_close(
        explainer(tiny, images, layer="features"), explainer(tiny, images, predicted, "features")
    )


def test_a_batch_is_its_images_one_by_one(tiny: TinyCNN) -> None:
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    for name in ("smoothgradcam++", "augmented"):
        explainer = sl.create_explainer(name)
        singles = torch.cat([explainer(tiny, image[None], layer="features.2") for image in images])
        assert singles.amax() > 0.5
        torch.testing.assert_close(explainer(tiny, images, layer="features.2"), singles)


def test_chunks_change_nothing(tiny: TinyCNN) -> None:
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    layers = ["features.0", "features"]
    for targets in (None, torch.arange(5) % 3, sl.targets.Contrast()):
        whole, parts = (
            sl.create_explainer("smoothgradcam++", internal_batch_size=internal_batch_size)(
                tiny, images, targets, layers
            )
            for internal_batch_size in (None, 2)
        )
        torch.testing.assert_close(parts, whole)


def test_noise_is_repeatable_and_differs_by_seed(tiny: TinyCNN) -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    explainer = sl.create_explainer("smoothgradcam++", seed=1)
    first = explainer(tiny, images, layer="features")
    torch.rand(3)  # whatever else is drawn in between
    assert torch.equal(explainer(tiny, images, layer="features"), first)
    other = sl.create_explainer("smoothgradcam++", seed=2)(tiny, images, layer="features")
    assert not torch.equal(other, first)


def test_smoothgradcam_equals_torch_cam_where_they_agree() -> None:
    # With noise too small to matter, and before a global average pool: there derivatives are the same at every place, so
    # that it is all one whether the third is multiplied by the activations before or after these are summed.
    methods = pytest.importorskip("torchcam.methods")
    model = torchvision.models.resnet18(num_classes=5).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with methods.SmoothGradCAMpp(model, "layer4", num_samples=2, std=1e-9) as cam:
        model(images)
        (theirs,) = cam([1, 3], normalized=False, eps=0.0)
    ours = sl.create_explainer("smoothgradcam++", samples=2, noise=1e-9, absolute=True)(
        model, images, torch.tensor([1, 3]), layer="layer4"
    )
    torch.testing.assert_close(ours, normalize_maps(resize_maps(theirs.detach(), (64, 64))), rtol=0, atol=1e-4)


# ---- augmented ----


class Corner(nn.Module):
    """Its logits are two corners of the image, so that a map of it must turn with the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return torch.stack([x[:, 0, 0, 0], x[:, 0, -1, -1]], 1)


def test_maps_are_turned_back() -> None:
    # hirescam marks the corner that the model reads, of whatever copy: turned back, these are the corners of the D4 orbit.
    image = torch.ones(1, 1, 4, 4)
    explainer = sl.create_explainer("augmented", method="hirescam", views=8, intensities=[1.0])
    map_ = explainer(Corner(), image, targets=0, layer="layer")[0]
    expected = torch.zeros(4, 4)
    expected[0, 0] = expected[0, -1] = expected[-1, 0] = expected[-1, -1] = 1 / 4
    torch.testing.assert_close(map_, expected)


@pytest.mark.parametrize("views", [2, 4, 8])
def test_views_change_nothing_where_the_model_turns_with_the_image(views: int) -> None:
    pointwise = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    plain = sl.explain(pointwise, images, "layercam", layer="0")
    assert not torch.allclose(plain, plain.rot90(2, (1, 2)))
    found = sl.create_explainer("augmented", method="layercam", views=views, intensities=[1.0])
    torch.testing.assert_close(found(pointwise, images, layer="0"), plain)


def test_the_target_is_chosen_on_the_unchanged_image() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0], image[0, 0, -1, -1] = 2.0, 1.0  # class 0 here, class 1 upside down and mirrored
    explainer = sl.create_explainer("augmented", method="hirescam", views=4, intensities=[1.0])
    by_default = explainer(Corner(), image, layer="layer")
    torch.testing.assert_close(by_default, explainer(Corner(), image, targets=0, layer="layer"))
    contrast = explainer(Corner(), image, targets=sl.targets.Contrast(), layer="layer")
    torch.testing.assert_close(contrast, explainer(Corner(), image, sl.targets.Contrast(0, 1), layer="layer"))


def test_augmented_equals_the_peer() -> None:
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with peers.GradCAM(model=model, target_layers=[model.layer3]) as cam:
        theirs = cam(input_tensor=images, targets=[ClassifierOutputTarget(1)] * 2, aug_smooth=True)
    ours = sl.create_explainer("augmented")(model, images, targets=1, layer="layer3")
    torch.testing.assert_close(ours, torch.from_numpy(theirs).double(), rtol=0, atol=1e-4)


def test_intensities_scale_what_the_model_sees(tiny: TinyCNN) -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = sl.create_explainer("augmented", views=1, intensities=[0.5, 2.0])(tiny, images, layer="features.2")
    classes = tiny(images).argmax(1)
    by_hand = [sl.explain(tiny, factor * images, targets=classes, layer="features.2") for factor in (0.5, 2.0)]
    assert not torch.allclose(*by_hand)
    torch.testing.assert_close(found, (by_hand[0] + by_hand[1]) / 2)


def test_augmented_takes_an_explainer_with_its_options(tiny: TinyCNN) -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    inner = sl.create_explainer("layercam", smooth="eigen")
    once = sl.create_explainer("augmented", method=inner, views=1, intensities=[1.0])
    assert inner(tiny, images, layer="features.2").amax() == 1
    torch.testing.assert_close(once(tiny, images, layer="features.2"), inner(tiny, images, layer="features.2"))


def test_images_that_are_not_square_have_four_views(tiny: TinyCNN) -> None:
    images = torch.randn(1, 3, 6, 8, dtype=torch.float64)
    assert sl.create_explainer("augmented", views=4)(tiny, images, layer="features.2").shape == (1, 6, 8)
    with pytest.raises(SightlineError, match="6 x 8; eight views need square"):
        sl.create_explainer("augmented", views=8)(tiny, images, layer="features.2")


@pytest.mark.parametrize("name", ["smoothgradcam++", "augmented"])
def test_copies_of_an_explainer_give_the_same_maps(tiny: TinyCNN, name: str) -> None:
    images, explainer = torch.randn(2, 3, 8, 8, dtype=torch.float64), sl.create_explainer(name)
    maps = explainer(tiny, images, layer="features.2")
    assert maps.amax() > 0.5
    for copy in (pickle.loads(pickle.dumps(explainer)), deepcopy(explainer)):
        assert torch.equal(copy(tiny, images, layer="features.2"), maps)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("smoothgradcam++", {"samples": 0}, "samples is 0"),
        ("smoothgradcam++", {"noise": -1.0}, "noise is -1.0"),
        ("smoothgradcam++", {"internal_batch_size": 0}, "internal_batch_size is 0"),
        ("augmented", {"method": "lots"}, "'lots'"),
        ("augmented", {"method": sl.create_explainer("lots")}, "'LOTS', which changes pixels"),
        ("augmented", {"method": "gradcm"}, "did you mean 'gradcam'"),
        ("augmented", {"intensities": []}, "intensities is empty"),
        ("augmented", {"views": 3}, "views is 3"),
    ],
)
def test_smooth_gradcam_plus_plus_with_invalid_options_raises(name: str, options: dict, said: str) -> None:
    with pytest.raises(SightlineError, match=said):
        sl.create_explainer(name, **options)
