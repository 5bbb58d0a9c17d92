"""IMPACTX: its loss by hand, what each stage trains, where the maps come from, and the two controls."""

from dataclasses import replace

import pytest
import torch
from differences import check_gradients
from torch import nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.errors import SightlineError
from sightline.evaluation import evaluate_model
from sightline.guides import IMPACTX, create_guide
from sightline.guides.impactx import map_error
from sightline.network.branch import own_modules


def taught(size: int = 4) -> tuple[TinyCNN, sl.Batch]:
    torch.manual_seed(4)
    model, batch = TinyCNN().double(), batch_of(size)
    return model, replace(batch, maps=torch.randn(size, 8, 8, dtype=torch.float64))


# ---- the loss ----


def test_the_error_is_of_maps_divided_by_their_root_mean_square() -> None:
    maps = torch.tensor([[[2.0, -4.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])  # 36 / 4 is 3 squared
    predicted = torch.tensor([[[2 / 3, 2 / 3], [0.0, 4 / 3]], [[1.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(map_error(predicted, maps), torch.tensor([1.0, 0.25]))  # 1 of 4 pixels is off by 2, by 1
    for scale in (7, 1e-30):
        torch.testing.assert_close(map_error(predicted, scale * maps), map_error(predicted, maps))
    torch.testing.assert_close(map_error(torch.zeros(1, 2, 2), maps[:1]), torch.ones(1))


@pytest.mark.parametrize("features", [False, True])
def test_impactx_loss_follows_the_equations(features: bool) -> None:
    model, batch = taught()
    objective = sl.Objective(model, IMPACTX(weight=0.6, size=8, features=features))
    branch = model.two_branch
    output = objective(batch)
    logits = model(batch.images)
    task = -logits.log_softmax(1)[range(4), batch.labels].mean()
    predicted = branch.decoder(branch.lep(batch.images))
    targets = batch.maps / batch.maps.square().mean((1, 2), keepdim=True).sqrt()
    error = ((predicted - targets) ** 2).mean()
    torch.testing.assert_close(output["task"], task.detach())
    torch.testing.assert_close(output["impactx"], error.detach())
    torch.testing.assert_close(output["loss"], task + 0.6 * error)


def test_gradients_of_every_parameter_match_finite_differences() -> None:
    model, batch = taught(size=2)
    objective = sl.Objective(model, IMPACTX(size=8, freeze=False))
    seen = check_gradients(objective, batch)
    assert {"features.0.weight", "two_branch.lep.trunk.features.0.weight", "two_branch.classifier.weight"} <= seen
    assert "two_branch.decoder.output.weight" in seen


# ---- the leverage of the explanation ----


@pytest.mark.parametrize("classes", [1, 3])
def test_the_gradient_ratio_is_that_of_the_two_gradients_at_the_code(classes: int) -> None:
    model, batch = taught()
    model.classifier = nn.Linear(model.classifier.in_features, classes).double()
    batch = replace(batch, labels=torch.tensor([0, 1, 1, 0]))
    objective = sl.Objective(model, IMPACTX(weight=0.3, size=8))
    found = objective(batch)["impactx/gradient_ratio"]
    branch = model.two_branch
    code = branch.lep(batch.images)
    handle = branch.lep.register_forward_hook(lambda module, args, output: code)
    logits = model(batch.images)
    handle.remove()
    logits = torch.cat([torch.zeros_like(logits), logits], 1) if classes == 1 else logits
    task = -logits.log_softmax(1)[range(4), batch.labels].mean()
    error = map_error(branch.decoder(code), batch.maps).mean()
    by_task, by_error = (torch.autograd.grad(part, code, retain_graph=True)[0] for part in (task, error))
    torch.testing.assert_close(found, by_task.norm() / by_error.norm())
    with torch.no_grad():
        assert "impactx/gradient_ratio" not in objective(batch)


@pytest.mark.parametrize("size", [32, 96])
def test_the_explanation_reaches_the_encoder_from_the_first_step(size: int) -> None:
    torch.manual_seed(0)
    model = TinyCNN(classes=10)
    maps = torch.nn.functional.interpolate(torch.randn(16, 1, 4, 4), (size, size), mode="bilinear")[:, 0]
    batch = sl.Batch(torch.rand(16, 3, size, size), torch.randint(10, (16,)), maps=maps)
    ratio = sl.Objective(model, IMPACTX(size=size))(batch)["impactx/gradient_ratio"]
    assert 0.05 < ratio < 20  # with PyTorch's own initialization thousands


def test_without_maps_the_term_counts_no_image_and_keeps_the_graph() -> None:
    model, batch = taught()
    objective = sl.Objective(model, IMPACTX(size=8, weight=0.0))
    output = objective(replace(batch, maps=None))
    assert int(output["n/impactx/unannotated"]) == 4
    output["loss"].backward()
    assert all(p.grad is not None for p in model.two_branch.parameters())
    torch.testing.assert_close(output["loss"].detach(), output["task"])


# ---- the stages ----


class WithNorm(TinyCNN):
    """Has running statistics and dropout, which a frozen model keeps still."""

    def __init__(self) -> None:
        super().__init__()
        self.features.insert(1, nn.BatchNorm2d(4))
        self.head.append(nn.Dropout(0.5))


def steps(objective: sl.Objective, batch: sl.Batch, count: int = 3) -> None:
    objective.train()
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(count):
        objective(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


def test_impactx_in_two_stages_trains_only_the_branch_in_the_second() -> None:
    torch.manual_seed(0)
    model, (_, batch) = WithNorm().double(), taught()
    objective = sl.Objective(model, IMPACTX(size=8))
    own = set(own_modules(model))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    steps(objective, batch)
    after = model.state_dict()
    for key in before:
        changed = not torch.equal(before[key], after[key])
        if not key.startswith("two_branch."):
            assert not changed, key
        elif key.endswith(("weight", "running_mean")):
            assert changed, key
    assert "two_branch" not in own
    assert model.two_branch.lep.trunk.head[4].training  # the branch's own dropout works while it learns


def test_impactx_in_a_single_stage_trains_all_of_the_network() -> None:
    torch.manual_seed(0)
    model, (_, batch) = WithNorm().double(), taught()
    before = {key: value.clone() for key, value in model.named_parameters()}
    steps(sl.Objective(model, IMPACTX(size=8, freeze=False, teacher="gradcam")), replace(batch, maps=None))
    del before["features.0.bias"]  # which the batch norm behind it takes away
    for key, value in before.items():
        assert not torch.equal(value, dict(model.named_parameters())[key]), key
    assert model.features[1].num_batches_tracked > 0


# ---- the maps ----


def test_a_teacher_explains_the_whole_model_of_the_moment_for_the_label() -> None:
    model, batch = taught()
    options = {"name": "partition_shap", "evaluations": 20, "raw": True, "masker": 0.5}
    objective = sl.Objective(model, IMPACTX(size=8, freeze=False, teacher=options)).train()
    for _ in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        explainer = sl.create_explainer("partition_shap", evaluations=20, raw=True, masker=0.5)
        maps = explainer(model, batch.images, batch.labels, None, None)
        found = objective(replace(batch, maps=None))["impactx"]
        predicted = model.two_branch.decoder(model.two_branch.lep(batch.images))
        torch.testing.assert_close(found, map_error(predicted, maps.to(predicted)).mean().detach())


def test_shuffled_maps_are_all_there_and_none_is_an_images_own() -> None:
    model, batch = taught(size=5)
    guide = IMPACTX(size=8, shuffle_maps=True)
    objective = sl.Objective(model, guide)
    orders = set()
    for epoch in range(20):
        objective.on_epoch_start([], epoch)
        maps = guide.transform(batch, objective).maps
        source = [[torch.equal(a, b) for b in batch.maps].index(True) for a in maps]
        assert sorted(source) == list(range(5))
        assert all(place != own for own, place in enumerate(source))
        again = guide.transform(batch, objective).maps
        assert torch.equal(maps, again)  # a resumed run shuffles as the first did
        orders.add(tuple(source))
    assert len(orders) > 5
    alone = sl.Batch(batch.images[:1], batch.labels[:1], maps=batch.maps[:1])
    assert torch.equal(guide.transform(alone, objective).maps, alone.maps)


def test_the_controls_have_the_same_parameters() -> None:
    counts, weights = set(), []
    for options in ({}, {"weight": 0.0}, {"shuffle_maps": True}):
        torch.manual_seed(0)
        model = TinyCNN()
        sl.Objective(model, IMPACTX(size=8, **options))
        counts.add(sum(parameter.numel() for parameter in model.parameters()))
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert len(counts) == 1
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_the_size_follows_the_input_spec_and_the_option_goes_first() -> None:
    spec = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (24, 24))
    for given, size in ((None, 24), (8, 8)):
        model = TinyCNN()
        sl.Objective(model, IMPACTX(size=given), input_spec=spec)
        assert model.two_branch.decoder.size == size
    with pytest.raises(SightlineError, match="24 x 32"):
        sl.Objective(TinyCNN(), IMPACTX(), input_spec=sl.InputSpec((0.5,) * 3, (0.5,) * 3, (24, 32)))


def test_raw_maps_are_signed_as_they_are_predicted() -> None:
    model, batch = taught()
    sl.Objective(model, IMPACTX(size=8))
    branch = model.eval().two_branch
    expected = branch.decoder(branch.lep(batch.images)).detach()
    found = sl.explain(model, batch.images, sl.create_explainer("impactx", raw=True))
    torch.testing.assert_close(found, expected)
    assert found.min() < 0


def test_impactx_without_size_or_maps_raises() -> None:
    model, batch = taught()
    with pytest.raises(SightlineError, match="does not declare its input's size"):
        sl.Objective(TinyCNN(), IMPACTX())
    objective = sl.Objective(model, IMPACTX(size=8)).train()
    with pytest.raises(SightlineError, match="impactx learns maps, and the batch has none"):
        objective(replace(batch, maps=None))
    with pytest.raises(SightlineError, match="give the guide size="):
        sl.Objective(TinyCNN().double(), IMPACTX(size=16))(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -0.1}, "weight is -0.1"),
        ({"size": 4}, "size is 4"),
        ({"teacher": "gradcam"}, "freeze=True"),
        ({"teacher": "grad", "freeze": False}, "gradcam"),
        ({"teacher": {"options": 3}, "freeze": False}, "expected an explainer's name"),
        ({"lambda": 1}, "weight"),
    ],
)
def test_impactx_invalid_options_raise(options: dict, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        create_guide("impactx", **options)


# ---- evaluation ----


def test_the_models_own_maps_count_in_an_evaluation() -> None:
    model, batch = taught()
    sl.Objective(model, IMPACTX(size=8))
    found = evaluate_model(model, [batch], ["impactx", "gradcam"], {"average_drop": {}, "morf": {"square": 2}})
    columns = {result.column: result for result in found.results}
    assert columns["average_drop@impactx"].n == 4
    assert 0 <= columns["morf@impactx"].value <= 1
