"""Partition SHAP against the shap package, against its definition written out, and against what must hold of any Owen value."""

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

import sightline as sl
from sightline.attributions.owen import owen_values
from sightline.data import ImageDataset, Sample
from sightline.errors import SightlineError
from sightline.explainers.maps import compute_maps

UNIT = sl.InputSpec((0.0,) * 3, (1.0,) * 3, (32, 32))


def network(channels: int = 3, classes: int = 3) -> nn.Module:
    """A LeNet in small, whose answers differ a lot between images, for images of any size."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, classes),
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.double().eval()


def picture(*shape: int) -> Tensor:
    """Smooth pictures with detail, unlike noise, whose blurs are all alike."""
    waves = torch.rand(*shape).double().cumsum(-1).cumsum(-2)
    return (waves * 0.7).sin() / 2 + 0.5


def probability(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: model(x).softmax(1).detach()


def by_shap(function: Callable[[Tensor], Tensor], image: Tensor, mask: Any, evaluations: int, outputs: Any) -> Tensor:
    """The values (K, C, H, W) that shap gives for one image (C, H, W)."""
    os.environ["NUMBA_DISABLE_JIT"] = "1"  # shap would compile for longer than these pictures take
    shap = pytest.importorskip("shap")
    channels, height, width = image.shape
    explainer = shap.PartitionExplainer(
        lambda x: function(torch.as_tensor(x).movedim(-1, 1)).numpy(),
        shap.maskers.Image(mask, (height, width, channels)),
    )
    options = {"max_evals": evaluations, "batch_size": 10, "fixed_context": None, "silent": True}
    values = explainer(image.movedim(0, -1).contiguous().numpy()[None], outputs=outputs, **options).values[0]
    return torch.from_numpy(values.reshape(height, width, channels, -1)).permute(3, 2, 0, 1)


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    assert ours.dtype == theirs.dtype == torch.float64
    assert theirs.abs().max() > 1e-4
    assert (ours - theirs).abs().max() <= 1e-8 * theirs.abs().max()


@pytest.mark.parametrize(
    ("shape", "evaluations"),
    [
        ((3, 32, 32), 2000),
        ((3, 5, 4), 100_000),
        ((3, 5, 4), 2900),
        ((1, 9, 14), 301),
        ((3, 13, 6), 600),
        ((2, 4, 7), 99),
    ],
    ids=["budgeted", "fully expanded", "nearly so", "grey, odd budget", "upright", "two channels"],
)
@pytest.mark.parametrize("masker", ["constant", "blur"])
def test_values_are_shaps(shape: tuple[int, int, int], evaluations: int, masker: str) -> None:
    model, image = network(shape[0]), picture(*shape)
    ours, theirs = ({"masker": 0.3}, 0.3) if masker == "constant" else ({"masker": "box_blur", "blur": 3}, "blur(3,3)")
    result = owen_values(model, image[None], 1, evaluations=evaluations, **ours)
    assert_equal(result.values[0], by_shap(probability(model), image, theirs, evaluations, [1])[0])


def test_the_gaussian_blur_is_a_background_of_the_image_itself() -> None:
    from torchvision.transforms.v2.functional import gaussian_blur

    model, image = network(), picture(3, 20, 16)
    background = gaussian_blur(image, [9, 9], [0.3 * 3 + 0.8] * 2)
    theirs = by_shap(probability(model), image, background.movedim(0, -1).numpy(), 400, [0])[0]
    assert_equal(owen_values(model, image[None], 0, evaluations=400).values[0], theirs)  # 128 / 224 of 16 px is 9
    assert_equal(owen_values(model, image[None], 0, evaluations=400, masker=background).values[0], theirs)


@pytest.mark.parametrize("method", ["inpaint_telea", "inpaint_ns"])
@pytest.mark.parametrize("channels", [1, 3])
def test_inpainting_is_shaps(method: str, channels: int) -> None:
    pytest.importorskip("cv2")
    model = network(channels)
    pixels = (picture(channels, 12, 15) * 255).round()
    ours = owen_values(model, pixels[None] / 255, 2, evaluations=200, masker=method)
    assert_equal(ours.values[0], by_shap(lambda x: probability(model)(x / 255), pixels, method, 200, [2])[0])


def test_all_classes_at_once_and_logits_are_shaps() -> None:
    model, image = network(), picture(3, 16, 16)
    theirs = by_shap(lambda x: model(x).detach(), image, 0.1, 300, None)
    ours = owen_values(model, image[None], "all", evaluations=300, masker=0.1, output="logits")
    assert ours.values.shape == (1, 3, 3, 16, 16)
    assert ours.base.shape == ours.full.shape == (1, 3)
    assert_equal(ours.values[0], theirs)


def literal(function: Callable[[Tensor], float], channels: int, height: int, width: int) -> Tensor:
    """Owen values (C, H, W) by their recursion, of a function of which values (C, H, W) are shown."""
    values = torch.zeros(channels, height, width).double()

    def descend(box: list[tuple[int, int]], context: Tensor, weight: float) -> None:
        (c0, c1), (h0, h1), (w0, w1) = box
        inside = torch.zeros(channels, height, width, dtype=torch.bool)
        inside[c0:c1, h0:h1, w0:w1] = True
        if inside.sum() == 1:
            values[inside] += weight * (function(context | inside) - function(context))
            return
        axis = 1 if h1 - h0 >= w1 - w0 and h1 - h0 > 1 else 2 if w1 - w0 > 1 else 0
        start, stop = box[axis]
        middle = stop - (stop - start) // 2  # shap halves the other way round, and numbers the values backwards
        halves = [box.copy(), box.copy()]
        halves[0][axis], halves[1][axis] = (start, middle), (middle, stop)
        for one, other in (halves, halves[::-1]):
            shown = context.clone()
            shown[tuple(slice(*ends) for ends in other)] = True
            descend(one, context, weight / 2)
            descend(one, shown, weight / 2)

    descend([(0, channels), (0, height), (0, width)], torch.zeros(channels, height, width, dtype=torch.bool), 1.0)
    return values


@pytest.mark.parametrize("shape", [(3, 3, 2), (1, 3, 5), (2, 4, 1), (1, 1, 1)])
def test_fully_expanded_they_are_the_recursion(shape: tuple[int, int, int]) -> None:
    model, image = network(shape[0]), picture(*shape)

    @functools.cache
    def shown(bits: tuple[bool, ...]) -> float:
        masked = torch.where(torch.tensor(bits).view(shape), image, 0.2)
        return float(probability(model)(masked[None])[0, 1])

    expected = literal(lambda mask: shown(tuple(mask.flatten().tolist())), *shape)
    ours = owen_values(model, image[None], 1, evaluations=10**6, masker=0.2).values[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_of_a_linear_model_each_value_gets_what_it_adds() -> None:
    head = nn.Linear(3 * 6 * 5, 2).double()
    model = nn.Sequential(nn.Flatten(), head)
    images = picture(2, 3, 6, 5)
    added = head.weight[1].detach().view(3, 6, 5) * (images - torch.tensor([0.1, 0.2, 0.3])[:, None, None])
    options = {"masker": [0.1, 0.2, 0.3], "output": "logits"}
    every = owen_values(model, images, 1, evaluations=10**6, **options).values
    torch.testing.assert_close(every, added)
    # Two evaluations leave the whole image together, and two more its upper and lower half.
    whole = owen_values(model, images, 1, evaluations=2, **options).values
    torch.testing.assert_close(whole, added.mean((1, 2, 3), keepdim=True).expand_as(whole))
    halves = owen_values(model, images, 1, evaluations=4, **options).values
    for rows in (slice(0, 3), slice(3, 6)):
        expected = added[:, :, rows].mean((1, 2, 3), keepdim=True)
        torch.testing.assert_close(halves[:, :, rows], expected.expand_as(halves[:, :, rows]))


@pytest.mark.parametrize("masker", ["blur", "box_blur", 0.5, "inpaint_ns"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 17, 10), (3, 7, 33)])
def test_values_sum_to_what_hiding_everything_costs(masker: Any, shape: tuple[int, int, int]) -> None:
    if masker == "inpaint_ns":
        pytest.importorskip("cv2")
    model, images = network(shape[0]), picture(2, *shape)
    full = probability(model)(images)[[0, 1], [2, 0]]
    for evaluations in (2, 3, 4, 57, 120):
        result = owen_values(model, images, torch.tensor([2, 0]), evaluations=evaluations, masker=masker)
        torch.testing.assert_close(result.full, full)
        if masker == 0.5:
            grey = probability(model)(torch.full_like(images, 0.5))[[0, 1], [2, 0]]
            torch.testing.assert_close(result.base, grey)
        assert (result.full - result.base).abs().max() > 1e-3
        torch.testing.assert_close(result.values.sum((1, 2, 3)), result.full - result.base)


def test_neither_the_batch_nor_the_chunk_changes_values() -> None:
    model, images = network(), picture(5, 3, 16, 12)
    alone = torch.cat([owen_values(model, image[None], evaluations=150).values for image in images])
    for internal_batch_size in (None, 1, 7, 10, 29):
        torch.testing.assert_close(
            owen_values(model, images, evaluations=150, internal_batch_size=internal_batch_size).values, alone
        )


def test_images_that_run_out_of_items_at_different_times() -> None:
    # Of 3 values in a row the first half is a leaf: how many items can be split depends on which were.
    model, images = network(1), picture(6, 1, 1, 11)
    for evaluations in (20, 40, 60, 80, 90, 92):
        together = owen_values(model, images, 1, evaluations=evaluations, masker=0.1).values
        for ours, image in zip(together, images):
            assert_equal(ours, by_shap(probability(model), image, 0.1, evaluations, [1])[0])


def test_evaluations_are_as_many_as_asked_for_and_in_full_batches() -> None:
    model, sizes = network(), []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    owen_values(model, picture(16, 3, 16, 16), evaluations=1002, internal_batch_size=80)
    assert sum(sizes) == 16 * 1002
    assert max(sizes) == 80
    assert sum(size == 80 for size in sizes) > 0.95 * len(sizes)
    sizes.clear()
    owen_values(model, picture(1, 3, 16, 16), "all", evaluations=1002)
    assert sum(sizes) == 1002


def test_hidden_pixels_are_in_the_units_of_the_images() -> None:
    model, images = network(), picture(2, 3, 16, 16)
    spec = sl.InputSpec((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), (16, 16))
    inputs = spec.normalize(images)
    ours = owen_values(model, images, 0, input_spec=spec, evaluations=100, masker=[0.4, 0.5, 0.6]).values
    torch.testing.assert_close(ours, owen_values(model, inputs, 0, evaluations=100, masker=0.0).values)
    blurred = owen_values(model, images, 0, input_spec=spec, evaluations=100).values
    torch.testing.assert_close(blurred, owen_values(model, inputs, 0, evaluations=100).values)


def test_a_scalar_of_the_output_is_explained_as_it_is() -> None:
    model, images = network(), picture(2, 3, 16, 16)
    options = {"evaluations": 60, "masker": 0.0}
    logit = owen_values(model, images, 1, output="logits", **options)
    function = owen_values(model, images, lambda logits: logits[:, 1], **options)
    torch.testing.assert_close(function.values, logit.values)
    contrast = owen_values(model, images, sl.targets.Contrast(1, versus=2), **options)
    logits = model(images).detach()
    torch.testing.assert_close(contrast.full, logits[:, 1] - logits[:, 2])


def test_partition_shap_as_an_explainer_gives_maps() -> None:
    model, images = network().train(), picture(2, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values = owen_values(model, images, evaluations=200).values.sum(1)
    raw = sl.create_explainer("partition_shap", evaluations=200, raw=True)(model, images)
    torch.testing.assert_close(raw, values)
    assert (values < 0).any()
    for sign, signed in (("positive", values.relu()), ("absolute", values.abs())):
        maps = sl.create_explainer("partition_shap", evaluations=200, sign=sign)(model, images, input_spec=UNIT)
        torch.testing.assert_close(maps, sl.explainers.normalize_maps(signed))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_partition_shap_finds_the_pixels_that_matter() -> None:
    weights = torch.zeros(2, 3, 24, 24)
    weights[0, :, 3:6, 16:20] = 0.1
    weights[1, :, 18:21, 4:8] = 0.1
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2, bias=False))
    model[1].weight.data = weights.flatten(1)
    explainer = sl.create_explainer("partition_shap", masker=0.0)
    maps = explainer(model, torch.ones(2, 3, 24, 24), torch.tensor([0, 1]))
    for map_, region in zip(maps, weights.any(1)):
        assert map_[region].mean() > 0.5
        assert map_[~region].mean() < 0.02


def test_a_model_that_always_answers_the_same_gives_zeros() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    nn.init.zeros_(model[1].weight)
    assert sl.explain(model, torch.rand(1, 3, 4, 4), "partition_shap").eq(0).all()


def test_half_precision_sums_in_single() -> None:
    model, images = network().bfloat16(), picture(1, 3, 16, 16).bfloat16()
    result = owen_values(model, images, evaluations=50)
    assert result.values.dtype == torch.float32
    torch.testing.assert_close(result.values.sum((1, 2, 3)), result.full - result.base)


class Pictures(ImageDataset):
    def __init__(self) -> None:
        super().__init__(["a", "b", "c"], [0, 1, 2, 1, 0], [False] * 5)

    def load(self, index: int) -> Sample:
        pixels = torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return Sample(tv_tensors.Image(pixels), int(self.labels[index]), None, index, None, f"{index}.png")


def test_maps_of_a_data_set_are_stored_and_resume(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = network().float(), Pictures()
    options = {"evaluations": 30, "raw": True, "masker": [0.5, 0.5, 0.5]}
    arguments = {"options": options, "targets": "label", "input_spec": UNIT, "chunk_size": 2, "dtype": "float16"}
    calls: list[int] = []

    def counting(module: nn.Module, inputs: tuple[Tensor]) -> None:
        calls.append(len(inputs[0]))
        if len(calls) == stop:
            raise KeyboardInterrupt

    handle, stop = model.register_forward_pre_hook(counting), 8
    with pytest.raises(KeyboardInterrupt):
        compute_maps(model, data, tmp_path / "maps", "partition_shap", **arguments)
    first, stop = len(calls), 0
    store = compute_maps(model, data, tmp_path / "maps", "partition_shap", **arguments)
    handle.remove()
    images = torch.stack([data[i].image for i in range(5)]).float() / 255
    labels = torch.as_tensor(data.labels)
    expected = owen_values(model, images, labels, input_spec=UNIT, evaluations=30, masker=0.5).values.sum(1)
    torch.testing.assert_close(torch.as_tensor(store.read(range(5))).float(), expected, rtol=2e-3, atol=1e-6)
    assert (first, len(calls) - first) == (8, 12)  # six calls for two images; the first two were finished


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluations": 1}, "evaluations is 1"),
        ({"masker": "grey"}, "masker is 'grey'"),
        ({"masker": [0.1, 0.2]}, r"masker is \[0.1, 0.2\]; expected .*one per channel \(3\)"),
        ({"masker": torch.zeros(3, 8, 9)}, r"masker is shape \(3, 8, 9\)"),
        ({"masker": float("nan")}, "NaN or infinity in masker"),
        ({"masker": 2.0, "input_spec": UNIT}, r"masker range over \[2, 2\]; expected \[0, 1\]"),
        ({"blur": 0}, "nothing would be hidden"),
        ({"blur": -1}, "blur is -1"),
        ({"output": "odds"}, "output is 'odds'"),
        ({"internal_batch_size": 0}, "internal_batch_size is 0"),
        ({"targets": 7}, "the model has classes 0 .. 2"),
        ({"targets": "every"}, "targets is 'every'"),
    ],
)
def test_owen_values_invalid_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        owen_values(network(), picture(1, 3, 8, 8), **options)


def test_owen_values_invalid_images_raise() -> None:
    model = network()
    with pytest.raises(SightlineError, match="NaN or infinity"):
        owen_values(model, torch.full((1, 3, 8, 8), torch.nan).double())
    with pytest.raises(SightlineError, match=r"images range over .*because hidden pixels are painted"):
        owen_values(model, 2 + picture(1, 3, 8, 8), masker="inpaint_ns")
    with pytest.raises(SightlineError, match="sign is None"):
        sl.create_explainer("partition_shap", sign=None)
    model[-1].weight.data.fill_(torch.inf)
    with pytest.raises(SightlineError, match="NaN or infinity in the model's answer to the images"):
        owen_values(model, picture(1, 3, 8, 8))
