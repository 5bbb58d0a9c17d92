"""Finer-CAM and RefineCAM against their formulas, and against the peers."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.explainers import normalize_maps, resize_maps

CLASSES = [4, 0, 2]


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=6).double().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def literal_finer(model: TinyCNN, image: Tensor, target: int, count: int, weight: float) -> Tensor:
    """One image: Grad-CAM of each difference of two logits, written out, then averaged before the positive part."""
    a = model.features(image[None]).detach().requires_grad_()
    logits = model.classifier(model.head(a))[0]
    others = sorted(
        (k for k in range(len(logits)) if k != target), key=lambda k: abs((logits[k] - logits[target]).item())
    )
    total = torch.zeros(a.shape[2:], dtype=a.dtype)
    for other in others[:count]:
        (g,) = torch.autograd.grad(logits[target] - weight * logits[other], a, retain_graph=True)
        total += (g[0].mean((1, 2))[:, None, None] * a[0].detach()).sum(0) / len(others[:count])
    return normalize_maps(resize_maps(total.relu()[None], image.shape[-2:]))[0]


@pytest.mark.parametrize(("count", "weight"), [(3, 0.6), (1, 1.0), (10, 0.0)])
def test_finercam_equals_its_formula(count: int, weight: float) -> None:
    model, images = TinyCNN(classes=6).double().eval(), torch.rand(4, 3, 7, 9).double()
    targets = torch.tensor([5, 0, 3, 1])
    found = sl.create_explainer("finercam", count=count, weight=weight)(model, images, targets, "features")
    for image, target, map_ in zip(images, targets, found):
        torch.testing.assert_close(map_, literal_finer(model, image, int(target), count, weight))


@pytest.mark.parametrize(("name", "theirs"), [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
def test_finercam_equals_that_of_torch_cam(name: str, theirs: str, resnet: nn.Module, images: Tensor) -> None:
    methods = pytest.importorskip("torchcam.methods")
    with methods.FinerCAM(resnet, "layer3", base_method=getattr(methods, theirs)) as cam:
        (expected,) = cam(CLASSES, resnet(images), normalized=False)
    finer = sl.create_explainer("finercam", method=name)
    found = finer(resnet, images, torch.tensor(CLASSES), "layer3")
    torch.testing.assert_close(found, normalize_maps(resize_maps(expected.detach(), (64, 64))), atol=1e-4, rtol=0)


def test_the_target_gives_every_explainer_the_finer_score() -> None:
    model, images = TinyCNN().double().eval(), torch.rand(2, 3, 8, 8).double()
    finer = sl.explain(model, images, "finercam")
    torch.testing.assert_close(sl.explain(model, images, "gradcam", sl.targets.AgainstSimilar()), finer)
    smooth = sl.create_explainer("augmented", method="finercam", views=1, intensities=(1.0,))
    torch.testing.assert_close(smooth(model, images), finer)
    with pytest.raises(SightlineError, match="finercam sets a class against similar ones"):
        sl.explain(model, images, "finercam", targets=lambda logits: logits.sum(1))
    with pytest.raises(
        SightlineError, match="method is 'eigencam'; expected a class activation map that uses gradients"
    ):
        sl.create_explainer("finercam", method="eigencam")


def test_finercam_can_be_trained_on() -> None:
    model = TinyCNN()
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[:, 4:12, 4:12] = 1
    batch = sl.Batch(torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), masks=masks, indices=torch.arange(2))
    guide = sl.SegmentOverlap(explainer="finercam")
    sl.Objective(model, guide, layer="features.2")(batch)["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("layers", [["layer2", "layer4"], ["layer1", "layer2", "layer3"]])
def test_refinecam_equals_that_of_pytorch_grad_cam(layers: list[str], resnet: nn.Module, images: Tensor) -> None:
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.refine_cam import RefineCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    theirs = RefineCAM(resnet, [resnet.get_submodule(name) for name in layers], base_method=peers.LayerCAM)
    expected = torch.as_tensor(theirs(images, [ClassifierOutputTarget(c) for c in CLASSES])).double()
    for base in theirs.base_cam_per_layer:
        base.activations_and_grads.release()
    refine = sl.create_explainer("refinecam", method="layercam")
    found = refine(resnet, images, torch.tensor(CLASSES), layers)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", ["gradcam++", "scorecam"])
def test_refinecam_is_a_product(method: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).double().eval()  # fmt: skip
    images = torch.rand(2, 3, 12, 12).double()
    fine, coarse = (sl.explain(model, images, method, layer=layer) for layer in ("1", "4"))
    refine = sl.create_explainer("refinecam", method=method)
    torch.testing.assert_close(refine(model, images, layer=["1", "4"]), normalize_maps(fine * coarse))
    torch.testing.assert_close(refine(model, images, layer="4"), normalize_maps(fine * coarse))  # "1" is found
    alone = sl.create_explainer("refinecam", method=method, layers=1)
    torch.testing.assert_close(alone(model, images, layer="4"), coarse)


def test_refinecam_finds_the_stages_of_a_known_family(resnet: nn.Module, images: Tensor) -> None:
    refine = sl.create_explainer("refinecam")
    torch.testing.assert_close(refine(resnet, images), refine(resnet, images, layer=["layer2", "layer3", "layer4"]))


def test_refinecam_says_where_nothing_is_refined() -> None:
    model, images = TinyCNN().double().eval(), torch.rand(2, 3, 8, 8).double()
    with pytest.warns(UserWarning, match="no layer before 'features.3' has a finer grid"):
        found = sl.explain(model, images, "refinecam", layer="features.3")
    torch.testing.assert_close(found, sl.explain(model, images, "gradcam++", layer="features.3"))
    with pytest.raises(SightlineError, match="method is 'saliency'; expected an explainer with a target layer"):
        sl.create_explainer("refinecam", method="saliency")
