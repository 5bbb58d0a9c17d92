"""Stored weights, and the rivals of explanation consistency: closed forms, resuming, accumulation and two processes."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from processes import in_two, join
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import sigmoid_focal_loss

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides import Guide, create_guide
from sightline.guides.explanation_consistency import ExplanationConsistency
from sightline.guides.focal import EqualizedFocal, Focal
from sightline.guides.hard_negative_mining import HardNegativeMining
from sightline.guides.sample_weights import Reweighter, spread
from sightline.training.checkpoint import Checkpoint, State, write_state


class Scores(nn.Module):
    """The logits are the means of the first channels, so that a test can choose them."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))[:, : len(self.bias)] + self.bias


def batch_with(logits: Tensor, labels: Tensor) -> Batch:
    return Batch(logits[:, :, None, None].expand(-1, -1, 2, 2).clone(), labels, indices=torch.arange(len(labels)))


def some(size: int = 6, classes: int = 3) -> tuple[Tensor, Tensor, Batch]:
    logits = torch.randn(size, classes, dtype=torch.float64)
    labels = torch.arange(size) % classes
    return logits, labels, batch_with(logits, labels)


def part(batch: Batch, rows: slice) -> Batch:
    assert batch.indices is not None
    return Batch(batch.images[rows], batch.labels[rows], indices=batch.indices[rows])


# ---- hard negative mining ----


def test_hard_negatives_weigh_one_minus_their_probability() -> None:
    logits, labels, batch = some()
    guide = HardNegativeMining(interval=2)
    objective = sl.Objective(Scores(), guide)
    for epoch, changed in enumerate([False, False, True, True, True]):
        objective.on_epoch_start([batch], epoch)
        expected = 1 - logits.softmax(1)[range(6), labels] if changed else torch.ones(6)
        torch.testing.assert_close(guide.weights, expected.float())
    losses = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(objective(batch)["loss"], (guide.weights * losses).sum() / guide.weights.double().sum())


def test_ohem_keeps_the_highest_losses() -> None:
    logits, labels, batch = some(7)
    objective = sl.Objective(Scores(), guide := HardNegativeMining(ohem_fraction=0.4))
    losses = F.cross_entropy(logits, labels, reduction="none")
    expected = losses.topk(3)  # 2.8 of 7
    torch.testing.assert_close(objective(batch)["loss"], expected.values.mean())
    objective.on_epoch_start([batch], 0)
    objective(batch)
    assert guide.weights.nonzero().flatten().tolist() == sorted(expected.indices.tolist())
    objective.on_epoch_start([batch], 4)
    assert guide.weights.sum() == 3  # no pass
    torch.testing.assert_close(objective.eval()(batch)["loss"], losses.mean())


# ---- focal losses ----


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_of_two_classes_is_torchvisions_of_their_difference(gamma: float) -> None:
    logits, labels, batch = some(8, 2)
    model = Scores(2)
    batch.images = F.pad(batch.images, (0, 0, 0, 0, 0, 1)).requires_grad_()
    objective = sl.Objective(model, Focal(gamma))
    objective(batch)["loss"].backward()
    z = logits.clone().requires_grad_()
    expected = sigmoid_focal_loss(z[:, 1] - z[:, 0], labels.double(), alpha=-1, gamma=gamma, reduction="mean")
    expected.backward()
    torch.testing.assert_close(objective(batch)["loss"], expected)
    torch.testing.assert_close(batch.images.grad.sum((2, 3))[:, :2], z.grad)  # through the factor too


def test_focal_loss_follows_its_weights_and_is_zero_at_certainty() -> None:
    logits, labels, batch = some()
    p = logits.softmax(1)[range(6), labels]
    objective = sl.Objective(Scores(), guide := Focal(normalize="weights"))
    objective.on_epoch_start([batch], 0)
    torch.testing.assert_close(objective(batch)["loss"], ((1 - p) ** 2 * -p.log()).sum() / ((1 - p) ** 2).sum())
    torch.testing.assert_close(guide.weights, ((1 - p) ** 2).float())
    sure = batch_with(torch.tensor([[800.0, 0, 0]]), torch.tensor([0]))
    model = Scores().float()
    loss = sl.Objective(model, Focal(0.5))(sure)["loss"]
    loss.backward()
    assert loss == 0
    assert torch.equal(model.bias.grad, torch.zeros(3))


def test_equalized_focal_loss_follows_its_equations() -> None:
    logits, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 0, 0, 0, 1])
    batch = batch_with(logits, labels)
    objective = sl.Objective(Scores(), guide := EqualizedFocal())
    objective.on_epoch_start([batch], 0)
    p, focal = logits.softmax(1), 2.0
    own = p[range(5), labels]
    # The first step has no gradients to go by.
    torch.testing.assert_close(objective(batch)["loss"], ((1 - own) ** focal * -own.log()).mean())
    gammas = []
    for j in range(3):
        positive = sum(1 - float(p[i, j]) for i in range(5) if labels[i] == j)
        negative = sum(float(p[i, j]) for i in range(5) if labels[i] != j)
        gammas.append(focal + 8 * (1 - min(1.0, positive / negative)))
    assert gammas[2] == 10  # a class that was never seen
    assert gammas[0] < gammas[1] or gammas[0] == focal
    torch.testing.assert_close(guide.gammas, torch.tensor(gammas, dtype=torch.float64))
    gamma = torch.tensor(gammas, dtype=torch.float64)[labels]
    weights = gamma / focal * (1 - own) ** gamma
    torch.testing.assert_close(objective(batch)["loss"], (weights * -own.log()).mean())
    torch.testing.assert_close(guide.weights, weights.float())
    torch.testing.assert_close(
        guide.gammas, torch.tensor(gammas, dtype=torch.float64)
    )  # the same batch, the same ratio
    before = guide.gammas
    objective.eval()(batch_with(-logits, labels))
    assert torch.equal(guide.gammas, before)


# ---- several labels ----

SEVERAL = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])


def right_probabilities(logits: Tensor) -> list[list[float]]:
    """Of what is true of each class, in plain numbers."""
    return [
        [1 / (1 + math.exp(-z)) if y else 1 / (1 + math.exp(z)) for z, y in zip(row, labels)]
        for row, labels in zip(logits.tolist(), SEVERAL.tolist())
    ]


def test_hard_negatives_of_several_labels_average_over_labels() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    right, batch = right_probabilities(logits), batch_with(logits, SEVERAL)
    objective = sl.Objective(Scores(), guide := HardNegativeMining(interval=1))
    for epoch in (0, 1):
        objective.on_epoch_start([batch], epoch)
    torch.testing.assert_close(guide.weights, torch.tensor([sum(1 - p for p in row) / 3 for row in right]))
    losses = torch.tensor([-sum(map(math.log, row)) / 3 for row in right], dtype=torch.float64)
    kept = sl.Objective(Scores(), HardNegativeMining(ohem_fraction=0.5))(batch)["loss"]
    torch.testing.assert_close(kept, losses.topk(2).values.mean())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_several_labels_is_torchvisions(gamma: float) -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    batch = batch_with(logits, SEVERAL)
    batch.images.requires_grad_()
    objective = sl.Objective(Scores(), guide := Focal(gamma))
    objective.on_epoch_start([batch], 0)
    loss = objective(batch)["loss"]
    loss.backward()
    z = logits.clone().requires_grad_()
    each = sigmoid_focal_loss(z, SEVERAL.double(), alpha=-1, gamma=gamma).mean(1)
    each.mean().backward()
    torch.testing.assert_close(loss, each.mean())
    torch.testing.assert_close(batch.images.grad.sum((2, 3)), z.grad)
    plain = F.binary_cross_entropy_with_logits(logits, SEVERAL.double(), reduction="none").mean(1)
    torch.testing.assert_close(guide.weights, (each.detach() / plain).float())


def test_focal_loss_of_several_labels_is_zero_at_certainty() -> None:
    model = Scores().float()
    loss = sl.Objective(model, Focal(0.5))(batch_with(torch.tensor([[800.0, -800, 800]]), SEVERAL[:1]))["loss"]
    loss.backward()
    assert loss == 0
    assert torch.equal(model.bias.grad, torch.zeros(3))


def test_equalized_focal_loss_of_several_labels_follows_its_equations() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    right, batch = right_probabilities(logits), batch_with(logits, SEVERAL)
    objective = sl.Objective(Scores(), guide := EqualizedFocal())
    loss = sum((1 - p) ** 2 * -math.log(p) for row in right for p in row) / 12
    assert objective(batch)["loss"].item() == pytest.approx(loss)
    gammas = []
    for j in range(3):
        positive = sum(1 - right[i][j] for i in range(4) if SEVERAL[i, j])
        negative = sum(1 - right[i][j] for i in range(4) if not SEVERAL[i, j])
        gammas.append(2 + 8 * (1 - min(1.0, positive / negative)))
    torch.testing.assert_close(guide.gammas, torch.tensor(gammas, dtype=torch.float64))
    loss = sum(g / 2 * (1 - p) ** g * -math.log(p) for row in right for p, g in zip(row, gammas)) / 12
    assert objective(batch)["loss"].item() == pytest.approx(loss)


# ---- what they share ----


def test_spread_shows_saturation() -> None:
    figures = spread(torch.tensor([0.05, 0.05, 0.3, 1.0, 1.0]), min_weight=0.05)
    assert [round(v.item(), 6) for v in figures.values()] == [0.05, 0.3, 1, 0.4]
    assert list(figures) == ["weights/min", "weights/median", "weights/max", "weights/at_min"]


def test_weights_are_saved_and_moved_with_the_objective_but_are_no_buffers() -> None:
    _, _, batch = some()
    objective = sl.Objective(Scores(), guide := HardNegativeMining(interval=1))
    for epoch in range(2):
        objective.on_epoch_start([batch], epoch)
    assert not list(objective.buffers())
    other = sl.Objective(Scores(), fresh := HardNegativeMining(interval=1))
    other.load_state_dict(objective.state_dict())
    assert torch.equal(fresh.weights, guide.weights)
    fresh.weights[0] = 7
    assert guide.weights[0] != 7
    assert objective.half().guides[0].weights.dtype == torch.float32
    assert objective.to("meta").guides[0].weights.device.type == "meta"
    assert all(not key.startswith("guides") for key in sl.Objective(Scores()).state_dict())


GUIDES: dict[str, dict] = {
    "explanation_consistency": {"interval": 2},
    "explanation_consistency, fused": {"mode": "fused"},
    "hard_negative_mining": {"interval": 2},
    "equalized_focal": {},
}


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_has_the_weights_of_one_that_went_on(name: str, stop: int, tmp_path: Path) -> None:
    batch = batch_of(6, dtype=torch.float32)
    batches = [part(batch, slice(0, 4)), part(batch, slice(4, 6))]

    def begin() -> tuple[sl.Objective, torch.optim.Optimizer]:
        torch.manual_seed(1)
        objective = sl.Objective(TinyCNN(), create_guide(name.partition(",")[0], **GUIDES[name]))
        return objective, torch.optim.Adam(objective.parameters(), 0.02)

    def train(objective: sl.Objective, optimizer: torch.optim.Optimizer, epochs: range) -> None:
        for epoch in epochs:
            objective.on_epoch_start(batches, epoch)
            for each in batches:
                optimizer.zero_grad()
                objective(each)["loss"].backward()
                optimizer.step()

    whole, optimizer = begin()
    train(whole, optimizer, range(stop))
    write_state(tmp_path / "state", [whole], optimizer, State())
    resumed, own = begin()
    checkpoint = Checkpoint(tmp_path / "state")
    checkpoint.restore_objectives([resumed])
    checkpoint.restore_optimizer(own)
    train(whole, optimizer, range(stop, 5))
    train(resumed, own, range(stop, 5))
    assert len(whole.guides[0].weights.unique()) > 1
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_guide_is_rejected(tmp_path: Path) -> None:
    write_state(tmp_path / "state", [sl.Objective(TinyCNN())], None, State())
    with pytest.raises(SightlineError, match="does not fit"):
        Checkpoint(tmp_path / "state").restore_objectives([sl.Objective(TinyCNN(), HardNegativeMining())])
    with pytest.raises(SightlineError, match="does not fit"):
        Checkpoint(tmp_path / "state").restore_objectives([sl.Objective(TinyCNN(classes=4))])


@pytest.mark.parametrize(
    "guide",
    [
        lambda: HardNegativeMining(interval=1),
        lambda: HardNegativeMining(interval=1, normalize="batch"),
        lambda: Focal(),
        lambda: ExplanationConsistency(interval=1),
    ],
)
def test_accumulated_batches_add_up_to_one_large_batch(guide) -> None:
    batch, model = batch_of(6), TinyCNN().double()
    objective = sl.Objective(model, guide())
    for epoch in range(2):
        objective.on_epoch_start([batch], epoch)
    objective(batch)["loss"].backward()
    whole = [p.grad.clone() for p in model.parameters()]
    objective.zero_grad()
    parts = [part(batch, slice(0, 4)), part(batch, slice(4, 6))]
    counts = objective.counts(parts)
    for each in parts:
        objective(each, counts=counts)["loss"].backward()
    for expected, p in zip(whole, model.parameters()):
        torch.testing.assert_close(p.grad, expected)


def test_weights_that_only_the_forward_pass_gives_are_not_accumulated() -> None:
    with pytest.raises(SightlineError, match="Focal reweights samples by what the forward pass gives"):
        sl.Objective(TinyCNN(), Focal(normalize="weights")).counts([batch_of()])


def test_reweighting_guides_with_invalid_weights_or_options_raise() -> None:
    _, _, batch = some()
    objective = sl.Objective(Scores(), HardNegativeMining())
    with pytest.raises(SightlineError, match="call on_epoch_start with the training data"):
        objective(batch)
    objective.on_epoch_start([batch], 0)
    batch.indices = torch.arange(6) + 1
    with pytest.raises(SightlineError, match=r"range over \[1, 6\]; there are weights of 6 images"):
        objective(batch)
    batch.indices = None
    with pytest.raises(SightlineError, match="which this batch does not have"):
        objective(batch)
    with pytest.raises(SightlineError, match="no batch of the loader has"):
        sl.Objective(Scores(), HardNegativeMining()).on_epoch_start([batch], 0)
    with pytest.raises(SightlineError, match="the dataset has 5 images; the weights that were kept are of 6"):
        objective.on_epoch_start(torch.utils.data.DataLoader(list(range(5))), 1)  # type: ignore[arg-type]
    for make, message in [
        (lambda: HardNegativeMining(ohem_fraction=0), "ohem_fraction is 0"),
        (lambda: Focal(gamma=-1), "gamma is -1"),
        (lambda: EqualizedFocal(gamma=0), "gamma is 0"),
        (lambda: EqualizedFocal(scale=-1), "scale is -1"),
        (lambda: Focal(normalize="mean"), "normalize is 'mean'"),
        (lambda: sl.Objective(Scores(), Focal() + HardNegativeMining()), "Focal and HardNegativeMining both reweight"),
    ]:
        with pytest.raises(SightlineError, match=message):
            make()


# ---- two processes ----


def guides() -> list[Guide]:
    return [
        ExplanationConsistency(interval=1),
        ExplanationConsistency(mode="fused"),
        HardNegativeMining(interval=1),
        Focal(),
        EqualizedFocal(),
    ]


def setting() -> tuple[TinyCNN, Batch]:
    torch.manual_seed(3)
    model, batch = TinyCNN().double(), batch_of(5)
    with torch.no_grad():
        model.features[0].weight.mul_(3)
        model.features[2].weight.mul_(3)
        batch.labels = model(batch.images).argmax(1)
    return model, batch


def two_epochs(wrapped: nn.Module, objective: sl.Objective, batch: Batch) -> list[Tensor]:
    """The weights after two epochs, and the gradients of the last step."""
    for epoch in range(2):
        objective.on_epoch_start([batch], epoch)
        objective.zero_grad()
        wrapped(batch)["loss"].backward()
    objective.synchronize()
    guide = objective.guides[0]
    assert isinstance(guide, Reweighter)
    return [guide.weights.clone(), *[p.grad.clone() for p in objective.model.parameters()]]


def in_one_of_two(rank: int, folder: str) -> None:
    join(rank, folder)
    for number, guide in enumerate(guides()):
        model, batch = setting()
        objective = sl.Objective(model, guide)
        mine = part(batch, slice(rank, None, 2))  # three images and two
        torch.save(
            two_epochs(DistributedDataParallel(objective), objective, mine), Path(folder) / f"{number}-{rank}.pt"
        )

    model, batch = setting()
    objective = sl.Objective(model, HardNegativeMining(interval=1))
    objective.on_epoch_start([part(batch, slice(rank, None, 2))], 0)
    if rank == 1:
        with torch.no_grad():
            model.classifier.bias[0] = torch.nan
    try:
        objective.on_epoch_start([part(batch, slice(rank, None, 2))], 1)
    except SightlineError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_weights_and_gradients_of_one(tmp_path: Path) -> None:
    in_two(in_one_of_two, tmp_path)
    for number, guide in enumerate(guides()):
        model, batch = setting()
        objective = sl.Objective(model, guide)
        one = two_epochs(objective, objective, batch)
        assert len(one[0].unique()) > 2, type(guide).__name__
        for rank in range(2):
            for ours, expected in zip(torch.load(tmp_path / f"{number}-{rank}.pt"), one, strict=True):
                torch.testing.assert_close(ours, expected, atol=1e-7, rtol=1e-6)
    assert "images [1, 3] are NaN" in (tmp_path / "1.txt").read_text()
    assert "another process" in (tmp_path / "0.txt").read_text()
