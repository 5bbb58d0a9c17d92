"""Deep features and what is kept of them for each class."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision import tv_tensors

import sightline as sl
from networks import InPlaceAfter, TinyCNN
from sightline._core.seeding import derive_seed
from sightline.data.dataset import InMemory, Sample
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.network.features import ClassFeatures, DeepFeatures, class_features

SPEC = sl.InputSpec((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (8, 8))
LABELS = torch.tensor([0, 3, 0, 1, 1, 0, 3])  # no image of class 2


def batches(size: int, order: Tensor | None = None, dtype: torch.dtype = torch.float64) -> Iterator[sl.Batch]:
    """The same seven images in batches of any size and order."""
    images = torch.rand(7, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))
    order = torch.arange(7) if order is None else order
    for start in range(0, 7, size):
        rows = order[start : start + size]
        yield sl.Batch(images[rows], LABELS[rows], indices=rows + 100)


# ---- deep features ----


def test_deep_features_are_what_enters_the_classifier() -> None:
    model, x = TinyCNN(), torch.rand(2, 3, 8, 8)
    features = DeepFeatures(model)
    torch.testing.assert_close(features(x), model.head(model.features(x)))
    assert features.place == "input of classifier"
    torch.testing.assert_close(DeepFeatures(model, "logits")(x), model(x))
    torch.testing.assert_close(DeepFeatures(model, "features")(x), model.features(x).flatten(1))
    torch.testing.assert_close(DeepFeatures(model, model.head)(x), model.head(model.features(x)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "densenet121", "convnext_tiny", "vit_b_16"])
def test_the_default_place_is_the_input_of_the_last_linear_layer(name: str) -> None:
    options = {"image_size": 32} if name == "vit_b_16" else {}
    model = torchvision.models.get_model(name, **options).eval()
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    x = torch.rand(2, 3, 64, 64) if name != "vit_b_16" else torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features = DeepFeatures(model)(x)
        torch.testing.assert_close(last(features), model(x))


def test_operations_in_place_do_not_reach_the_features() -> None:
    model, x = InPlaceAfter(), torch.rand(2, 3, 8, 8)
    features = DeepFeatures(model, "layer")(x)
    torch.testing.assert_close(features, model.layer(x).flatten(1))
    assert features.min() < 0


def test_a_layer_that_runs_twice_or_never_is_an_error() -> None:
    class Twice(TinyCNN):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x)

    with pytest.raises(SightlineError, match="layer 'classifier' ran 2 times"):
        DeepFeatures(Twice())(torch.rand(1, 3, 8, 8))
    model = TinyCNN()
    model.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(SightlineError, match="layer 'spare' ran 0 times"):
        DeepFeatures(model, "spare")(torch.rand(1, 3, 8, 8))
    with pytest.raises(SightlineError, match="layer names 2 layers"):
        DeepFeatures(model, ["head", "features"])  # type: ignore[arg-type]


# ---- class features ----


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("spec", [None, SPEC])
def test_streamed_means_equal_the_mean(size: int, spec: sl.InputSpec | None) -> None:
    model = TinyCNN().double()
    (whole,) = batches(7)
    features = DeepFeatures(model)(whole.images if spec is None else spec.normalize(whole.images)).detach()
    made = class_features(model, batches(size), input_spec=spec)
    for label in (0, 1, 3):
        torch.testing.assert_close(made.means[label], features[label == LABELS].mean(0))
        place = int(made.example_indices[label]) - 100
        assert LABELS[place] == label
        torch.testing.assert_close(made.examples[label], features[place])
    assert made.counts.tolist() == [3, 2, 0, 2]
    assert made.example_indices[2] == -1
    assert torch.equal(made.means[2], torch.zeros(4, dtype=torch.float64))


def test_sums_are_kept_in_float64() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1)[:, :1] * 2**24)

    one, tiny = torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), 2.0**-24)
    stream = [sl.Batch(x, torch.zeros(1, dtype=torch.int64)) for x in (one, tiny, tiny)]
    assert class_features(Sum(), stream).means.item() == torch.tensor((2**24 + 2) / 3).item()  # float32 loses the 2


def test_the_example_of_a_class_depends_only_on_seed_and_index() -> None:
    model = TinyCNN().double()
    chosen = class_features(model, batches(3), seed=4).example_indices
    shuffled = torch.randperm(7)
    assert torch.equal(class_features(model, batches(2, shuffled), seed=4).example_indices, chosen)
    expected = min((100, 102, 105), key=lambda index: derive_seed(4, index, "class example"))
    assert chosen[0] == expected
    draws = Counter(int(class_features(model, batches(7), seed=s).example_indices[0]) for s in range(150))
    assert set(draws) == {100, 102, 105}
    assert min(draws.values()) > 30  # 50 expected, 5.8 the standard deviation


def test_features_without_indices_are_numbered_in_order() -> None:
    model = TinyCNN().double()
    bare = [sl.Batch(b.images, b.labels) for b in batches(3)]
    made = class_features(model, bare)
    assert LABELS[made.example_indices[[0, 1, 3]]].tolist() == [0, 1, 3]


def test_features_of_classes_are_looked_up() -> None:
    made = class_features(TinyCNN().double(), batches(7))
    classes = torch.tensor([3, 0, 3])
    assert torch.equal(made.of(classes, "mean"), made.means[classes])
    assert torch.equal(made.of(classes, "class"), made.examples[classes])
    for missing in (2, 9):
        with pytest.raises(SightlineError, match=rf"know no image of the classes \[{missing}\]"):
            made.of(torch.tensor([0, missing]), "mean")


def test_the_model_is_unchanged() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), TinyCNN()).double().train()
    model[1].eval()
    class_features(model, batches(2))
    assert [model.training, model[0].training, model[1].training] == [True, True, False]
    assert model[0].num_batches_tracked == 0


# ---- the file ----


def must_not_be_read() -> Iterator[sl.Batch]:
    raise AssertionError("the batches were read")
    yield


def test_a_file_is_reused(tmp_path: Path) -> None:
    model, file = TinyCNN().double(), tmp_path / "features.safetensors"
    made = class_features(model, batches(3), file=file, data="seven", input_spec=SPEC)
    assert [p.name for p in tmp_path.iterdir()] == ["features.safetensors"]
    again = class_features(model, must_not_be_read(), file=file, data="seven", input_spec=SPEC)
    for name in ("means", "examples", "example_indices", "counts"):
        assert torch.equal(getattr(made, name), getattr(again, name))
    assert again.origin == made.origin
    again.check(model, None, SPEC)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": True}, "model"),
        ({"layer": "logits"}, "layer"),
        ({"input_spec": SPEC}, "input"),
        ({"data": "eight"}, "data"),
        ({"seed": 1}, "seed"),
    ],
)
def test_a_file_of_anything_else_is_rejected(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    model, file = TinyCNN().double(), tmp_path / "features.safetensors"
    class_features(model, batches(3), file=file, data="seven")
    content = file.read_bytes()
    if changed.pop("model", False):
        with torch.no_grad():
            model.features[0].bias[0] += 1e-6
    with pytest.raises(SightlineError, match=f"made with {named} "):
        class_features(model, must_not_be_read(), file=file, **{"data": "seven", **changed})
    assert file.read_bytes() == content


def test_other_files_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    with pytest.raises(SightlineError, match="cannot read"):
        ClassFeatures.load(file)
    file.write_bytes(b"what is this")
    with pytest.raises(SightlineError, match="cannot read"):
        ClassFeatures.load(file)
    from safetensors.torch import save_file

    save_file({"means": torch.zeros(1)}, file)
    with pytest.raises(SightlineError, match="was not written by `save`"):
        ClassFeatures.load(file)


def test_the_data_of_a_loader_tell_themselves(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (5, 3, 12, 12), dtype=torch.uint8)
    samples = [Sample(tv_tensors.Image(p), i % 2, None, i, None, f"{i}.png") for i, p in enumerate(pixels)]
    dataset = InMemory(samples, ["a", "b"], identity="five")
    model, file = TinyCNN(), tmp_path / "features.safetensors"
    made = class_features(model, create_loader(dataset, size=8, batch_size=2, train=False), file=file)
    assert made.origin["data"].startswith(dataset.fingerprint)
    assert made.counts.tolist() == [3, 2]
    assert (
        class_features(model, create_loader(dataset, size=8, batch_size=5, train=False), file=file).origin
        == made.origin
    )
    for other in (
        create_loader(dataset, size=9, batch_size=2, train=False),
        create_loader(dataset, size=8, batch_size=2, train=True),
        create_loader(InMemory(samples[:4], ["a", "b"], identity="four"), size=8, batch_size=2, train=False),
    ):
        with pytest.raises(SightlineError, match="made with data "):
            class_features(model, other, file=file)
    with pytest.raises(
        SightlineError, match=r"data is None, and these batches do not come from sightline\.data\.loader"
    ):
        class_features(model, batches(3), file=file)


def test_class_features_empty_data_or_invalid_labels_raise() -> None:
    with pytest.raises(SightlineError, match="batches holds no batch"):
        class_features(TinyCNN(), [])
    with pytest.raises(SightlineError, match="labels hold -1"):
        class_features(TinyCNN(), [sl.Batch(torch.rand(1, 3, 8, 8), torch.tensor([-1]))])
