"""Explanation consistency: its equations on a model worked by hand, the pass, and the measurement within training steps."""

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.explainers import create_explainer
from sightline.guides import create_guide
from sightline.guides.explanation_consistency import ExplanationConsistency
from sightline.metrics import ExplanationConsistency as Metric
from sightline.objectives.check import trains_on_maps

EPS = 0.3
SPEC = sl.InputSpec((0.4,) * 3, (0.2,) * 3, (8, 8))
PSI = {"tanh": math.tanh, "softsign": lambda d: d / (1 + d), "arctan1": lambda d: 2 / math.pi * math.atan(d)}


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class ByHand(nn.Module):
    """The logits are the means of the squared reds and of the squared greens; Grad-CAM is the square of the class's colour."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, 2, 1, bias=False)
        self.features = Square()
        with torch.no_grad():
            self.colours.weight.copy_(torch.eye(2, 3)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.features(self.colours(x)).mean((2, 3))


REDS = [[0.9, 0.6, 0.3, 0.2], [0.5, 0.5, 0.45, 0.4], [0.3, 0.2, 0.1, 0.2], [0.8, 0.8, 0.8, 0.8]]
GREENS = [0.1, 0.45, 0.9, 0.1]  # the second image turns green under attack, the third is green from the start


def four_images() -> sl.Batch:
    red = torch.tensor(REDS, dtype=torch.float64).view(4, 1, 2, 2)
    green = torch.tensor(GREENS, dtype=torch.float64).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    images = torch.cat([red, green, torch.full_like(red, 0.5)], 1)
    return sl.Batch(images, torch.zeros(4, dtype=torch.int64), indices=torch.tensor([3, 0, 2, 1]))


def lively() -> tuple[TinyCNN, sl.Batch]:
    """A model whose maps have contrast and whose predictions differ, and six images, the third of them predicted wrongly."""
    torch.manual_seed(3)
    model, batch = TinyCNN().double(), batch_of(6)
    with torch.no_grad():
        model.features[0].weight.mul_(3)
        model.features[2].weight.mul_(3)
        batch.labels = model(SPEC.normalize(batch.images)).argmax(1)
    batch.labels[2] = (batch.labels[2] + 1) % 3
    return model, batch


def by_hand(red: list[float], green: float, psi: str, distance: str) -> float:
    """v of an image with label red, in plain numbers; without the floor."""

    def grad_cam(colour: list[float]) -> list[float]:
        low, high = min(c * c for c in colour), max(c * c for c in colour)
        return [0.0] * 4 if high == low else [(c * c - low) / (high - low) for c in colour]

    def is_red(red: list[float], green: list[float]) -> bool:
        return sum(r * r for r in red) > sum(g * g for g in green)

    if not is_red(red, [green] * 4):
        return 1.0  # predicted wrongly: not reweighted
    shown = grad_cam(red)
    # Eqs. 1 and 7: the cross-entropy of red grows as reds fall and greens rise.
    red_hat = [max(0.0, r - EPS * (1 - m)) for r, m in zip(red, shown)]
    green_hat = [min(1.0, green + EPS * (1 - m)) for m in shown]
    if not is_red(red_hat, green_hat):
        return 1.0  # Eq. 2, second case
    squares = [(a - b) ** 2 for a, b in zip(grad_cam(red_hat), shown)]
    return PSI[psi](10 * sum(squares) / 4 if distance == "mean" else sum(squares))  # Eqs. 3 and 4


def measured(
    guide: ExplanationConsistency, batch: sl.Batch, model: nn.Module | None = None
) -> tuple[sl.Objective, Tensor]:
    """An objective whose guide has measured a batch, and the weights of its images."""
    objective = sl.Objective(ByHand().double() if model is None else model, guide, layer=None if model else "features")
    objective.on_epoch_start([batch], 0)
    assert torch.equal(guide.weights, torch.ones(len(batch)))
    objective.on_epoch_start([batch], guide.interval)
    assert batch.indices is not None
    return objective, guide.weights[batch.indices]


@pytest.mark.parametrize("psi", list(PSI))
@pytest.mark.parametrize("distance", ["mean", "sum"])
def test_weights_follow_equations_1_to_4_and_7(psi: str, distance: str) -> None:
    guide = ExplanationConsistency(psi=psi, distance=distance, eps=EPS, min_weight=0)
    expected = [by_hand(red, green, psi, distance) for red, green in zip(REDS, GREENS)]
    assert expected[1:] == [1, 1, 0]
    assert 0.01 < expected[0] < 0.9
    _, weights = measured(guide, four_images())
    torch.testing.assert_close(weights, torch.tensor(expected))
    _, raised = measured(ExplanationConsistency(psi=psi, distance=distance, eps=EPS), four_images())
    torch.testing.assert_close(raised, torch.tensor(expected).clamp_min(0.05))


@pytest.mark.parametrize("normalize", ["weights", "batch"])
def test_loss_follows_equations_5_and_6(normalize: str) -> None:
    batch = four_images()
    objective, weights = measured(ExplanationConsistency(eps=EPS, normalize=normalize), batch)
    output = objective(batch)
    red = torch.tensor(REDS, dtype=torch.float64).square().mean(1)
    green = torch.tensor(GREENS, dtype=torch.float64).square()
    f = torch.sigmoid(red - green)  # the probability of red, whose y is 1
    losses = -f.log()
    total = (weights.double() * losses).sum()
    torch.testing.assert_close(output["loss"], total / (weights.sum() if normalize == "weights" else 4))
    objective.eval()
    torch.testing.assert_close(objective(batch)["loss"], losses.mean())


def test_the_sum_of_squares_saturates_where_the_mean_tells_images_apart() -> None:
    batch = batch_of(6, side=224, dtype=torch.float32)
    model = TinyCNN()
    batch.labels = model(batch.images).argmax(1)
    _, literal = measured(ExplanationConsistency("input_x_gradient", distance="sum", min_weight=0), batch, model)
    _, ours = measured(ExplanationConsistency("input_x_gradient", min_weight=0), batch, model)
    assert torch.equal(literal, torch.ones(6))
    assert ours.max() < 0.9
    assert len(ours.unique()) == 6


@pytest.mark.parametrize("explainer", ["gradcam", "xgradcam", "eigencam", "ablationcam", "integrated_gradients"])
@pytest.mark.parametrize("perturbation", ["fgsm", "zero", "mean"])
def test_explanation_consistency_weight_is_one_minus_the_metric(explainer: str, perturbation: str) -> None:
    model, batch = lively()
    guide = ExplanationConsistency(explainer, perturbation, min_weight=0)
    objective = sl.Objective(model, guide, input_spec=SPEC)
    for epoch in (0, 4):
        objective.on_epoch_start([batch], epoch)
    metric = Metric(model, explainer, perturbation=perturbation, input_spec=SPEC)
    maps = sl.explain(model, batch.images, explainer, input_spec=SPEC)
    metric.update(batch.images, maps, labels=batch.labels)
    expected = 1 - metric.per_image()
    expected[2] = 1
    assert len(expected.unique()) > 2
    torch.testing.assert_close(guide.weights, expected.float(), atol=1e-5, rtol=1e-4)


class Restless(nn.Module):
    """Batch norm, dropout, and one module in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout2d(0.5)
        self.last = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.drop(self.norm(self.conv(x)).relu())).mean((2, 3)))


@pytest.mark.parametrize("explainer", ["gradcam", "integrated_gradients"])
def test_the_pass_does_not_change_the_model(explainer: str) -> None:
    model, batch = Restless(), batch_of(6, dtype=torch.float32)
    objective = sl.Objective(model, ExplanationConsistency(explainer, interval=1), layer="last")
    model.norm.eval()
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in objective.modules()]
    random = torch.get_rng_state()
    for epoch in (0, 1):
        objective.on_epoch_start([batch], epoch)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    assert [m.training for m in objective.modules()] == flags
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(m._forward_hooks for m in model.modules())
    assert not batch.images.requires_grad


def test_weights_are_measured_every_k_epochs() -> None:
    batch, guide = four_images(), ExplanationConsistency(interval=3, eps=EPS)
    objective = sl.Objective(ByHand().double(), guide, layer="features")
    changes = []
    for epoch in range(8):
        before = guide.weights.clone()
        objective.on_epoch_start([batch], epoch)
        with torch.no_grad():
            objective.model.colours.weight[0, 2] += 0.1  # blue, the same everywhere, begins to count as red
        changes.append(epoch > 0 and not torch.equal(before, guide.weights))
    assert changes == [False, False, False, True, False, False, True, False]


def test_explanations_that_are_not_finite_raise_with_their_index() -> None:
    class Breaks(ByHand):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.where(x[:, :1].mean((2, 3)) > 0.79, torch.nan, 0.0)

    objective = sl.Objective(Breaks().double(), ExplanationConsistency(), layer="features")
    objective.on_epoch_start([four_images()], 0)
    with pytest.raises(SightlineError, match=r"the weights of images \[1\] are NaN or infinite"):
        objective.on_epoch_start([four_images()], 4)
    assert objective.training


# ---- fused ----


def fused_and_pass(model: nn.Module, batch: sl.Batch, **options) -> tuple[Tensor, Tensor]:
    """The weights after one training step that measures, and after a pass with the same parameters."""
    weights = []
    for mode in ("fused", "pass"):
        guide = ExplanationConsistency(mode=mode, interval=1, **options)
        objective = sl.Objective(copy.deepcopy(model), guide, input_spec=SPEC)
        objective.on_epoch_start([batch], 0)
        if mode == "fused":
            objective(batch)["loss"].backward()
        else:
            objective.on_epoch_start([batch], 1)
        weights.append(guide.weights.clone())
    return weights[0], weights[1]


@pytest.mark.parametrize("perturbation", ["fgsm", "zero", "mean"])
@pytest.mark.parametrize("explainer", ["gradcam", "eigencam"])
def test_a_training_step_measures_what_the_pass_does(explainer: str, perturbation: str) -> None:
    # Of a model without batch norm and dropout, which are the same in both modes.
    model, batch = lively()
    fused, separate = fused_and_pass(model, batch, explainer=explainer, perturbation=perturbation, min_weight=1e-6)
    torch.testing.assert_close(fused, separate)
    assert fused[2] == 1
    assert len(fused.unique()) > 2


def test_fused_costs_one_forward_pass_more_and_gives_the_gradients_of_the_step() -> None:
    model, batch, calls = TinyCNN(), batch_of(dtype=torch.float32), []
    model.features.register_forward_hook(lambda *_: calls.append(1))
    guide = ExplanationConsistency(mode="fused")
    objective = sl.Objective(model, guide, layer="features")
    objective.on_epoch_start([batch], 0)
    objective(batch)  # the first step looks at the places of the target layer
    calls.clear()
    objective(batch)["loss"].backward()
    assert len(calls) == 2
    assert not batch.images.requires_grad
    plain = TinyCNN()
    plain.load_state_dict(model.state_dict())
    nn.functional.cross_entropy(plain(batch.images), batch.labels).backward()
    for ours, expected in zip(model.parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_fused_draws_the_same_dropout_again_and_batch_norm_counts_once() -> None:
    model, batch = Restless(), batch_of(6, dtype=torch.float32)
    guide = ExplanationConsistency(mode="fused", eps=1e-7, min_weight=1e-3)
    objective = sl.Objective(model, guide, layer="last")
    objective.on_epoch_start([batch], 0)
    torch.manual_seed(5)
    output = objective(batch)
    after, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    output["loss"].backward()
    assert all(torch.equal(a, b) for a, b in zip(after.values(), model.state_dict().values()))
    assert int(model.norm.num_batches_tracked) == 1
    assert torch.equal(random, torch.get_rng_state())
    right = output["logits"].argmax(1) == batch.labels
    assert right.any()
    assert torch.allclose(guide.weights[right], torch.tensor(1e-3))  # other dropout would have changed the maps
    assert torch.equal(guide.weights[~right], torch.ones(6)[~right])


def test_fused_measures_in_every_kth_epoch_and_the_next_visit_is_weighted() -> None:
    batch, guide = four_images(), ExplanationConsistency(mode="fused", interval=2, eps=EPS)
    objective = sl.Objective(ByHand().double(), guide, layer="features")
    for epoch in range(2):
        objective.on_epoch_start([batch], epoch)
        assert torch.equal(guide.weights, torch.ones(4))
        objective(batch)["loss"].backward()
    objective.on_epoch_start([batch], 2)
    assert batch.indices is not None
    expected = torch.tensor([by_hand(red, green, "tanh", "mean") for red, green in zip(REDS, GREENS)]).clamp_min(0.05)
    torch.testing.assert_close(guide.weights[batch.indices], expected)
    losses = nn.functional.cross_entropy(objective.model(batch.images), batch.labels, reduction="none")
    output = objective(batch)
    torch.testing.assert_close(output["loss"], (expected * losses).sum() / expected.double().sum())
    torch.testing.assert_close(output["weights/median"], guide.weights.median())
    torch.testing.assert_close(output["weights/at_min"], torch.tensor(0.25))


def test_fused_works_in_bf16_next_to_another_guide_and_without_gradients() -> None:
    batch, guide = batch_of(dtype=torch.float32), ExplanationConsistency(mode="fused")
    objective = sl.Objective(TinyCNN(), sl.SegmentOverlap(views=2) + guide)
    objective.on_epoch_start([batch], 0)
    with torch.no_grad():
        objective(batch)
    assert torch.equal(guide.weights, torch.ones(4))
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(batch)["loss"]
    loss.backward()
    assert (guide.weights < 1).any()
    for other in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        assert torch.equal(other.guides[1].weights, guide.weights)


# ---- models without a double backward ----


class Once(torch.autograd.Function):
    """Batch norm whose backward pass cannot be differentiated, as that of SyncBatchNorm over several processes."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = nn.functional.batch_norm(ctx.x, None, None, training=True)
        return ctx.y.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        return torch.autograd.grad(ctx.y, ctx.x, gradient, retain_graph=True)[0]


class Synchronized(nn.SyncBatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x) if self.training else super().forward(x)


def normed(norm: nn.Module) -> TinyCNN:
    torch.manual_seed(0)
    model = TinyCNN()
    model.head = nn.Sequential(norm, *model.head)
    return model


@pytest.mark.parametrize("mode", ["pass", "fused"])
def test_explanation_consistency_needs_no_double_backward(mode: str) -> None:
    batch, weights, gradients = batch_of(6, dtype=torch.float32), [], []
    for norm in (Synchronized(4, affine=False), nn.BatchNorm2d(4, affine=False, track_running_stats=False)):
        guide = ExplanationConsistency(mode=mode, interval=1)
        objective = sl.Objective(normed(norm), guide, layer="features")
        assert not trains_on_maps(objective)
        if mode == "fused":
            objective.on_epoch_start([batch], 0)
            objective(batch)["loss"].backward()  # the tail's backward runs for the map, and again for the loss
            weights.append(guide.weights.clone())
            gradients.append(objective.model.features[0].weight.grad)
        else:
            for epoch in (0, 1):
                objective.on_epoch_start([batch], epoch)
    if mode == "fused":
        assert (weights[0] < 1).any()
        torch.testing.assert_close(*weights)
        torch.testing.assert_close(*gradients)


def test_a_loss_on_maps_next_to_it_needs_one() -> None:
    model = normed(Synchronized(4, affine=False))
    objective = sl.Objective(model, sl.SegmentOverlap() + ExplanationConsistency(), layer="features")
    assert trains_on_maps(objective)
    with pytest.raises(SightlineError, match="is a SyncBatchNorm after layer"):
        sl.check_model(model, "features", torch.rand(2, 3, 8, 8))
    assert not trains_on_maps(
        sl.Objective(model, create_guide("random_background") + ExplanationConsistency(), layer="features")
    )


def test_fused_rejects_synchronized_batch_norm_where_processes_could_wait_for_each_other() -> None:
    objective = sl.Objective(
        normed(Synchronized(4, affine=False)), ExplanationConsistency(mode="fused"), layer="features"
    )
    batch = batch_of(3, dtype=torch.float32)
    batch.labels = torch.eye(3, dtype=torch.int64)
    objective.on_epoch_start([batch], 0)
    with pytest.raises(SightlineError, match="use mode 'pass'"):
        objective(batch)


# ---- several labels ----

SEVERAL = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 0], [0, 0]])


class Rivals(ByHand):
    """Each class gains by its own colour and loses half as much by the other's."""

    def forward(self, x: Tensor) -> Tensor:
        means = super().forward(x)
        return means - 0.5 * means.flip(1) - 0.05


def several_images() -> sl.Batch:
    """Two labels, found in both colours; the second falls to 0 under attack; it is not found; one label; none."""
    reds = [
        [0.9, 0.7, 0.6, 0.5],
        [0.4, 0.1, 0.4, 1.0],
        [0.9, 0.6, 0.8, 0.7],
        [0.8, 0.5, 0.3, 0.6],
        [0.8, 0.3, 0.3, 0.6],
    ]
    greens = [
        [0.5, 0.6, 0.8, 0.9],
        [0.3, 0.2, 0.4, 0.8],
        [0.3, 0.2, 0.4, 0.1],
        [0.4, 0.2, 0.1, 0.3],
        [0.3, 0.2, 0.1, 0.2],
    ]
    pixels = torch.tensor([reds, greens, [[0.5] * 4] * 5], dtype=torch.float64).transpose(0, 1)
    return sl.Batch(pixels.reshape(5, 3, 2, 2), SEVERAL, indices=torch.arange(5))


def label_by_hand(colours: list[list[float]], labels: list[int], k: int) -> float:
    """1 - E of label k, in plain numbers."""

    def logit(colours: list[list[float]], k: int) -> float:
        own, other = (sum(c * c for c in colours[j]) / 4 for j in (k, 1 - k))
        return own - 0.5 * other - 0.05

    def grad_cam(colours: list[list[float]]) -> list[float]:
        raw = [max(0.0, a * a - 0.5 * b * b) for a, b in zip(colours[k], colours[1 - k])]
        return [(r - min(raw)) / (max(raw) - min(raw)) for r in raw]

    if logit(colours, k) <= 0:
        return 1.0
    error = [1 / (1 + math.exp(-logit(colours, j))) - labels[j] for j in (0, 1)]  # of the binary cross-entropy
    sign = [-1 if error[j] - 0.5 * error[1 - j] < 0 else 1 for j in (0, 1)]
    shown = grad_cam(colours)
    attacked = [[min(1, max(0, c + EPS * s * (1 - m))) for c, m in zip(row, shown)] for row, s in zip(colours, sign)]
    if logit(attacked, k) <= 0:
        return 1.0
    return math.tanh(10 * sum((a - b) ** 2 for a, b in zip(grad_cam(attacked), shown)) / 4)


@pytest.mark.parametrize("mode", ["pass", "fused"])
def test_several_labels_are_weighted_by_their_mean(mode: str) -> None:
    batch = several_images()
    pixels = batch.images.flatten(2)[:, :2].tolist()
    each = [[label_by_hand(c, y, k) for k in (0, 1) if y[k]] for c, y in zip(pixels, SEVERAL.tolist())]
    assert [len(labels) for labels in each] == [2, 2, 2, 1, 0]
    assert all(0.01 < v < 0.99 for v in (each[0][0], each[1][0], each[2][0], each[3][0])), each
    assert each[1][1] == each[2][1] == 1
    guide = ExplanationConsistency(mode=mode, interval=1, eps=EPS, min_weight=1e-6)
    objective = sl.Objective(Rivals().double(), guide, layer="features")
    found = objective.model(batch.images) > 0
    assert found[1, 1]
    assert not found[2, 1]
    objective.on_epoch_start([batch], 0)
    if mode == "pass":
        objective.on_epoch_start([batch], 1)
    else:
        objective(batch)["loss"].backward()
    expected = torch.tensor([sum(labels) / len(labels) if labels else 1.0 for labels in each])
    torch.testing.assert_close(guide.weights, expected)
    losses = nn.functional.binary_cross_entropy_with_logits(
        objective.model(batch.images), SEVERAL.double(), reduction="none"
    )
    weighted = (guide.weights * losses.mean(1)).sum() / guide.weights.double().sum()
    torch.testing.assert_close(objective(batch)["loss"], weighted)


def test_one_label_each_weighs_as_a_single_label_where_both_losses_rise_alike() -> None:
    class Opposed(ByHand):
        """Of two classes whose logits are opposite, one is found if and only if it is predicted."""

        def forward(self, x: Tensor) -> Tensor:
            means = super().forward(x)
            return means - means.flip(1)

    single = four_images()
    several = sl.Batch(single.images, nn.functional.one_hot(single.labels, 2), indices=single.indices)
    weights = []
    for batch in (single, several):
        guide = ExplanationConsistency(interval=1, eps=EPS, min_weight=0)
        objective = sl.Objective(Opposed().double(), guide, layer="features")
        for epoch in (0, 1):
            objective.on_epoch_start([batch], epoch)
        weights.append(guide.weights)
    assert len(weights[0].unique()) > 2
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.parametrize("explainer", ["gradcam", "integrated_gradients"])
def test_the_top_class_alone_is_the_papers_manner(explainer: str) -> None:
    torch.manual_seed(3)
    model, batch = lively()
    top = model(SPEC.normalize(batch.images)).argmax(1)
    labels = torch.ones(6, 3, dtype=torch.int64)
    labels[2, top[2]] = 0
    weights = []
    for each in (
        sl.Batch(batch.images, top, indices=batch.indices),
        sl.Batch(batch.images, labels, indices=batch.indices),
    ):
        guide = ExplanationConsistency(explainer, "zero", min_weight=0, interval=1, labels="top")
        objective = sl.Objective(model, guide, input_spec=SPEC)
        for epoch in (0, 1):
            objective.on_epoch_start([each], epoch)
        weights.append(guide.weights.clone())
    single, several = weights
    assert single[2] < 1
    assert several[2] == 1
    torch.testing.assert_close(several[[0, 1, 3, 4, 5]], single[[0, 1, 3, 4, 5]])


# ---- what is refused ----


def test_options_are_rejected() -> None:
    for options, message in [
        ({"psi": "tan"}, "psi is 'tan'; expected 'tanh'"),
        ({"distance": "max"}, "distance is 'max'"),
        ({"perturbation": "blur"}, "perturbation is 'blur'"),
        ({"mode": "both"}, "mode is 'both'"),
        ({"labels": "all"}, "labels is 'all'"),
        ({"eps": 0}, "eps is 0"),
        ({"min_weight": 2}, "min_weight is 2"),
        ({"interval": 0}, "interval is 0"),
        ({"normalize": "sum"}, "normalize is 'sum'"),
        ({"explainer": "gradcm"}, "did you mean 'gradcam'"),
        ({"mode": "fused", "min_weight": 0}, "no gradient to attack"),
        ({"mode": "fused", "explainer": "integrated_gradients"}, "needs a class activation map"),
    ]:
        with pytest.raises(SightlineError, match=message):
            ExplanationConsistency(**options)


@pytest.mark.parametrize("mode", ["pass", "fused"])
def test_images_that_are_no_pixels_are_rejected(mode: str) -> None:
    batch = batch_of(dtype=torch.float32)
    batch.images = 4 * batch.images - 2
    objective = sl.Objective(TinyCNN(), ExplanationConsistency(mode=mode, interval=1))
    objective.on_epoch_start([batch], 0)
    with pytest.raises(SightlineError, match=r"images range over .*; expected \[0, 1\]"):
        objective.on_epoch_start([batch], 1) if mode == "pass" else objective(batch)


def test_an_explainer_made_beforehand_gives_equal_weights() -> None:
    batch = four_images()
    _, by_name = measured(ExplanationConsistency("eigencam", eps=EPS), batch)
    _, made = measured(ExplanationConsistency(create_explainer("eigencam"), eps=EPS), batch)
    assert torch.equal(by_name, made)
