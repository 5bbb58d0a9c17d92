import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.models import MODELS
from sightline.network.head import head_parameters


@pytest.mark.parametrize(
    ("name", "size", "mean"),
    [
        ("sightline/lenet5", 32, 0.5),
        ("sightline/small_cnn", 64, 0.5),
        ("timm/test_resnet.r160_in1k", 160, 0.5),
        ("timm/tf_efficientnet_lite0", 224, 0.5),
        ("torchvision/squeezenet1_1", 224, 0.485),
        ("torchvision/mobilenet_v3_small", 224, 0.485),
    ],
)
def test_a_model_comes_with_its_input_and_as_many_classes_as_asked(name, size, mean):
    model, spec = sl.load_model(name, classes=3)
    assert spec.size == (size, size)
    assert spec.mean[0] == mean
    assert model.eval()(torch.zeros(1, 3, *spec.size)).shape == (1, 3)
    assert all(parameter.shape[0] == 3 for parameter in head_parameters(model))
    assert len(head_parameters(model)) == 2


@pytest.mark.parametrize("name", ["timm/test_vit", "torchvision/vit_b_16", "timm/test_resnet", "sightline/lenet5"])
def test_size_overrides_that_of_the_weights(name):
    model, spec = sl.load_model(name, classes=2, size=64)
    assert spec.size == (64, 64)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.parametrize("name", ["torchvision/vit_b_16", "timm/mixer_s32_224"])
def test_so_loss_alone_trains_a_head_that_the_library_starts_with_zeros(name):
    torch.manual_seed(0)
    model, _ = sl.load_model(name, classes=3, size=64)
    objective = sl.Objective(model, sl.SegmentOverlap(beta=0.0))
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[:, :32] = 1
    objective(sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 2]), masks=masks))["loss"].backward()
    weight = head_parameters(model)[0]
    assert weight.abs().max() <= weight.shape[1] ** -0.5  # as nn.Linear starts
    assert weight.grad.abs().max() > 0


def test_own_models_are_small_and_keep_an_eighth_of_the_side():
    model, _ = sl.load_model("sightline/small_cnn", classes=10)
    assert sum(p.numel() for p in model.parameters()) < 400_000
    assert model.blocks(model.stem(torch.zeros(1, 3, 64, 64))).shape == (1, 96, 8, 8)
    assert MODELS.names() == ["lenet5", "small_cnn"]


def test_lenet5_has_the_size_of_the_paper_for_colour_images():
    """Conv 6 @ 5x5 x 3, 16 @ 5x5 x 6, linear 400-120-84-10, each with its bias (S2-C3 connected in full)."""
    model, _ = sl.load_model("sightline/lenet5")
    expected = (75 * 6 + 6) + (150 * 16 + 16) + (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.fixture
def trained():
    return sl.load_model("sightline/small_cnn", classes=5)[0].state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file_set_classes_and_parameters(tmp_path, trained, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(trained, path) if suffix == ".safetensors" else torch.save(trained, path)
    model, _ = sl.load_model("sightline/small_cnn", path)  # classes as the file has them
    assert all(torch.equal(value, trained[key]) for key, value in model.state_dict().items())


def test_a_head_of_other_classes_is_dropped_with_a_note_and_nothing_else(tmp_path, trained, caplog):
    save_file(trained, tmp_path / "w.safetensors")
    with caplog.at_level(logging.INFO, "sightline"):
        model, _ = sl.load_model("sightline/small_cnn", tmp_path / "w.safetensors", classes=3)
    assert "head.bias and head.weight left random" in caplog.text
    assert model.head.weight.shape == (3, 96)
    others = {key: value for key, value in model.state_dict().items() if not key.startswith("head")}
    assert all(torch.equal(value, trained[key]) for key, value in others.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("stem.0.weight"), "stem.0.weight is missing"),
        (lambda w: w.update(extra=torch.zeros(1)), "extra is not in the model"),
        (lambda w: w.update({"stem.0.weight": torch.zeros(3, 3, 3, 3)}), r"stem.0.weight has shape \(3, 3, 3, 3\)"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_any_other_mismatch_names_the_key(tmp_path, trained, change, words):
    change(trained)
    save_file(trained, tmp_path / "w.safetensors")
    with pytest.raises(SightlineError, match=words):
        sl.load_model("sightline/small_cnn", tmp_path / "w.safetensors", classes=3)


def test_no_code_is_unpickled(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "w.pth")
    with pytest.raises(SightlineError, match="cannot read"):
        sl.load_model("sightline/lenet5", tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(SightlineError, match=f"cannot read .*{name}"):
        sl.load_model("sightline/lenet5", tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet18",), "did you mean 'timm/resnet18'"),
        (("timm/resnet19",), "'timm/resnet18'"),
        (("torchvision/resnet19",), "'torchvision/resnet18'"),
        (("sightline/lenet",), "'sightline/lenet5'"),
        (("sightline/lenet5", "default"), "has none"),
        (("sightline/lenet5", "none.safetensors"), "nothing at none.safetensors"),
        (("sightline/lenet5", None, 0), "classes is 0"),
    ],
)
def test_load_model_invalid_arguments_raise(arguments, words):
    with pytest.raises(SightlineError, match=words):
        sl.load_model(*arguments)


def test_real_weights_give_their_classes(data_folder):
    path = data_folder / "weights" / "efficientnet_lite0_imagenet1k.safetensors"
    model, spec = sl.load_model("timm/tf_efficientnet_lite0", path)
    assert model.classifier.out_features == 1000
    assert spec.mean == (0.5, 0.5, 0.5)
    assert sl.load_model("timm/tf_efficientnet_lite0", path, classes=3, size=96)[0].classifier.out_features == 3


def test_weights_of_another_image_size_say_how_to_give_it(tmp_path):
    """A transformer of 64 px has other positions than one of 224 px; any other difference is another architecture."""
    timm = pytest.importorskip("timm")
    small = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64)
    torch.save(small.state_dict(), tmp_path / "small.pth")
    with pytest.raises(SightlineError, match=r"pos_embed has shape .* images of another size: give it by --size"):
        sl.load_model("timm/vit_tiny_patch16_224", tmp_path / "small.pth")
    assert sl.load_model("timm/vit_tiny_patch16_224", tmp_path / "small.pth", size=64)[1].size == (64, 64)
    with pytest.raises(SightlineError, match="Give the weights of this very architecture"):
        sl.load_model("timm/vit_small_patch16_224", tmp_path / "small.pth", size=64)
