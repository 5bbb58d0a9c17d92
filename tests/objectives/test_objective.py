"""The objective: composition, sharing, accumulation, chunks of views, and other engines' demands."""

import copy
import pickle

import pytest
import torch
import torchvision
from torch import Tensor, nn

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.data.batch import Batch
from sightline.errors import NonFiniteLossError, SightlineError
from sightline.guides import Guide, from_config


class Shrink(Guide):
    """A term of its own: the squared logits."""

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        return {"shrink": torch.ones(len(batch), dtype=torch.bool)}

    def losses(self, context) -> dict[str, Tensor]:
        return {"shrink": context.logits.pow(2).sum(1)}


class Reweight(Guide):
    """Weights 1, 2, 3, ... of the task loss."""

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor:
        return torch.arange(1.0, len(batch) + 1, dtype=logits.dtype)


def gradients(objective: sl.Objective, *batches: Batch) -> list[Tensor]:
    objective.zero_grad()
    for batch in batches:
        objective(batch)["loss"].backward()
    return [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in objective.parameters()]


def test_objective_without_a_guide_is_the_cross_entropy() -> None:
    model, batch = TinyCNN().double(), batch_of()
    output = sl.Objective(model)(batch)
    torch.testing.assert_close(output["loss"], nn.functional.cross_entropy(model(batch.images), batch.labels))
    assert set(output) == {"loss", "task", "logits"}


def test_a_criterion_of_ones_own_replaces_the_cross_entropy() -> None:
    model, batch = TinyCNN().double(), batch_of()
    count = len(batch)
    output = sl.Objective(model, task=lambda logits, labels: (logits**2).sum(1) + labels)(batch)
    expected = ((output["logits"] ** 2).sum(1) + batch.labels).mean()
    torch.testing.assert_close(output["loss"], expected)
    for returned in (torch.ones(()), torch.ones(count, 2), 1.0):
        with pytest.raises(SightlineError, match=rf"expected one loss for each image, \({count},\)"):
            sl.Objective(model, task=lambda logits, labels, returned=returned: returned)(batch)
    with pytest.raises(SightlineError, match="task and label_smoothing"):
        sl.Objective(model, task=nn.CrossEntropyLoss(reduction="none"), label_smoothing=0.1)


def test_guides_add_and_scale() -> None:
    model, batch = TinyCNN().double(), batch_of()
    output = sl.Objective(model, sl.SegmentOverlap() + 0.3 * Shrink())(batch)
    expected = output["task"] + output["segment_overlap"] + 0.3 * output["shrink"]
    torch.testing.assert_close(output["loss"], expected)
    twice = sl.Objective(model, 2 * (sl.SegmentOverlap(weight=0.5) + Shrink()))(batch)
    torch.testing.assert_close(twice["loss"], output["task"] + output["segment_overlap"] + 2 * output["shrink"])
    heavier = sl.Objective(model, sl.SegmentOverlap(beta=0.2), task_weight=3.0)(batch)
    torch.testing.assert_close(heavier["loss"], 3 * output["task"] + 0.8 * output["segment_overlap"])


def test_the_same_guide_twice_has_two_names() -> None:
    model, batch = TinyCNN().double(), batch_of()
    output = sl.Objective(model, sl.SegmentOverlap() + sl.SegmentOverlap(explainer="layercam", views=4))(batch)
    single = sl.Objective(model, sl.SegmentOverlap(explainer="layercam", views=4))(batch)
    torch.testing.assert_close(output["segment_overlap_2"], single["segment_overlap"])
    assert not torch.isclose(output["segment_overlap"], output["segment_overlap_2"])


def test_a_papers_own_mixing_does_not_compose() -> None:
    with pytest.raises(SightlineError, match="in a sum, give weight= instead"):
        sl.Objective(TinyCNN(), sl.SegmentOverlap(beta=0.5) + Shrink())


def test_two_reweighters_are_rejected() -> None:
    with pytest.raises(SightlineError, match="Reweight and Reweight both reweight samples"):
        sl.Objective(TinyCNN(), Reweight() + Reweight())


def test_sample_weights_weigh_the_task_loss() -> None:
    model, batch = TinyCNN().double(), batch_of()
    losses = nn.functional.cross_entropy(model(batch.images), batch.labels, reduction="none")
    weights = torch.arange(1.0, 5, dtype=torch.float64)
    torch.testing.assert_close(sl.Objective(model, Reweight())(batch)["loss"], (weights * losses).sum() / weights.sum())


def test_one_forward_pass_serves_loss_and_maps() -> None:
    model, calls = TinyCNN(), []
    model.features.register_forward_hook(lambda *_: calls.append(1))
    objective = sl.Objective(model, sl.SegmentOverlap(views=8) + sl.SegmentOverlap(explainer="hirescam"))
    objective(batch_of(dtype=torch.float32))  # the first one finds the target layer besides
    calls.clear()
    objective(batch_of(dtype=torch.float32))
    assert len(calls) == 1


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_chunks_of_views_give_the_same_gradients(chunk: int) -> None:
    model, batch = TinyCNN().double(), batch_of()
    whole = gradients(sl.Objective(model, sl.SegmentOverlap(views=8)), batch)
    parts = gradients(sl.Objective(model, sl.SegmentOverlap(views=8), view_chunk=chunk), batch)
    for a, b in zip(whole, parts):
        torch.testing.assert_close(a, b)


def test_recomputed_chunks_count_once_in_batch_norm() -> None:
    model = torchvision.models.resnet18(num_classes=3).train()
    batch = batch_of(side=64, dtype=torch.float32)
    objective = sl.Objective(model, sl.SegmentOverlap(views=4), view_chunk=2)
    output = objective(batch)
    after_forward = copy.deepcopy(model.state_dict())
    output["loss"].backward()
    assert all(torch.equal(a, b) for a, b in zip(after_forward.values(), model.state_dict().values()))
    assert int(model.bn1.num_batches_tracked) == 2


def test_accumulated_batches_add_up_to_one_large_batch() -> None:
    torch.manual_seed(3)
    model, batch = TinyCNN().double(), batch_of(size=6)
    batch.has_mask = torch.tensor([True, False, True, True, True, True])
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.4))
    whole = gradients(objective, batch)
    assert batch.masks is not None
    parts = [
        Batch(batch.images[s], batch.labels[s], masks=batch.masks[s], has_mask=batch.has_mask[s])
        for s in (slice(0, 2), slice(2, 5), slice(5, 6))
    ]
    objective.zero_grad()
    counts = objective.counts(parts)
    losses = [objective(part, counts=counts)["loss"] for part in parts]
    torch.stack(losses).sum().backward()
    for a, p in zip(whole, objective.parameters()):
        torch.testing.assert_close(a, p.grad if p.grad is not None else torch.zeros_like(p))
    with pytest.raises(SightlineError, match="reweights samples"):
        sl.Objective(model, Reweight()).counts(parts)


def test_a_task_weight_of_zero_keeps_the_graph() -> None:
    objective = sl.Objective(TinyCNN(), sl.SegmentOverlap(beta=0.0))
    objective(batch_of(dtype=torch.float32))["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_no_grad_gives_values_without_a_graph() -> None:
    objective, batch = sl.Objective(TinyCNN(), sl.SegmentOverlap(views=2)), batch_of(dtype=torch.float32)
    with torch.no_grad():
        output = objective(batch)
    assert not output["loss"].requires_grad
    torch.testing.assert_close(output["loss"], objective(batch)["loss"].detach())
    assert output["maps"].shape == (4, 8, 8)


def test_a_loss_that_is_not_finite_names_the_images() -> None:
    class Explodes(TinyCNN):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.where(x.amax((1, 2, 3)) > 0.99999, torch.inf, 0.0)[:, None]

    batch = batch_of(dtype=torch.float32)
    batch.images[2, 0, 0, 0] = 1.0
    batch.indices = torch.tensor([10, 11, 12, 13])
    with pytest.raises(NonFiniteLossError, match=r"1 images is NaN or infinite \(indices \[12\]\)") as caught:
        sl.Objective(Explodes(), sl.SegmentOverlap())(batch)
    assert caught.value.indices == [12]


def test_objective_copies_pickles_and_keeps_the_names_of_the_model() -> None:
    model, batch = TinyCNN(), batch_of(dtype=torch.float32)
    objective = sl.Objective(model, sl.SegmentOverlap())
    assert objective.unwrap_model() is model
    assert [n.removeprefix("model.") for n, _ in objective.named_parameters()] == [
        n for n, _ in model.named_parameters()
    ]
    for other in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        assert other.model is not model
        torch.testing.assert_close(other(batch)["loss"], objective(batch)["loss"])
        for p in other.parameters():
            p.data.zero_()
    assert any(p.abs().sum() > 0 for p in model.parameters())


def test_bf16_autocast_trains_with_full_precision_maps() -> None:
    objective, batch = sl.Objective(TinyCNN(), sl.SegmentOverlap(views=2)), batch_of(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = objective(batch)
    output["loss"].backward()
    assert output["maps"].dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)


def test_a_transformer_with_fused_attention_trains() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3)
    assert model.blocks[0].attn.fused_attn
    nn.init.normal_(model.head.weight, std=0.1)
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.0))
    output = objective(batch_of(side=32, dtype=torch.float32))
    output["loss"].backward()
    assert model.blocks[-1].attn.qkv.weight.grad.abs().max() > 0
    assert model.patch_embed.proj.weight.grad.abs().max() > 0
    sl.check_model(model, images=torch.rand(1, 3, 32, 32))


def test_input_spec_normalises_inside() -> None:
    model, batch = TinyCNN().double(), batch_of()
    spec = sl.InputSpec((0.5,) * 3, (0.25,) * 3, (8, 8))
    inside = sl.Objective(model, sl.SegmentOverlap(), input_spec=spec)(batch)["loss"]
    outside = sl.Objective(model, sl.SegmentOverlap())(Batch((batch.images - 0.5) / 0.25, batch.labels, batch.masks))[
        "loss"
    ]
    torch.testing.assert_close(inside, outside)


def test_a_ddp_model_is_rejected() -> None:
    ddp = object.__new__(nn.parallel.DistributedDataParallel)
    with pytest.raises(SightlineError, match="wrap the Objective instead"):
        sl.Objective(ddp)


def test_eight_views_of_images_that_are_not_square_are_rejected() -> None:
    batch = Batch(torch.rand(2, 3, 8, 12), torch.tensor([0, 1]), masks=torch.ones(2, 8, 12, dtype=torch.uint8))
    sl.Objective(TinyCNN(), sl.SegmentOverlap(views=4))(batch)
    with pytest.raises(SightlineError, match="eight views need square"):
        sl.Objective(TinyCNN(), sl.SegmentOverlap(views=8))(batch)


# ---- guides from a recipe ----


def test_from_config_builds_the_guides_of_a_recipe() -> None:
    assert from_config(None) is None
    assert from_config("none") is None
    assert isinstance(from_config("segment_overlap"), sl.SegmentOverlap)
    scaled = from_config({"name": "segment_overlap", "views": 2, "scale": 0.5})
    several = from_config([{"name": "segment_overlap", "weight": 2.0}, "random_background"])
    batch = batch_of(dtype=torch.float32)
    model = TinyCNN()
    a, b = sl.Objective(model, scaled)(batch), sl.Objective(model, several).eval()(batch)
    torch.testing.assert_close(a["loss"], a["task"] + 0.5 * a["segment_overlap"])
    torch.testing.assert_close(b["loss"], b["task"] + 2 * b["segment_overlap"])
    with pytest.raises(SightlineError, match="has no name"):
        from_config({"beta": 0.5})
    with pytest.raises(SightlineError, match="did you mean 'segment_overlap'"):
        from_config("segment_overlp")
    with pytest.raises(SightlineError, match="did you mean 'views'"):
        from_config({"name": "segment_overlap", "view": 2})


# ---- can this model be trained? ----


def test_check_model_accepts_ordinary_models_and_does_not_change_them() -> None:
    model = torchvision.models.resnet18().train()
    sl.check_model(model, images=torch.rand(2, 3, 64, 64))
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_check_model_names_a_module_and_a_remedy() -> None:
    class WithSync(TinyCNN):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.SyncBatchNorm(4), *self.head)

    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(SightlineError, match=r"head.0 is a SyncBatchNorm after layer 'features'.*choose a later layer"):
        sl.check_model(WithSync(), "features", images)
    compiled_tail = TinyCNN()
    compiled_tail.head = torch.compile(compiled_tail.head)  # type: ignore[assignment]
    with pytest.raises(SightlineError, match="head is compiled"):
        sl.check_model(compiled_tail, "features", images)
    compiled_trunk = TinyCNN()
    compiled_trunk.features[0] = torch.compile(compiled_trunk.features[0], backend="eager")  # type: ignore[assignment]
    sl.check_model(compiled_trunk, "features", images)


def test_check_model_finds_what_has_no_double_backward() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g * 2

    class Model(TinyCNN):
        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(Once.apply(self.head(self.features(x))))

    with pytest.raises(SightlineError, match="cannot be differentiated"):
        sl.check_model(Model(), "features", torch.rand(1, 3, 8, 8))
