"""SO-Loss: its parts in closed form, its gradients against finite differences."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline._core.kernels import odd_kernel
from sightline.errors import SightlineError
from sightline.explainers.forward_cam import ScoreCAM
from sightline.guides.segment_overlap import blur_masks, pool_views, segment_overlap_loss
from sightline.network.views import D4, View, dihedral_views

# ---- the loss ----


def test_segment_overlap_loss_has_the_expected_values() -> None:
    maps = torch.tensor([[[3.0, 4.0]], [[1.0, 1.0]], [[0.0, 2.0]]])
    masks = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0]]])
    expected = torch.tensor([1 - 3 / 5, 0.0, 1.0])
    torch.testing.assert_close(segment_overlap_loss(maps, masks), expected)


@given(scale=st.floats(1e-20, 1e20))
def test_the_maps_scale_does_not_matter(scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    maps, masks = (torch.rand(2, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(segment_overlap_loss(scale * maps, masks), segment_overlap_loss(maps, masks))


def test_an_all_zero_map_or_mask_costs_one_and_has_no_gradient() -> None:
    maps = torch.zeros(2, 3, 3, requires_grad=True)
    losses = segment_overlap_loss(
        maps + torch.tensor([0.0, 1.0])[:, None, None], torch.tensor([1.0, 0.0])[:, None, None].expand(2, 3, 3)
    )
    torch.testing.assert_close(losses, torch.ones(2))
    (gradient,) = torch.autograd.grad(losses.sum(), maps)
    assert torch.equal(gradient, torch.zeros_like(maps))


# ---- pooling ----


def test_a_lone_view_of_eight_pools_to_nearly_one() -> None:
    maps = torch.zeros(8, 1, 2, 2)
    maps[3, 0, 0, 0] = 1
    assert pool_views(maps)[0, 0, 0] > 0.99
    # By hand: e^10 / (e^10 + 7) with T = 0.1, e / (e + 7) = 0.28 with T = 1.
    torch.testing.assert_close(pool_views(maps)[0, 0, 0], torch.tensor(math.exp(10) / (math.exp(10) + 7)))
    torch.testing.assert_close(pool_views(maps, temperature=1.0)[0, 0, 0], torch.tensor(math.e / (math.e + 7)))


def test_each_pooling_of_views_has_the_expected_values() -> None:
    maps = torch.tensor([[[[1.0, 0.0]]], [[[0.5, 1.0]]]])
    torch.testing.assert_close(pool_views(maps, "max"), torch.tensor([[[1.0, 1.0]]]))
    torch.testing.assert_close(pool_views(maps, "mean"), torch.tensor([[[0.75, 0.5]]]))
    expected = 0.1 * math.log((math.exp(10) + math.exp(5)) / 2)
    torch.testing.assert_close(pool_views(maps, "logsumexp")[0, 0, 0], torch.tensor(expected))


def test_no_view_outvotes_another_by_its_scale() -> None:
    maps = torch.rand(4, 2, 3, 3)
    scaled = maps * torch.tensor([1.0, 100.0, 0.01, 5.0])[:, None, None, None]
    torch.testing.assert_close(pool_views(scaled), pool_views(maps))


@pytest.mark.parametrize("pooling", ["softmax", "logsumexp", "max", "mean"])
def test_all_zero_views_pool_to_zero(pooling: str) -> None:
    torch.testing.assert_close(pool_views(torch.zeros(4, 1, 2, 2), pooling), torch.zeros(1, 2, 2), atol=1e-6, rtol=0)


# ---- blur ----


@pytest.mark.parametrize(
    ("blur", "side", "kernel"),
    [
        (None, 224, 23),
        (23, 224, 23),
        (0.1, 224, 23),
        (0, 224, 0),
        (0.0, 224, 0),
        (11, 224, 11),
        (45, 224, 45),
        (99, 32, 31),
        (0.1, 128, 13),
    ],
)
def test_blur_kernel_is_odd_and_fits_the_side(blur: float | None, side: int, kernel: int) -> None:
    assert odd_kernel(blur, side) == kernel


def test_the_blur_is_the_papers_gaussian() -> None:
    point = torch.zeros(1, 64, 64, dtype=torch.float64)
    point[0, 32, 32] = 1
    blurred = blur_masks(point, 23)[0]
    sigma = 0.3 * ((23 - 1) / 2 - 1) + 0.8
    x = torch.arange(-11, 12, dtype=torch.float64)
    profile = torch.exp(-(x**2) / (2 * sigma**2))
    profile /= profile.sum()
    torch.testing.assert_close(blurred[21:44, 21:44], profile[:, None] * profile, atol=1e-6, rtol=1e-4)
    assert torch.equal(blur_masks(point, 0), point)


# ---- the guide ----


def loss_by_hand(model: TinyCNN, batch: sl.Batch, views: int, beta: float) -> Tensor:
    """The total of Algorithm 1 without tap, context or objective, view by view and image by image."""
    cross_entropy = torch.nn.functional.cross_entropy(model(batch.images), batch.labels)
    losses = []
    for i in range(len(batch)):
        maps = []
        for view in dihedral_views(views):
            activations = model.features(view(batch.images[i : i + 1]))
            score = model.classifier(model.head(activations))[0, batch.labels[i]]
            (gradient,) = torch.autograd.grad(score, activations, create_graph=True)
            raw = (gradient.mean((2, 3), keepdim=True) * activations).sum(1).relu()
            maps.append(view.inverse(raw))
        if views > 1:
            stacked = torch.stack([m / m.max() for m in maps])
            weights = torch.exp(stacked / 0.1) / torch.exp(stacked / 0.1).sum(0)
            pooled = (weights * stacked).sum(0)
        else:
            pooled = maps[0]
        mask = batch.masks[i : i + 1].to(pooled.dtype)
        losses.append(1 - (pooled * mask).sum() / (pooled.pow(2).sum().sqrt() * mask.pow(2).sum().sqrt()))
    return beta * cross_entropy + (1 - beta) * torch.stack(losses).mean()


def lively(model: TinyCNN, batch: sl.Batch, views: int) -> bool:
    """No map is all zero, where the loss has a kink."""
    objective = sl.Objective(model, sl.SegmentOverlap(views=views, blur=0))
    return int(objective(batch)["n/segment_overlap/zero_maps"]) == 0


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_the_total_and_its_gradients_equal_algorithm_1(views: int) -> None:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of()
    assert lively(model, batch, views)
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.3, views=views, blur=0))
    loss, expected = objective(batch)["loss"], loss_by_hand(model, batch, views, 0.3)
    torch.testing.assert_close(loss, expected)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(loss, parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("options", [{}, {"views": 8}, {"views": 4, "resolution": "layer"}, {"explainer": "hirescam"}])
def test_gradients_of_every_parameter_match_finite_differences(options: dict[str, object]) -> None:
    for seed in range(4, 50):  # until no map is all zero, where the loss has a kink
        torch.manual_seed(seed)
        model, batch = TinyCNN().double(), batch_of(size=2)
        objective = sl.Objective(model, sl.SegmentOverlap(beta=0.0, blur=3, **options))  # type: ignore[arg-type]
        if int(objective(batch)["n/segment_overlap/zero_maps"]) == 0:
            break
    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(objective(batch)["loss"], parameters, allow_unused=True)
    seen = set()
    for name, parameter, gradient in zip(names, parameters, gradients):
        flat = parameter.detach().reshape(-1)
        for place in torch.randperm(len(flat))[:4].tolist():
            original, step = flat[place].item(), 1e-6
            values = []
            for shifted in (original + step, original - step):
                flat[place] = shifted
                values.append(objective(batch)["loss"].item())
            flat[place] = original
            numeric = (values[0] - values[1]) / (2 * step)
            analytic = 0.0 if gradient is None else gradient.reshape(-1)[place].item()
            assert analytic == pytest.approx(numeric, abs=2e-8, rel=1e-4), name
            if abs(analytic) > 1e-7:
                seen.add(name)
    assert "classifier.weight" in seen  # a first-order map would leave the last layer without guidance
    assert "features.0.weight" in seen


def test_images_without_mask_or_object_weigh_nothing_and_are_counted() -> None:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of(size=4)
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.0, blur=0))
    assert batch.masks is not None
    alone = objective(sl.Batch(batch.images[:2], batch.labels[:2], masks=batch.masks[:2]))
    masks = batch.masks.clone()
    masks[3] = 0
    mixed = objective(
        sl.Batch(batch.images, batch.labels, masks=masks, has_mask=torch.tensor([True, True, False, True]))
    )
    torch.testing.assert_close(mixed["segment_overlap"], alone["segment_overlap"])
    assert int(mixed["n/segment_overlap/unannotated"]) == 2
    none = objective(sl.Batch(batch.images, batch.labels))
    assert none["segment_overlap"] == 0
    none["loss"].backward()
    assert all(p.grad is None or torch.equal(p.grad, torch.zeros_like(p)) for p in model.parameters())


def test_beta_and_blur_give_the_five_variants_of_table_1() -> None:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of()
    parts = sl.Objective(model, sl.SegmentOverlap(beta=0.5, blur=5))(batch)
    sharp = sl.Objective(model, sl.SegmentOverlap(beta=0.5, blur=0))(batch)
    assert not torch.isclose(parts["segment_overlap"], sharp["segment_overlap"])
    for beta in (0.0, 0.5, 1.0):
        for blur, reference in ((5, parts), (0, sharp)):
            total = sl.Objective(model, sl.SegmentOverlap(beta=beta, blur=blur))(batch)["loss"]
            torch.testing.assert_close(total, beta * reference["task"] + (1 - beta) * reference["segment_overlap"])


def test_several_masks_an_image_are_indexed_by_the_label() -> None:
    model, batch = TinyCNN().double(), batch_of(size=3)
    assert batch.masks is not None
    stacked = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    for i, label in enumerate(batch.labels.tolist()):
        stacked[i, label] = batch.masks[i]
    objective = sl.Objective(model, sl.SegmentOverlap())
    one = objective(batch)["segment_overlap"]
    torch.testing.assert_close(objective(sl.Batch(batch.images, batch.labels, masks=stacked))["segment_overlap"], one)


def test_descending_it_moves_the_map_onto_the_mask() -> None:
    torch.manual_seed(5)
    model, batch = TinyCNN(width=8), batch_of(dtype=torch.float32)
    masks = torch.zeros(4, 8, 8, dtype=torch.uint8)
    masks[:, :, :4] = 1
    batch = sl.Batch(batch.images, batch.labels, masks=masks)
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = objective(batch)["segment_overlap"].item()
    for _ in range(60):
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    assert objective(batch)["segment_overlap"].item() < first - 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.5}, r"beta is 1.5; expected a number in \[0, 1\]"),
        ({"beta": 0.5, "weight": 1.0}, "both set the loss's share"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"views": 3}, "views is 3"),
        ({"blur": -1}, "blur is -1"),
        ({"blur": 1.5}, "a float is a fraction"),
        ({"blur": "big"}, "blur is 'big'"),
        ({"pooling": "sofmax"}, "pooling is 'sofmax'; expected 'softmax' or"),
        ({"temperature": 0}, "temperature is 0"),
        ({"explainer": "eigencam"}, "'eigencam' is not differentiable; a loss can use"),
        ({"explainer": "gaussian"}, "not differentiable"),
        ({"explainer": {"top": 2}}, "expected an explainer's name, or a mapping with name and options"),
        ({"target": "truth"}, "target is 'truth'; expected 'label' or 'predicted'"),
        ({"resolution": "half"}, "resolution is 'half'; expected 'input' or 'layer'"),
    ],
)
def test_segment_overlap_invalid_options_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        sl.SegmentOverlap(**options)  # type: ignore[arg-type]


# ---- maps whose channel weights are constants ----


def changed_scores(model: TinyCNN, images: Tensor, labels: Tensor, explainer: str) -> Tensor:
    """For each channel k the score (B, K) of what the explainer shows the model, a pass each."""
    activations = model.features(images)
    found = []
    for k in range(activations.shape[1]):
        if explainer == "ablationcam":
            without = activations.clone()
            without[:, k] = 0
            logits = model.classifier(model.head(without))
        else:
            channel = activations[:, k]
            low, high = channel.amin((1, 2), keepdim=True), channel.amax((1, 2), keepdim=True)
            logits = model(images * ((channel - low) / (high - low))[:, None])
        found.append(logits.gather(1, labels[:, None]))
    return torch.cat(found, 1)


@pytest.mark.parametrize("explainer", ["ablationcam", "scorecam"])
def test_the_weights_of_ablation_cam_and_score_cam_are_constants(explainer: str) -> None:
    torch.manual_seed(3)
    model, batch = TinyCNN().double(), batch_of()
    model.classifier.bias.data += 5  # scores above zero
    with torch.no_grad():
        changed = changed_scores(model, batch.images, batch.labels, explainer)
        whole = model(batch.images).gather(1, batch.labels[:, None])
        weights = (whole - changed) / whole if explainer == "ablationcam" else changed.softmax(1)

    def loss_by_hand() -> Tensor:
        maps = (weights[:, :, None, None] * model.features(batch.images)).sum(1).relu()
        assert batch.masks is not None
        a, b = maps.flatten(1), batch.masks.flatten(1).double()
        return (1 - F.cosine_similarity(a, b)).mean()

    parameters = [p for name, p in model.named_parameters() if name.startswith("features")]
    expected = torch.autograd.grad(loss_by_hand(), parameters)
    guide = sl.SegmentOverlap(beta=0.0, blur=0, explainer=explainer)
    objective = sl.Objective(model, guide, layer="features.3")
    loss = objective(batch)["loss"]
    torch.testing.assert_close(loss, loss_by_hand())
    gradients = torch.autograd.grad(loss, parameters)
    for gradient, by_hand in zip(gradients, expected):
        torch.testing.assert_close(gradient, by_hand)
    assert gradients[0].abs().max() > 1e-4

    place, step = (
        model.features[0].weight.data.view(-1),
        1e-6,
    )  # against finite differences of the form with fixed weights
    values = []
    for shift in (step, -2 * step):
        place[5] += shift
        values.append(loss_by_hand().item())
    place[5] += step
    assert gradients[0].view(-1)[5].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_constant_weights_leave_batch_norm_and_flags_alone_and_work_with_several_views() -> None:
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        ).double()

    batch = batch_of(6, 8)
    models = {}
    for explainer in ("gradcam", "ablationcam"):
        models[explainer] = network()
        objective = sl.Objective(models[explainer], sl.SegmentOverlap(views=4, explainer=explainer), layer="2")
        objective(batch)["loss"].backward()
    for name, value in models["gradcam"].state_dict().items():
        assert torch.equal(models["ablationcam"].state_dict()[name], value), name
    assert all(module.training for module in models["ablationcam"].modules())
    weight = models["ablationcam"][0].weight.grad
    assert weight is not None
    assert weight.abs().max() > 0
    chunked = sl.Objective(network(), sl.SegmentOverlap(views=4, explainer="ablationcam"), layer="2", view_chunk=1)
    assert chunked(batch)["loss"].isfinite()


def test_a_guide_with_constant_weights_needs_one_backward_pass_and_pixels() -> None:
    guide = sl.SegmentOverlap(explainer={"name": "scorecam", "top": 2})
    assert (guide.second_order, guide.needs_pixels) == (False, True)
    assert (sl.SegmentOverlap().second_order, sl.SegmentOverlap().needs_pixels) == (True, False)
    assert isinstance(guide.explainer, ScoreCAM)
    assert guide.explainer.top == 2


def test_views_can_be_pooled_without_scaling() -> None:
    maps = torch.tensor([[[[0.4, 0.0]]], [[[0.1, 0.2]]]])  # two views of one image with two pixels
    weights = torch.tensor([[math.exp(4), 1.0], [math.exp(1), math.exp(2)]])
    expected = (weights * maps[:, 0, 0]).sum(0) / weights.sum(0)
    torch.testing.assert_close(pool_views(maps, scale=False)[0, 0], expected)
    assert not torch.allclose(pool_views(maps)[0, 0], expected)

    torch.manual_seed(0)
    model, batch = TinyCNN().double(), batch_of()
    for layer in (model.head[2], model.classifier):  # positive gradients, so that no map is zero
        layer.weight.data.abs_()
    losses = [
        float(
            sl.Objective(model, sl.SegmentOverlap(beta=0.0, views=4, scale_views=scale), layer="features.3")(batch)[
                "loss"
            ]
        )
        for scale in (True, False)
    ]
    assert abs(losses[0] - losses[1]) > 1e-4


def test_one_view_at_a_time_is_algorithm_1_and_all_at_once_is_not() -> None:
    """Algorithm 1 sends each view through the network alone, so that batch norm sees the statistics of one view."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).double()
    batch = batch_of(6, 8)
    reference = copy.deepcopy(model)

    def gradcam(view: View) -> tuple[Tensor, Tensor]:
        activations = reference[:3](view(batch.images))
        logits = reference[3:](activations)
        (gradients,) = torch.autograd.grad(logits[range(6), batch.labels].sum(), activations, create_graph=True)
        maps = (gradients.mean((2, 3), keepdim=True) * activations).sum(1).relu()
        return logits, view.inverse(F.interpolate(maps[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0])

    seen = [gradcam(view) for view in D4]
    maps = torch.stack([each / each.amax((1, 2), keepdim=True) for _, each in seen])
    pooled = ((maps / 0.1).softmax(0) * maps).sum(0)
    masks = batch.masks.double()
    cosine = (pooled * masks).sum((1, 2)) / (pooled.square().sum((1, 2)) * masks.square().sum((1, 2))).sqrt()
    task = F.cross_entropy(seen[0][0], batch.labels)
    loss = 0.5 * task + 0.5 * (1 - cosine).mean()
    loss.backward()

    guide = sl.SegmentOverlap(beta=0.5, views=8, blur=0)
    together = sl.Objective(copy.deepcopy(model), guide, layer="2")(batch)
    alone = sl.Objective(model, guide, layer="2", view_chunk=1)(batch)
    alone["loss"].backward()
    torch.testing.assert_close(alone["task"], task.detach())
    torch.testing.assert_close(alone["loss"], loss.detach())
    for ours, theirs in zip(model.parameters(), reference.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(model[1].running_mean, reference[1].running_mean)
    assert (together["task"] - task).abs() > 1e-4
