"""LOTS against Algorithms 1 and 2 of the thesis written out for one image at a time, with another library's Gaussian blur."""

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from sightline.attacks import LOTSResult, lots
from sightline.attributions.lots import LOTS, grey
from sightline.errors import SightlineError
from sightline.network.features import ClassFeatures, class_features

SIDES = (9, 11)
SPEC = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), SIDES)


class Net(nn.Module):
    """A small network whose features move far when pixels change a little."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh())
        self.deep = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 8), nn.Softplus())
        self.classifier = nn.Linear(8, 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.deep(self.features(x)))


def net() -> Net:
    return Net().double().eval()


def photographs(count: int = 5) -> Tensor:
    return torch.rand(count, 3, *SIDES, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


REFERENCE = torch.rand(3, *SIDES, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


# ---- the algorithms, as they are printed ----


def literal_features(model: Net, pixels: Tensor, place: str | None, spec: sl.InputSpec | None) -> Tensor:
    """F of one image (C, H, W): a plain forward pass, cut by hand."""
    channels = list(pixels)
    if spec is not None:
        channels = [(c - mean) / std for c, mean, std in zip(channels, spec.mean, spec.std)]
    early = model.features(torch.stack(channels)[None])
    if place == "features":
        return early.flatten()
    deep = model.deep(early)
    return (model.classifier(deep) if place == "logits" else deep)[0]


def literal_lots(
    features: Callable[[Tensor], Tensor], initial: Tensor, wanted: Tensor, iterations: int, tau: float, alpha: float, kind: str
) -> tuple[Tensor, int]:  # fmt: skip
    """Algorithm 1, and how many times it stepped."""
    adversarial = initial.clone()
    for step in range(iterations):
        leaf = adversarial.clone().requires_grad_()
        found = features(leaf)
        at = found.detach()
        if kind == "euclidean":
            distance = float(((at - wanted) ** 2).sum()) ** 0.5
        else:
            distance = 1 - float(at @ wanted) / (float(at @ at) * float(wanted @ wanted)) ** 0.5
        if distance > tau:
            (0.5 * ((wanted - found) ** 2).sum()).backward()
            gradient = leaf.grad
            assert gradient is not None
            adversarial = torch.clamp(adversarial - gradient * (alpha / float(gradient.abs().max())), 0, 1)
        else:
            return adversarial, step
    return adversarial, iterations


def literal_map(initial: Tensor, adversarial: Tensor, size: int) -> np.ndarray:
    """Algorithm 2 with OpenCV's Gaussian blur and its rule for sigma."""
    cv2 = pytest.importorskip("cv2")

    def to_grey(image: Tensor) -> np.ndarray:
        red, green, blue = image.numpy()
        return 0.299 * red + 0.587 * green + 0.114 * blue

    def normalise(values: np.ndarray) -> np.ndarray:
        return (values - values.min()) / (values.max() - values.min())

    perturbations = normalise(np.abs(to_grey(adversarial) - to_grey(initial)))
    if size:
        sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
        perturbations = cv2.GaussianBlur(perturbations, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
    return normalise(perturbations)


def table(model: Net, spec: sl.InputSpec | None, layer: str | None) -> ClassFeatures:
    images = torch.rand(8, 3, *SIDES, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    batches = [sl.Batch(images[i : i + 3], torch.arange(8)[i : i + 3] % 4) for i in (0, 3, 6)]
    return class_features(model, batches, layer=layer, input_spec=spec)


OPTIONS: dict[str, Any] = {"iterations": 12, "alpha": 0.05, "blur": 5}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # name: (options of the explainer, arguments of its call)
    "zero": ({"tau": 4.0}, {}),
    "zero, normalised inside": ({"tau": 0.5}, {"input_spec": SPEC}),
    "zero, logits": ({"tau": 2.6}, {"layer": "logits"}),
    "zero, early layer": ({"tau": 11.5}, {"layer": "features"}),
    "reference": ({"target": REFERENCE, "tau": 0.4}, {}),
    "reference, cosine": ({"target": REFERENCE, "tau": 0.005, "distance": "cosine"}, {"input_spec": SPEC}),
    "class": ({"target": "class", "tau": 0.6}, {"input_spec": SPEC}),
    "class, cosine": ({"target": "class", "tau": 0.0003, "distance": "cosine"}, {"targets": 2}),
    "mean": ({"target": "mean", "tau": 0.4}, {"targets": torch.tensor([0, 1, 2, 3, 0])}),
    "mean, logits": ({"target": "mean", "tau": 0.7}, {"layer": "logits", "input_spec": SPEC}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_algorithms_as_printed(case: str) -> None:
    model, images = net(), photographs()
    options, call = CASES[case]
    spec, layer = call.get("input_spec"), call.get("layer")

    def features(pixels: Tensor) -> Tensor:
        return literal_features(model, pixels, layer, spec)

    target = options.get("target", "zero")
    with torch.no_grad():
        if isinstance(target, Tensor):
            wanted = [features(target)] * len(images)
        elif target == "zero":
            wanted = [torch.zeros_like(features(images[0]))] * len(images)
        else:
            options = {**options, "class_features": table(model, spec, layer)}
            known = options["class_features"].means if target == "mean" else options["class_features"].examples
            normalised = images if spec is None else spec.normalize(images)
            classes = torch.as_tensor(call.get("targets", model(normalised).argmax(1))).expand(len(images))
            wanted = [known[int(c)] for c in classes]

    explainer = sl.create_explainer("lots", **OPTIONS, **options)
    assert isinstance(explainer, LOTS)
    result = explainer.synthesize(model, images, **call)
    maps = explainer(model, images, **call)
    counts = []
    for i, image in enumerate(images):
        adversarial, count = literal_lots(
            features, image, wanted[i], OPTIONS["iterations"], options["tau"], OPTIONS["alpha"],
            options.get("distance", "euclidean"),
        )  # fmt: skip
        counts.append(count)
        torch.testing.assert_close(result.images[i], adversarial, atol=1e-9, rtol=0)
        if count:
            expected = literal_map(image, adversarial, OPTIONS["blur"])
            np.testing.assert_allclose(maps[i].numpy(), expected, atol=1e-6)
    assert result.iterations.tolist() == counts
    assert len(set(counts)) > 1  # else the case could not tell per-image stopping from stopping together
    assert any(0 < c < OPTIONS["iterations"] for c in counts)


# ---- the record ----


def test_the_record_tells_steps_distance_and_reason() -> None:
    model, images = net(), photographs()
    result = lots(model, images, iterations=12, alpha=0.05, tau=4.0)
    with torch.no_grad():
        distances = torch.stack([literal_features(model, image, None, None).norm() for image in result.images])
    torch.testing.assert_close(result.distances, distances)  # of the images that are returned, not of those before
    for stopped, steps, distance in zip(result.stopped, result.iterations.tolist(), distances.tolist()):
        assert (stopped == "converged") == (distance <= 4)
        assert steps == 12 or stopped == "converged"
    assert set(result.stopped) == {"converged", "iterations"}


def test_converged_images_leave_the_batch() -> None:
    model, images = net(), photographs()
    sizes: list[int] = []
    handle = model.features.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    result = lots(model, images, iterations=12, alpha=0.05, tau=4.0)
    handle.remove()
    assert sizes.pop(0) == 1  # a black image, which tells the layer that classifies
    assert sizes == sorted(sizes, reverse=True)
    # Each image passes once for every step, and once more to see that it is done.
    assert sum(sizes) == int((result.iterations + 1).sum()) < 13 * len(images)


def test_an_image_at_its_target_stays_as_it_is() -> None:
    model, images = net(), photographs(2)
    explainer = LOTS(target=images[0], **OPTIONS)
    result = explainer.synthesize(model, images)
    assert result.iterations[0] == 0
    assert result.stopped[0] == "converged"
    assert torch.equal(result.images[0], images[0])
    assert torch.equal(explainer(model, images)[0], torch.zeros(SIDES, dtype=torch.float64))
    assert explainer(model, images)[1].max() == 1


class Threshold(nn.Module):
    """Features relu(sum x - 1): dark images have no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x.flatten(1).sum(1, keepdim=True) - 1).relu())


def test_a_zero_gradient_stops_the_image_and_is_flagged(caplog: pytest.LogCaptureFixture) -> None:
    images = torch.tensor([0.01, 0.4])[:, None, None, None].expand(2, 3, 3, 3)
    result = lots(Threshold(), images, torch.tensor([5.0]), iterations=7, alpha=1 / 256)
    assert result.stopped == ["zero gradient", "iterations"]
    assert result.iterations.tolist() == [0, 7]
    assert result.distances[0] == 5
    assert torch.equal(result.images[0], images[0])
    torch.testing.assert_close(result.images[1], images[1] - 7 / 256)
    with caplog.at_level(logging.WARNING):
        maps = LOTS(target=torch.ones(3, 3, 3), iterations=7)(Threshold(), images)
    assert "the gradient of images [0]" in caplog.text
    assert torch.equal(maps[0], torch.zeros(3, 3))


def test_features_that_are_not_finite_are_an_error() -> None:
    model = net()
    with torch.no_grad():
        model.deep[2].weight[0] = torch.nan
    with pytest.raises(SightlineError, match=r"NaN or infinity in the features or gradients \(images \[0, 1\]"):
        lots(model, photographs(2), iterations=3)


# ---- targets ----


def test_features_without_classes_are_explained_against_one_image() -> None:
    class Embedding(nn.Module):
        """No logits at all: only a layer of features."""

        def __init__(self) -> None:
            super().__init__()
            self.body = net()
            self.body.classifier = nn.Identity()  # type: ignore[assignment]

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"embedding": self.body(x)}

    images = photographs(2)
    options = {**OPTIONS, "target": REFERENCE, "tau": 0.4}
    known = LOTS(**options).synthesize(net(), images)
    unknown = LOTS(**options).synthesize(Embedding(), images, layer="body.deep")
    torch.testing.assert_close(unknown.images, known.images)
    assert sl.explain(Embedding(), images, LOTS(**options), layer="body.deep").max() == 1


def test_each_image_may_have_its_own_reference() -> None:
    model, images = net(), photographs(2)
    references = torch.stack([REFERENCE, 1 - REFERENCE])
    both = LOTS(target=references, **OPTIONS)(model, images)
    for i in range(2):
        torch.testing.assert_close(both[i], LOTS(target=references[i], **OPTIONS)(model, images[i : i + 1])[0])
    with pytest.raises(SightlineError, match="target has 2 rows; expected 1, or one for each of the 3 images"):
        LOTS(target=references)(model, photographs(3))


def test_the_target_may_be_that_of_the_likeliest_other_class() -> None:
    model, images = net(), photographs()
    known = table(model, None, None)
    runner_up = model(images).argsort(1, descending=True)[:, 1]
    other = LOTS(target="mean", class_features=known, other_class=True, **OPTIONS)(model, images)
    torch.testing.assert_close(
        other, LOTS(target="mean", class_features=known, **OPTIONS)(model, images, targets=runner_up)
    )
    assert not torch.equal(other, LOTS(target="mean", class_features=known, **OPTIONS)(model, images))


def test_other_classes_are_those_that_the_class_features_know() -> None:
    model, images = net(), photographs(1)
    order = model(images).argsort(1, descending=True)[0]
    batches = [sl.Batch(photographs(2), order[[0, 3]])]
    known = class_features(model, batches)
    other = LOTS(target="class", class_features=known, other_class=True, **OPTIONS).synthesize(model, images)
    torch.testing.assert_close(other.images, lots(model, images, known.examples[order[3]], **_core(OPTIONS)).images)
    alone = class_features(model, [sl.Batch(photographs(1), order[:1])])
    with pytest.raises(SightlineError, match="know no image of any other class"):
        LOTS(target="class", class_features=alone, other_class=True)(model, images)
    with pytest.raises(SightlineError, match=rf"know no image of the classes \[{int(order[1])}\]"):
        LOTS(target="class", class_features=known)(model, images, targets=order[1:2])


def _core(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "blur"}


def test_class_features_of_another_model_layer_or_normalisation_are_rejected(tmp_path: Any) -> None:
    model, images = net(), photographs(1)
    table(model, None, None).save(tmp_path / "features.safetensors")
    explainer = sl.create_explainer(
        "lots", target="mean", class_features=str(tmp_path / "features.safetensors"), **OPTIONS
    )
    in_memory = LOTS(target="mean", class_features=table(model, None, None), **OPTIONS)
    torch.testing.assert_close(explainer(model, images), in_memory(model, images))
    with pytest.raises(SightlineError, match="made with layer 'input of classifier', and here it is 'logits'"):
        explainer(model, images, layer="logits")
    with pytest.raises(SightlineError, match="made with input 'None'"):
        explainer(model, images, input_spec=SPEC)
    with torch.no_grad():
        model.classifier.bias += 1
    with pytest.raises(SightlineError, match="made with model"):
        explainer(model, images)


# ---- the map ----


def test_blur_is_cut_to_the_largest_odd_number_below_the_side() -> None:
    model, images = net(), photographs(1)
    changed = LOTS(**OPTIONS).synthesize(model, images).images
    for blur, size in [(0, 0), (3, 3), (7, 7), (49, 7), (1.0, 7), (None, 1)]:  # 49 of 224 is 1.97 of 9 pixels
        maps = LOTS(blur=blur).maps(images, changed)
        np.testing.assert_allclose(maps[0].numpy(), literal_map(images[0], changed[0], size), atol=1e-9)


def test_the_default_blur_is_49_of_224_pixels() -> None:
    images = torch.zeros(1, 3, 224, 224)
    changed = images.clone()
    changed[0, :, 110, 90] = 1
    maps = LOTS().maps(images, changed)[0]
    rows, columns = maps.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (110 - 24, 110 + 24, 90 - 24, 90 + 24)
    torch.testing.assert_close(maps, torch.from_numpy(literal_map(images[0], changed[0], 49)).float())


def test_below_the_threshold_the_map_is_zero() -> None:
    model, images = net(), photographs(2)
    plain = LOTS(**OPTIONS)(model, images)
    cut = LOTS(threshold=0.3, **OPTIONS)(model, images)
    assert torch.equal(cut, torch.tensor([[v if v >= 0.3 else 0 for v in m.flatten()] for m in plain]).view_as(plain))
    assert (cut == 0).sum() > (plain == 0).sum()


def test_grey_is_the_luma_of_colours_and_the_mean_of_other_channels() -> None:
    colours = torch.eye(3).view(3, 3, 1, 1)
    torch.testing.assert_close(grey(colours).flatten(), torch.tensor([0.299, 0.587, 0.114]))
    torch.testing.assert_close(grey(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).flatten(), torch.tensor([2.0]))
    torch.testing.assert_close(grey(torch.full((1, 1, 1, 1), 0.5)).flatten(), torch.tensor([0.5]))


# ---- as every explainer ----


def test_a_batch_equals_its_images_one_by_one_and_in_chunks() -> None:
    model, images = net(), photographs()
    options = {**OPTIONS, "tau": 4.0}
    maps = LOTS(**options)(model, images)
    torch.testing.assert_close(maps, torch.cat([LOTS(**options)(model, image[None]) for image in images]))
    sizes: list[int] = []
    model.features.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    torch.testing.assert_close(maps, LOTS(internal_batch_size=2, **options)(model, images))
    assert max(sizes) == 2


def test_normalisation_is_inside_the_loop_and_pixels_stay_pixels() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = net()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(SPEC.normalize(x))

    images = photographs()
    inside: LOTSResult = lots(net(), images, input_spec=SPEC, iterations=9, alpha=0.05)
    outside = lots(Normalised(), images, iterations=9, alpha=0.05)
    torch.testing.assert_close(inside.images, outside.images)
    assert 0 == inside.images.min() < inside.images.max() == 1
    assert (inside.images - images).abs().max() <= 9 * 0.05 + 1e-12


@pytest.mark.parametrize("call", [{}, {"input_spec": SPEC}])
def test_images_outside_0_1_are_an_error(call: dict[str, Any]) -> None:
    for images in (photographs(1) * 255, photographs(1) - 0.5):
        with pytest.raises(SightlineError, match=r"images range over .*; expected \[0, 1\] because pixels are changed"):
            sl.explain(net(), images, "lots", **call)
    with pytest.raises(SightlineError, match="target range over"):
        LOTS(target=2 * REFERENCE)(net(), photographs(1), **call)


def test_the_model_is_unchanged() -> None:
    model = net().train()
    model.deep.eval()
    before = copy.deepcopy(model.state_dict())
    flags = [m.training for m in model.modules()]
    with torch.inference_mode():
        maps = sl.explain(model, photographs(2), LOTS(**OPTIONS))
    assert maps.max() == 1
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_half_precision_keeps_its_pixels_in_float32() -> None:
    result = lots(net().to(torch.bfloat16), photographs(2).to(torch.bfloat16), iterations=3)
    assert result.images.dtype == torch.float32
    step = (result.images - photographs(2).to(torch.bfloat16)).abs().amax((1, 2, 3))
    assert (step > 2 / 255).all()  # bfloat16 could not hold it near 1


def test_lots_copies_and_pickles_give_equal_maps() -> None:
    model, images = net(), photographs(2)
    explainer = LOTS(target="mean", class_features=table(model, None, None), **OPTIONS)
    maps = explainer(model, images)
    torch.testing.assert_close(copy.deepcopy(explainer)(model, images), maps)
    torch.testing.assert_close(pickle.loads(pickle.dumps(explainer))(model, images), maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "nil"}, "target is 'nil'; expected 'zero', 'class', 'mean' or a reference image"),
        ({"target": torch.zeros(8)}, r"target has shape \(8,\); expected a reference image"),
        ({"target": "mean"}, "needs class_features"),
        ({"class_features": "x.safetensors"}, "are for target 'class' or 'mean'"),
        ({"other_class": True}, "are for target 'class' or 'mean'"),
        ({"target": "mean", "class_features": "nowhere.safetensors"}, "cannot read nowhere.safetensors"),
        ({"iterations": 0}, "iterations is 0; expected a whole number"),
        ({"tau": -1.0}, "tau is -1.0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"distance": "euclid"}, "unknown distance 'euclid'; did you mean 'euclidean'"),
        ({"distance": "cosine"}, "nothing has an angle to zero"),
        ({"blur": -3}, "blur is -3"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"internal_batch_size": 0}, "internal_batch_size is 0"),
    ],
)
def test_lots_invalid_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        sl.create_explainer("lots", **options)


def test_lots_invalid_layer_or_target_raises() -> None:
    model, images = net(), photographs(2)
    for layer, message in [
        (["features", "deep"], "layer is a list of 2"),
        ("nowhere", "unknown layer 'nowhere'"),
    ]:
        with pytest.raises(SightlineError, match=message):
            sl.explain(model, images, "lots", layer=layer)
    with pytest.raises(SightlineError, match=r"target has 5 features; the model has 8 \(input of classifier\)"):
        lots(model, images, torch.zeros(5))
    with pytest.raises(SightlineError, match="expected 'zero', features"):
        lots(model, images, "mean")  # type: ignore[arg-type]
    with pytest.raises(SightlineError, match="class indices are needed"):
        LOTS(target="mean", class_features=table(model, None, None))(model, images, targets=lambda output: output[:, 0])
