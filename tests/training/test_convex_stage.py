"""Stages whose head is fitted to its optimum: what is fitted, to what, and what is left as it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import tv_tensors

import sightline as sl
from fitted import assert_same_logits, by_sklearn
from networks import TinyCNN
from sightline.data import DATASETS, Sample, Splits
from sightline.data.dataset import InMemory
from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.heads import STRENGTHS, fit_attention, fit_linear, fit_prototypes
from sightline.models.gates import insert_pooling_gate
from sightline.runs import Recipe, load_run, read_recipe
from sightline.training import train
from sightline.training.build import build
from sightline.training.frozen_features import LastMap, inputs_of, last_layer
from tiny import SIDE, Squares, recipe


class Uneven(Squares):
    """Squares of which one in five is of the second group."""

    def __init__(self, images: int, seed: int) -> None:
        super().__init__(images, seed)
        self.groups = ["many", "few"]
        self.group_ids = (torch.arange(images) % 5 == 0).long()

    def load(self, index: int) -> Sample:
        return replace(super().load(index), group=int(index % 5 == 0))


class Boxed(Squares):
    """Squares with a box where they have a mask."""

    def __init__(self, images: int, seed: int) -> None:
        super().__init__(images, seed)
        self.has_boxes = self.has_mask

    def load(self, index: int) -> Sample:
        sample, top, left = super().load(index), index % 16, 3 * index % 16
        box = torch.tensor([[left, top, left + 12, top + 12]], dtype=torch.float32)
        boxes = tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=(SIDE, SIDE))  # type: ignore[call-overload]
        return replace(sample, boxes=boxes if self.has_mask[index] else None)


@DATASETS.register("boxed-squares")
def boxed_squares() -> Splits:
    """Squares with boxes."""
    return Splits({"train": Boxed(20, 0), "val": Squares(8, 1), "test": Squares(8, 2)})


class Mislabelled(Uneven):
    """Squares whose labels are wrong in every third image."""

    def load(self, index: int) -> Sample:
        sample = super().load(index)
        return replace(sample, label=1 - sample.label) if index % 3 == 0 else sample


def several(images: int, seed: int, absent: bool) -> InMemory:
    """Squares that are labelled red or not, and by whether their index is a multiple of three; `absent` = nobody is red."""
    samples = [Squares(images, seed)[index] for index in range(images)]
    labels = [torch.tensor([int(s.label == 0 and not absent), int(s.index % 3 == 0)]) for s in samples]
    made = [replace(s, label=label, group=None, mask=None) for s, label in zip(samples, labels)]
    return InMemory(made, ["red", "third"], f"several {seed}")


@DATASETS.register("two-validations")
def two_validations() -> Splits:
    """Squares with a second validation split, whose labels are wrong in a third of its images."""
    return Splits({"train": Uneven(30, 0), "val": Uneven(20, 1), "val_other": Mislabelled(31, 3)})


@DATASETS.register("several-squares")
def several_squares(absent: bool = False) -> Splits:
    """Squares with several labels."""
    return Splits({"train": several(20, 0, absent), "val": several(9, 1, False), "test": several(9, 2, False)})


@DATASETS.register("uneven-squares")
def uneven_squares(validation: bool = True) -> Splits:
    """Squares in two groups."""
    splits = {"train": Uneven(30, 0), "test": Uneven(8, 2)}
    return Splits(splits | ({"val": Uneven(20, 1)} if validation else {}))


def convex(guide: Any = None, data: Any = "squares", model: Any = "sightline/small_cnn", **stage: Any) -> Recipe:
    return recipe(data=data, model=model, guide=guide, stages=[{"fit": "convex", "strength": 0.1, **stage}])


def seen(r: Recipe, passes: int) -> tuple[nn.Module, sl.Batch]:
    """The network as it is before training, and the batches of some epochs as the guide changes them."""
    parts = build(r)
    objective, loader = parts.objectives[0], parts.train_loader(0, 1)
    objective.train()
    batches = []
    for number in range(passes):
        loader.sampler.set_epoch(number)
        objective.epoch = number
        for batch in loader:
            changed = objective.transform(batch)
            batches.append((parts.spec.normalize(changed.images), changed))
    return parts.model.eval(), batches


def features_of(model: nn.Module, images: Tensor) -> Tensor:
    """The last feature map of the small network."""
    with torch.no_grad():
        return model.blocks(model.stem(images))


def test_the_head_is_scikit_learns_on_changed_images_of_all_passes(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    r = convex({"name": "random_background", "probability": 0.5}, passes=2)
    model, batches = seen(r, 2)
    rows = torch.cat([features_of(model, images).mean((2, 3)) for images, _ in batches])
    labels = torch.cat([batch.labels for _, batch in batches])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = train(r, output=tmp_path / "run")
    after = load_file(run.last)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"head.weight", "head.bias"}
    head = after["head.weight"].double(), after["head.bias"].double()
    expected = by_sklearn(rows.double(), labels, 0.1 / 2)  # one weight, where two logits share it
    logits = rows.double() @ head[0].T + head[1]
    torch.testing.assert_close((logits[:, 1] - logits[:, 0])[:, None], rows.double() @ expected[0].T + expected[1],
                               rtol=1e-3, atol=1e-3)  # fmt: skip
    (row,) = run.rows
    assert float(row["train/accuracy"]) == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert float(row["train/loss"]) == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-5)
    assert float(row["train/strength"]) == 0.1
    assert (row["epoch"], row["step"]) == ("1", "0")
    assert "val/accuracy" in row
    assert run.facts["images_seen"] == 40
    assert evaluate(run, ["test"], ["gradcam"], ["accuracy"], device="cpu")["test"].facts["n"] == 8


@pytest.mark.parametrize(("region", "layer"), [("masks", None), ("boxes", None), ("masks", "blocks.1")])
def test_attention_pooling_is_fitted_and_then_the_head_behind_it(
    region: str, layer: str | None, tmp_path: Path
) -> None:
    head = {"name": "attention_pooling", "region": region, "strength": 0.05, "layer": layer}
    r = convex({"name": "random_background", "probability": 0.5}, "boxed-squares", passes=2, head=head)
    model, batches = seen(r, 2)
    maps = torch.cat([features_of(model, images) for images, _ in batches])
    with torch.no_grad():
        read = maps if layer is None else torch.cat([model.blocks[:2](model.stem(images)) for images, _ in batches])
    objects = torch.cat([(batch.masks == 1) & batch.has_mask[:, None, None] for _, batch in batches]).float()
    present = torch.cat([batch.has_mask for _, batch in batches])[:, None, None]
    inside = F.avg_pool2d(objects, 32 // read.shape[-1])
    outside = (1 - inside) * present
    run = train(r, output=tmp_path / "run")
    loaded = load_run(run.path, device="cpu").model
    key = next(name for name in loaded.state_dict() if name.endswith("attention_pooling.weight")).removesuffix("weight")
    weight, bias = loaded.state_dict()[f"{key}weight"], loaded.state_dict()[f"{key}bias"]
    expected = fit_attention(read, inside, outside, strength=0.05)
    torch.testing.assert_close((weight.double(), bias.double()), expected, rtol=1e-2, atol=1e-3)

    squares = (torch.einsum("nchw,c->nhw", read, weight[0]) + bias).sigmoid() ** 2
    squares = F.avg_pool2d(squares, read.shape[-1] // maps.shape[-1])
    rows = torch.einsum("nchw,nhw->nc", maps, squares / squares.sum((1, 2), keepdim=True))
    linear = fit_linear(rows, torch.cat([batch.labels for _, batch in batches]), strength=0.1)
    assert_same_logits((loaded.head.weight.double(), loaded.head.bias.double()), linear, rows)
    with torch.no_grad():
        logits = torch.cat([loaded(images) for images, _ in batches])
    torch.testing.assert_close(logits, rows @ loaded.head.weight.T + loaded.head.bias, rtol=1e-4, atol=1e-4)
    assert sl.explain(loaded, batches[0][0], "attention_pooling").max() == 1


def test_attention_learns_to_leave_out_what_is_to_avoid(tmp_path: Path) -> None:
    source = {"name": "boxed-squares"}
    data = {"name": "marked", "source": source, "mark": {"kind": "patch", "size": 0.3}, "tests": ["same"]}
    head = {"name": "attention_pooling", "region": "avoid", "strength": 0.05}
    r = convex(data=data, passes=2, head=head)
    model, batches = seen(r, 2)
    maps = torch.cat([features_of(model, images) for images, _ in batches])
    marks = torch.cat([batch.avoid == 1 for _, batch in batches]).float()
    covered = F.avg_pool2d(marks, 32 // maps.shape[-1])
    assert 0.02 < covered.mean() < 0.2
    run = train(r, output=tmp_path / "run")
    state = load_file(run.last)
    key = next(name for name in state if name.endswith("attention_pooling.weight")).removesuffix("weight")
    found = state[f"{key}weight"].double(), state[f"{key}bias"].double()
    torch.testing.assert_close(found, fit_attention(maps, 1 - covered, covered, strength=0.05), rtol=1e-2, atol=1e-3)


def test_prototypes_are_means_over_the_objects(tmp_path: Path) -> None:
    r = convex(head="prototype", strength="auto")
    model, batches = seen(r, 1)
    maps = torch.cat([features_of(model, images) for images, _ in batches])
    objects = torch.cat([(batch.masks == 1) & batch.has_mask[:, None, None] for _, batch in batches]).float()
    inside = F.avg_pool2d(objects, 32 // maps.shape[-1])
    total = inside.sum((1, 2))[:, None]
    over_object = torch.einsum("nchw,nhw->nc", maps, inside) / total.clamp_min(1e-9)
    rows = torch.where(total > 0, over_object, maps.mean((2, 3)))
    weight, bias = fit_prototypes(rows, torch.cat([batch.labels for _, batch in batches]))
    state = load_file(train(r, output=tmp_path / "run").last)
    torch.testing.assert_close(state["head.weight"].double(), weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(state["head.bias"].double(), bias, rtol=1e-3, atol=1e-3)


def test_balanced_groups_count_alike_and_the_worst_chooses_the_strength(tmp_path: Path) -> None:
    r = convex(data="uneven-squares", balance_by="groups", strength="auto", passes=2)
    model, batches = seen(r, 2)
    rows = torch.cat([features_of(model, images).mean((2, 3)) for images, _ in batches])
    labels = torch.cat([batch.labels for _, batch in batches])
    few = torch.cat([batch.indices for _, batch in batches]) % 5 == 0
    run = train(r, output=tmp_path / "run")
    strength = float(run.rows[0]["train/strength"])
    assert strength in STRENGTHS
    weights = torch.where(few, 0.5 / few.sum(), 0.5 / (~few).sum())
    state = load_file(run.last)
    head = state["head.weight"].double(), state["head.bias"].double()
    assert_same_logits(head, fit_linear(rows, labels, weights, strength=strength), rows)
    assert float(run.rows[0]["train/chosen_by"]) == pytest.approx(
        float(run.rows[0]["val/worst_group_accuracy"]), abs=1e-6
    )


@pytest.mark.parametrize("figure", ["accuracy", "worst_class_accuracy", "worst_group_accuracy", "loss"])
def test_the_strength_is_chosen_as_the_best_checkpoint_is(figure: str, tmp_path: Path) -> None:
    changes = {"save_best": {"metric": f"val_other/{figure}", "mode": "min" if figure == "loss" else "max"}}
    r = convex(data="two-validations", strength="auto")
    run = train(Recipe(**(r.model_dump(mode="json") | changes)), output=tmp_path / "run")
    row = run.rows[0]
    measured = "accuracy" if figure == "loss" else figure
    assert float(row["train/chosen_by"]) == pytest.approx(float(row[f"val_other/{measured}"]), abs=1e-6)
    assert row["train/chosen_by"] != row[f"val/{measured}"]


def test_several_labels_are_a_regression_each(tmp_path: Path) -> None:
    r = convex(data="several-squares", strength="auto")
    model, batches = seen(r, 1)
    rows = torch.cat([features_of(model, images).mean((2, 3)) for images, _ in batches])
    run = train(r, output=tmp_path / "run")
    state, strength = load_file(run.last), float(run.rows[0]["train/strength"])
    expected = fit_linear(rows, torch.cat([batch.labels for _, batch in batches]), strength=strength)
    logits = rows @ state["head.weight"].T + state["head.bias"]
    torch.testing.assert_close(logits.double(), rows.double() @ expected[0].T + expected[1], rtol=1e-3, atol=1e-3)


def test_convex_stage_combines_with_stages_by_gradients_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = {"fit": "convex", "strength": 0.1, "head": "attention_pooling"}
    stages = [{"epochs": 1, "lr": 1e-3}, fit, {"epochs": 1, "lr": 1e-3, "trainable": "head"}]
    r = recipe(model="sightline/small_cnn", guide=None, stages=stages)
    whole = train(r, output=tmp_path / "whole")
    assert [row["step"] for row in whole.rows] == ["3", "3", "6"]

    class Stop(Exception):
        pass

    for epoch in (1, 2):
        output = tmp_path / f"stopped-{epoch}"

        def stop(more: bool, output: Path = output, epoch: int = epoch) -> None:
            if len(sl.Run(output).rows) == epoch:
                raise Stop

        with pytest.raises(Stop):
            train(r, output=output, watch=stop)
        parts = train(r, output=output, resume=True)
        one, other = load_file(whole.last), load_file(parts.last)
        assert all(torch.equal(one[name], other[name]) for name in one)

    first = load_file(
        train(recipe(model="sightline/small_cnn", guide=None, stages=stages[:1]), output=tmp_path / "a").last
    )
    plain = load_file(train(recipe(model="sightline/small_cnn", guide=None, stages=[*stages[:1], fit | {"head": "linear"}]),
                            output=tmp_path / "b").last)  # fmt: skip
    assert {name for name in first if not torch.equal(first[name], plain[name])} == {"head.weight", "head.bias"}


# ---- the parts ----


class ConvolutionHead(nn.Module):
    """A head that is a 1 x 1 convolution before the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)).mean((2, 3))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("make", "side"),
    [
        (TinyCNN, 32),
        (ConvolutionHead, 32),
        (lambda: timm.create_model("test_convnext", num_classes=3), 64),
        (lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, depths=(1, 1), embed_dim=24), 224),
    ],
    ids=["tiny", "convolution", "convnext", "swin"],
)
def test_layers_after_the_last_map_equal_the_model(make: Any, side: int, gated: bool) -> None:
    torch.manual_seed(0)
    model = make().eval()
    images = torch.rand(3, 3, side, side)
    gate = None
    if gated:
        _, gate = insert_pooling_gate(model)
        nn.init.normal_(gate.weight)
    with torch.no_grad():
        last, layer = LastMap(model, torch.zeros(1, 3, side, side)), last_layer(model)
        maps, _ = last.of(images)
        factor = (
            torch.ones(())
            if gate is None
            else gate.factor(F.linear(maps.movedim(1, -1), gate.weight, gate.bias))[..., 0]
        )
        rows = last.head_inputs(maps * factor.reshape(-1, *maps.shape[2:])[:, None] if gated else maps)
        torch.testing.assert_close(rows, inputs_of(layer, model, images), rtol=1e-4, atol=1e-5)
        logits = rows @ layer.weight.flatten(1).T + layer.bias
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)


class Scaled(TinyCNN):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class Bare(TinyCNN):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(4, 3, bias=False)


@pytest.mark.parametrize(("model", "message"), [(Scaled(), "changes what its last layer"), (Bare(), "with a bias")])
def test_heads_that_are_not_the_logits(model: nn.Module, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        last_layer(model)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"lr": 1.0}, "epochs missing in a stage; only fit: convex needs none"),
        ({"fit": "gradient"}, "epochs and lr missing"),
        ({"fit": "convex", "lr": 0.1}, "lr is 0.1 in a stage with fit: convex"),
        ({"fit": "convex", "epochs": 2}, "epochs is 2 in a stage with fit: convex"),
        ({"fit": "convex", "trainable": "all"}, "trainable is 'all'; fit: convex trains the head"),
        ({"epochs": 1, "lr": 1.0, "passes": 2}, "passes is 2 in a stage with fit: gradient"),
        ({"epochs": 1, "lr": 1.0, "head": "prototype"}, "head is .* in a stage with fit: gradient"),
        ({"fit": "convex", "strength": 0}, "greater than 0"),
        ({"fit": "convex", "strength": "best"}, "strength"),
        ({"fit": "convex", "head": "cosine"}, "'linear', 'attention_pooling' or 'prototype'"),
        ({"fit": "convex", "head": {"name": "linear", "regoin": "boxes"}}, "regoin"),
        ({"fit": "convex", "passes": 0}, "passes is 0"),
    ],
)
def test_keys_that_do_not_go_together(stage: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        recipe(stages=[stage])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guide": "segment_overlap"}, "the guide SegmentOverlap trains by gradients"),
        ({"guide": "attention_pooling"}, "the guide AttentionPooling trains by gradients"),
        ({"guide": {"name": "group_dro", "groups": 2}}, "set balance_by: groups"),
        ({"head": "attention_pooling", "model": "sightline/lenet5"}, "does not classify by the mean of a feature map"),
        ({"head": "prototype", "model": "sightline/lenet5"}, "does not classify by the mean of a feature map"),
        ({"data": {"name": "uneven-squares", "validation": False}, "strength": "auto"}, "has no validation split"),
        (
            {"data": {"name": "several-squares", "absent": True}},
            "1 classes are shown by none or all of .* such as 'red'",
        ),
        ({"data": "several-squares", "head": "prototype"}, "prototype needs images with one label each"),
        ({"data": "several-squares", "head": "attention_pooling"}, "needs masks, and none of the 20 training images"),
        ({"head": {"name": "attention_pooling", "region": "boxes"}}, "needs boxes, and none of the 20 training images"),
        (
            {"head": {"name": "prototype", "region": "avoid"}},
            "needs regions to avoid, and none of the 20 .* data.avoid",
        ),
    ],
)
def test_convex_stage_invalid_keys_raise_before_a_run_begins(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        build(convex(**changes))


def test_a_recipe_is_written_and_read_again(tmp_path: Path) -> None:
    r = convex(head="attention_pooling", passes=3)
    (tmp_path / "r.yaml").write_text(r.to_yaml())
    assert read_recipe(tmp_path / "r.yaml") == r
    assert r.stages[0].trainable == "head"


def test_any_model_has_a_linear_head(tmp_path: Path) -> None:
    run = train(convex(model="sightline/lenet5", guide="random_background"), output=tmp_path / "run")
    assert run.facts["status"] == "finished"
