"""icCNN: literal versions, an example by hand, planted groups, gradients, resuming, two processes, and what training does."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import sightline as sl
from guides.differences import check_gradients
from guides.processes import gradients_of, in_two, join, share
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.guides import create_guide
from sightline.guides.iccnn import ICCNN
from sightline.network.filter_groups import (
    Moments,
    class_coherence,
    filter_similarity,
    group_activity,
    membership,
    part_coherence,
    spectral_groups,
)
from sightline.training.checkpoint import Checkpoint, State, write_state

# ---- similarity ----


def literal_similarity(maps: Tensor) -> Tensor:
    """Pearson + 1 as the formula reads, filter by filter."""
    images, filters = maps.shape[:2]
    vectors = maps.flatten(2)
    result = torch.empty(filters, filters, dtype=maps.dtype)
    for i in range(filters):
        for j in range(filters):
            mean_i, mean_j = vectors[:, i].mean(0), vectors[:, j].mean(0)
            product = sum(torch.dot(vectors[n, i] - mean_i, vectors[n, j] - mean_j) for n in range(images))
            sigma_i = sum((vectors[n, i] - mean_i).square().sum() for n in range(images)).sqrt()
            sigma_j = sum((vectors[n, j] - mean_j).square().sum() for n in range(images)).sqrt()
            result[i, j] = product / (sigma_i * sigma_j) + 1
    return result


def test_similarity_is_the_literal_one() -> None:
    maps = torch.randn(5, 4, 3, 2, dtype=torch.float64)
    expected = literal_similarity(maps)
    torch.testing.assert_close(filter_similarity(maps), expected)
    torch.testing.assert_close(filter_similarity(maps).diagonal(), torch.full((4,), 2.0, dtype=torch.float64))
    looked_at = torch.tensor([True, False, True, True, False])
    torch.testing.assert_close(filter_similarity(maps, looked_at), literal_similarity(maps[looked_at]))
    moments = Moments()
    for part in maps.float().split([1, 3, 1]):
        moments.add(part)
    torch.testing.assert_close(moments.similarity(), expected, atol=1e-6, rtol=0)


def test_similarity_of_one_place_is_the_correlation_of_numbers() -> None:
    numbers = torch.randn(30, 4, dtype=torch.float64)
    torch.testing.assert_close(filter_similarity(numbers[:, :, None, None]), torch.corrcoef(numbers.T) + 1)


def test_similarity_asks_what_changes_from_image_to_image() -> None:
    maps = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    same_everywhere = torch.randn(1, 3, 4, 4, dtype=torch.float64) * 50
    scales = torch.tensor([0.1, 7.0, 300.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(filter_similarity(scales * (maps + same_everywhere)), filter_similarity(maps))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_filter_that_never_changes_is_like_none(dtype: torch.dtype) -> None:
    maps = torch.randn(6, 3, 4, 4, dtype=dtype)
    maps[:, 1] = torch.randn(4, 4, dtype=dtype)  # one map for all images: rounding remains of its variance
    maps.requires_grad_()
    similarity = filter_similarity(maps)
    assert similarity[1].tolist() == similarity[:, 1].tolist() == [1, 1, 1]
    similarity.sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    moments = Moments()
    moments.add(maps)
    torch.testing.assert_close(moments.similarity(), similarity.detach().double(), atol=1e-5, rtol=0)
    one = filter_similarity(maps[:1])  # nothing changes in one image
    assert torch.equal(one, torch.ones(3, 3, dtype=dtype))


def test_moments_invalid_maps_raise() -> None:
    moments = Moments()
    with pytest.raises(SightlineError, match="no image was given"):
        moments.similarity()
    moments.add(torch.rand(2, 3, 4, 4))
    with pytest.raises(SightlineError, match=r"\(3, 9\) channels and places, and had \(3, 16\)"):
        moments.add(torch.rand(2, 3, 3, 3))
    moments.add(torch.full((1, 3, 4, 4), torch.nan))
    with pytest.raises(SightlineError, match="NaN or infinite"):
        moments.similarity()


# ---- the losses by hand ----


def test_part_coherence_sums_the_shares_within_groups() -> None:
    similarity = torch.tensor([[2.0, 1.5, 0.5, 0], [1.5, 2, 1, 0.5], [0.5, 1, 2, 1], [0, 0.5, 1, 2]])
    members = membership(torch.tensor([0, 0, 1, 1]), 2)
    # Group 0: within 2 + 2 + 1.5 + 1.5 = 7, all 4 + 5 = 9. Group 1: within 6, all 4.5 + 3.5 = 8.
    torch.testing.assert_close(part_coherence(similarity, members), torch.tensor(7 / 9 + 6 / 8))
    torch.testing.assert_close(part_coherence(torch.ones(4, 4), members), torch.tensor(1.0))
    torch.testing.assert_close(part_coherence(members @ members.T, members), torch.tensor(2.0))
    with_an_empty_one = membership(torch.tensor([0, 0, 2, 2]), 3)
    torch.testing.assert_close(part_coherence(similarity, with_an_empty_one), torch.tensor(7 / 9 + 6 / 8))


def test_group_activity_averages_positive_responses() -> None:
    maps = torch.tensor([[[[1.0, 3.0]], [[-2.0, 4.0]], [[6.0, 0.0]]]])  # means of what is positive: 2, 2, 3
    activity = group_activity(maps, membership(torch.tensor([0, 2, 2]), 4))
    torch.testing.assert_close(activity, torch.tensor([[2.0, 0, 2.5, 0]]))


def test_class_coherence_equals_the_sum_over_pairs() -> None:
    # Two images of class 0 drive group 0 alone, one of class 1 both groups alike: its cosine to the others is 1 / sqrt(2).
    activity = torch.tensor([[3.0, 0], [1, 0], [2, 2]])
    labels = torch.tensor([0, 0, 1])
    cosine = 2**-0.5
    expected = 4 / (4 + 2 * cosine) + 1 / (1 + 2 * cosine)
    torch.testing.assert_close(class_coherence(activity, labels, 2), torch.tensor(expected))

    activity, labels = torch.rand(9, 5, dtype=torch.float64), torch.tensor([0, 3, 3, 1, 0, 0, 1, 3, 3])
    within, everyone = [0.0] * 4, [0.0] * 4
    for i in range(9):
        for j in range(9):
            alike = torch.nn.functional.cosine_similarity(activity[i], activity[j], dim=0).item()
            everyone[labels[i]] += alike
            within[labels[i]] += alike if labels[i] == labels[j] else 0
    expected = sum(within[k] / everyone[k] for k in (0, 1, 3))
    assert class_coherence(activity, labels, 4).item() == pytest.approx(expected)
    silent = torch.zeros(3, 2, requires_grad=True)  # images that drive no group
    class_coherence(silent, torch.tensor([0, 0, 1]), 2).backward()
    assert silent.grad is not None
    assert silent.grad.isfinite().all()


# ---- grouping ----


@pytest.mark.parametrize(("filters", "groups"), [(12, 2), (24, 4), (64, 8)])
def test_planted_groups_are_found(filters: int, groups: int) -> None:
    truth = torch.randperm(filters) % groups
    parts = torch.rand(60, groups, 6, 6)
    maps = (3 * parts[:, truth] + 0.5 * torch.randn(60, filters, 6, 6) - 1).relu()
    found = spectral_groups(filter_similarity(maps), groups)
    assert adjusted_rand_score(truth, found) == 1
    assert torch.equal(found, spectral_groups(filter_similarity(maps), groups))


class Copies(nn.Module):
    """A convolution whose filters are noisy copies of a few."""

    def __init__(self, truth: Tensor, classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, len(truth), 3, padding=1)
        self.head = nn.Linear(len(truth), classes)
        originals = torch.randn(int(truth.max()) + 1, 3, 3, 3)
        with torch.no_grad():
            self.layer.weight.copy_(originals[truth] + 0.1 * torch.randn_like(self.layer.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).relu().mean((2, 3)))


def part(batch: sl.Batch, rows: slice) -> sl.Batch:
    return sl.Batch(batch.images[rows], batch.labels[rows])


def test_a_models_copied_filters_share_a_group() -> None:
    truth = torch.arange(15) % 3
    objective = sl.Objective(Copies(truth), guide := ICCNN(groups=3), layer="layer")
    batch = batch_of(12, dtype=torch.float32)
    objective.train()
    objective.on_epoch_start([part(batch, slice(0, 5)), part(batch, slice(5, 12))], 0)
    assert objective.model.training
    assert adjusted_rand_score(truth, guide.filter_groups) == 1
    assert all(p.grad is None for p in objective.parameters())


def test_filters_are_grouped_again_every_second_epoch() -> None:
    objective = sl.Objective(Copies(torch.arange(15) % 3), guide := ICCNN(groups=3), layer="layer")
    batch, history = batch_of(12, dtype=torch.float32), []
    for epoch in range(4):
        objective.on_epoch_start([batch], epoch)
        history.append(guide.filter_groups.clone())
        with torch.no_grad():
            objective.model.layer.weight.copy_(objective.model.layer.weight.roll(1, 0))
    shifted = [adjusted_rand_score(history[0].roll(epoch), history[epoch]) for epoch in range(4)]
    assert shifted[2] == 1
    assert torch.equal(history[0], history[1])
    assert torch.equal(history[2], history[3])
    late = ICCNN(groups=3)
    sl.Objective(objective.model, late, layer="layer").on_epoch_start([batch], 7)  # a stage that begins there
    assert len(late.filter_groups) == 15


def test_one_category_is_all_that_the_part_loss_looks_at() -> None:
    batch = batch_of(9)
    model = TinyCNN(width=6).double()
    objective = sl.Objective(model, guide := ICCNN(groups=2, category=1, class_weight=0), layer="features.1")
    objective.on_epoch_start([batch], 0)
    output = objective(batch)
    own = sl.Batch(batch.images[1::3], batch.labels[1::3])
    other = sl.Objective(model, everyone := ICCNN(groups=2, class_weight=0), layer="features.1")
    other.on_epoch_start([own], 0)
    assert torch.equal(guide.filter_groups, everyone.filter_groups)
    torch.testing.assert_close(output["iccnn_part"], other(own)["iccnn_part"])
    assert output["n/iccnn_part/unannotated"] == 6
    assert "iccnn_class" not in output
    batch.labels = torch.zeros(9, dtype=torch.int64)
    objective.zero_grad()
    output = objective(batch)
    output["loss"].backward()
    torch.testing.assert_close(output["loss"], output["task"])  # none of the category in the batch
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# ---- in the objective ----


def test_the_objective_adds_both_losses() -> None:
    batch = batch_of(8)
    model = TinyCNN(width=6).double()
    objective = sl.Objective(model, guide := ICCNN(groups=3, weight=0.3, class_weight=0.7), layer="features.1")
    objective.on_epoch_start([batch], 0)
    output = objective(batch)
    maps = model.features[:2](batch.images)
    assigned = guide.filter_groups
    similarity = literal_similarity(maps)
    part_loss = 0.0
    for k in range(3):
        inside = (assigned == k).nonzero()[:, 0]
        part_loss -= (similarity[inside][:, inside].sum() / similarity[inside].sum()).item()
    activity = torch.stack([maps[:, assigned == k].mean((1, 2, 3)) for k in range(3)], 1)
    unit = activity / activity.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    class_loss = 0.0
    for k in range(3):
        rows = batch.labels == k
        class_loss -= (cosines[rows][:, rows].sum() / cosines[rows].sum()).item()
    assert output["iccnn_part"].item() == pytest.approx(0.3 * part_loss)
    assert output["iccnn_class"].item() == pytest.approx(0.7 * class_loss)
    assert output["iccnn/coherence"].item() == pytest.approx(-part_loss)
    torch.testing.assert_close(output["loss"], output["task"] + output["iccnn_part"] + output["iccnn_class"])


@pytest.mark.parametrize("layer", ["features.1", "features.3"])
def test_gradients_are_those_of_finite_differences(layer: str) -> None:
    batch = batch_of(6)
    objective = sl.Objective(TinyCNN(width=5).double(), ICCNN(groups=2), layer=layer, task_weight=0)
    objective.on_epoch_start([batch], 0)
    seen = check_gradients(objective, batch, weight=100)
    assert {"features.0.weight", "features.0.bias"} <= seen
    assert ("features.2.weight" in seen) == (layer == "features.3")


def test_other_guides_views_do_not_count() -> None:
    batch = batch_of(6)
    model = TinyCNN(width=5).double()
    alone = sl.Objective(model, ICCNN(groups=2), layer="features.3")
    both = sl.Objective(
        model, ICCNN(groups=2) + sl.SegmentOverlap(weight=1.0, views=4), layer="features.3", view_chunk=2
    )
    for objective in (alone, both):
        objective.on_epoch_start([batch], 0)
    for name in ("iccnn_part", "iccnn_class"):
        torch.testing.assert_close(alone(batch)[name], both(batch)[name])


def test_images_are_reweighted_next_to_it() -> None:
    batch = batch_of(6)
    model = TinyCNN(width=5).double()
    with torch.no_grad():
        batch.labels = model(batch.images).argmax(1)  # all are right, so all are reweighted
    guides = ICCNN(groups=2) + create_guide("explanation_consistency", interval=1, min_weight=0.0)
    objective = sl.Objective(model, guides, layer="features.1")
    plain = sl.Objective(model, ICCNN(groups=2), layer="features.1")
    for each in (objective, plain):
        each.on_epoch_start([batch], 1)
    output, expected = objective(batch), plain(batch)
    assert len(objective.guides[1].weights.unique()) > 2
    for name in ("iccnn_part", "iccnn_class"):
        torch.testing.assert_close(output[name], expected[name])  # the weights are those of the task loss alone
    assert output["task"] != expected["task"]
    assert {"iccnn/coherence", "weights/median"} <= set(output)


def test_low_precision_keeps_the_losses_in_full() -> None:
    batch = batch_of(8, dtype=torch.float32)
    objective = sl.Objective(TinyCNN(width=6), ICCNN(groups=3), layer="features.1")
    objective.on_epoch_start([batch], 0)
    full = objective(batch)
    with torch.autocast("cpu", torch.bfloat16):
        low = objective(batch)
    for name in ("iccnn_part", "iccnn_class"):
        assert low[name].dtype == torch.float32
        torch.testing.assert_close(low[name], full[name], rtol=0.01, atol=0)


FAMILIES = [
    ("torchvision/vgg11_bn", "features.8"),
    ("torchvision/resnet18", "layer3.1.conv2"),
    ("torchvision/mobilenet_v2", "features.14"),
    ("torchvision/densenet121", "features.denseblock2.denselayer3.conv2"),
    ("timm/vgg11", None),
    ("timm/resnet10t", "layer3"),
    ("timm/mobilenetv3_small_050", None),
    ("timm/densenet121", "features.transition2.conv"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), FAMILIES)
def test_iccnn_trains_a_layer_of_every_family(name: str, layer: str | None) -> None:
    model, spec = sl.load_model(name, classes=3)
    objective = sl.Objective(model, guide := create_guide("iccnn", groups=4), layer=layer, input_spec=spec)
    batch = batch_of(6, side=64, dtype=torch.float32)
    objective.on_epoch_start([batch], 0)
    output = objective(batch)
    output["loss"].backward()
    assert len(guide.filter_groups.unique()) == 4
    assert 1 < output["iccnn/coherence"] < 4
    assert objective.layer is not None
    target = model.get_submodule(objective.layer)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in [*target.parameters(), *model.parameters()])


def test_iccnn_with_invalid_options_or_layers_raises() -> None:
    for options, message in [
        ({"groups": 1}, "groups is 1; expected a whole number >= 2"),
        ({"interval": 0}, "interval is 0; expected a whole number >= 1"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"class_weight": float("nan")}, "class_weight is nan"),
    ]:
        with pytest.raises(SightlineError, match=message):
            create_guide("iccnn", **options)
    batch = batch_of(4, dtype=torch.float32)
    with pytest.raises(
        SightlineError, match="no groups of filters yet, and the layer has 4 filters; call on_epoch_start"
    ):
        sl.Objective(TinyCNN(), ICCNN(groups=2))(batch)
    with pytest.raises(SightlineError, match="groups is 16; the layer has 4 filters"):
        sl.Objective(TinyCNN(), ICCNN()).on_epoch_start([batch], 0)
    with pytest.raises(SightlineError, match="the loader gave no batch"):
        sl.Objective(TinyCNN(), ICCNN(groups=2)).on_epoch_start([], 0)
    with pytest.raises(SightlineError, match="no image was given"):
        sl.Objective(TinyCNN(), ICCNN(groups=2, category=7)).on_epoch_start([batch], 0)


# ---- resuming ----


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_has_the_groups_of_one_that_went_on(stop: int, tmp_path: Path) -> None:
    batch = batch_of(9, dtype=torch.float32)
    batches = [part(batch, slice(0, 5)), part(batch, slice(5, 9))]

    def begin() -> tuple[sl.Objective, torch.optim.Optimizer]:
        torch.manual_seed(1)
        objective = sl.Objective(TinyCNN(width=9), ICCNN(groups=3, weight=1.0), layer="features.1")
        return objective, torch.optim.Adam(objective.parameters(), 0.02)

    def train(objective: sl.Objective, optimizer: torch.optim.Optimizer, epochs: range) -> list[Tensor]:
        history = []
        for epoch in epochs:
            objective.on_epoch_start(batches, epoch)
            history.append(objective.guides[0].filter_groups.clone())
            for each in batches:
                optimizer.zero_grad()
                objective(each)["loss"].backward()
                optimizer.step()
        return history

    whole, optimizer = begin()
    before = train(whole, optimizer, range(stop))
    write_state(tmp_path / "state", [whole], optimizer, State())
    resumed, own = begin()
    checkpoint = Checkpoint(tmp_path / "state")
    checkpoint.restore_objectives([resumed])
    checkpoint.restore_optimizer(own)
    assert torch.equal(resumed.guides[0].filter_groups, before[-1])
    assert resumed.guides[0].filter_groups.dtype == torch.int64
    after = train(whole, optimizer, range(stop, 6))
    for ours, expected in zip(train(resumed, own, range(stop, 6)), after, strict=True):
        assert torch.equal(ours, expected)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not list(resumed.guides.buffers())  # which DDP would take from the first process


# ---- two processes ----


def setting() -> tuple[sl.Objective, sl.Batch]:
    torch.manual_seed(3)
    guide = ICCNN(groups=3, weight=0.5, class_weight=0.5, interval=1, category=1)
    return sl.Objective(TinyCNN(width=7).double(), guide, layer="features.1"), batch_of(7)


def two_epochs(wrapped: nn.Module, objective: sl.Objective, batch: sl.Batch) -> list[Tensor]:
    for epoch in range(2):
        objective.on_epoch_start([batch], epoch)
        objective.zero_grad()
        output = wrapped(batch)
        output["loss"].backward()
    gradients = gradients_of(objective.model)
    objective.eval()(batch)  # processes need not have as many batches here
    return [objective.guides[0].filter_groups.clone(), output["iccnn/coherence"], *gradients]


def in_one_of_two(rank: int, folder: str) -> None:
    join(rank, folder)
    objective, batch = setting()
    mine = share(batch, rank)  # three images and four
    torch.save(two_epochs(DistributedDataParallel(objective), objective, mine), Path(folder, f"{rank}.pt"))
    if rank == 1:
        objective(mine)  # evaluation alone
        mine.images[:, :, 0] = 1e300
    try:
        objective.on_epoch_start([mine] if rank else [], 2)
    except SightlineError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_groups_and_gradients_of_one(tmp_path: Path) -> None:
    in_two(in_one_of_two, tmp_path)
    objective, batch = setting()
    one = two_epochs(objective, objective, batch)
    for rank in range(2):
        for ours, expected in zip(torch.load(tmp_path / f"{rank}.pt"), one, strict=True):
            torch.testing.assert_close(ours, expected)
    assert "the loader gave no batch" in (tmp_path / "0.txt").read_text()
    assert "another process" in (tmp_path / "1.txt").read_text()


# ---- training ----


def digits(start: int, stop: int) -> sl.Batch:
    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images[start:stop]).float().view(-1, 1, 8, 8) / 16
    return sl.Batch(pixels.expand(-1, 3, -1, -1), torch.from_numpy(labels[start:stop]).long())


@pytest.mark.slow
def test_training_makes_groups_more_coherent_and_keeps_the_accuracy() -> None:
    train, test = digits(0, 1000), digits(1000, 1500)

    def regrouped(model: nn.Sequential) -> float:
        """The coherence of groups that are made for these filters, in images that none was trained with."""
        with torch.no_grad():
            similarity = filter_similarity(model.eval()[0](test.images))
        model.train()
        return part_coherence(similarity, membership(spectral_groups(similarity, 6), 6)).item()

    def trained(guide: ICCNN | None) -> tuple[float, float, float]:
        """Coherence at the start and at the end, and accuracy."""
        torch.manual_seed(0)
        features = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        )  # fmt: skip
        model = nn.Sequential(features, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(96, 10))
        objective = sl.Objective(model, guide, layer="0")
        start = regrouped(model)
        optimizer = torch.optim.Adam(objective.parameters(), 0.01)
        for epoch in range(12):
            objective.on_epoch_start([train], epoch)
            for rows in torch.randperm(1000).split(50):
                optimizer.zero_grad()
                objective(sl.Batch(train.images[rows], train.labels[rows]))["loss"].backward()
                optimizer.step()
        with torch.no_grad():
            accuracy = (model.eval()(test.images).argmax(1) == test.labels).float().mean().item()
        return start, regrouped(model), accuracy

    _, plain, plain_accuracy = trained(None)
    start, end, accuracy = trained(ICCNN(groups=6))
    assert end > start + 0.3
    assert end > plain + 0.3
    assert accuracy > plain_accuracy - 0.03 > 0.85
