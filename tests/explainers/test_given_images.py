"""`sl.explain` of images in any form: sightline resizes and normalizes, and `sl.show` draws what comes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

import sightline as sl
from sightline.network.targets import Contrast

SPEC = sl.InputSpec((0.4, 0.5, 0.6), (0.2, 0.3, 0.25), (16, 16))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    return layers.train()


@pytest.fixture(scope="module")
def arrays() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(20)]  # more than are explained together


@pytest.fixture(scope="module")
def files(arrays: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("photos")
    paths = [root / "ab"[place % 2] / f"{place:02}.png" for place in range(len(arrays))]
    for path, array in zip(paths, arrays):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(array).save(path)
    return paths


def stacked(arrays: list[np.ndarray]) -> Tensor:
    return torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays]) / 255


def test_every_form_gives_the_maps_of_the_tensor(model: nn.Module, arrays: list[np.ndarray], files: list[Path]) -> None:
    images = stacked(arrays)
    expected = sl.explain(model, images, input_spec=SPEC)
    for form in (
        files, [str(file) for file in files], arrays, [Image.fromarray(array) for array in arrays], np.stack(arrays),
        list(SPEC.normalize(images)), pd.DataFrame({"path": files}), [(array, 0) for array in arrays],
    ):  # fmt: skip
        found = sl.explain(model, form, input_spec=SPEC)
        assert torch.allclose(found.images, images)
        assert torch.allclose(found.maps, expected, atol=1e-5)
        assert len(found.names) == 20
    assert model.training


def test_one_image_a_folder_and_a_dataset_give_equal_maps(
    model: nn.Module, arrays: list[np.ndarray], files: list[Path]
) -> None:
    expected = sl.explain(model, stacked(arrays), input_spec=SPEC)
    for one in (files[3], str(files[3]), Image.open(files[3]), arrays[3]):
        assert torch.allclose(sl.explain(model, one, input_spec=SPEC).maps, expected[3:4], atol=1e-5)
    root = files[0].parent.parent
    order = [int(file.stem) for file in sorted(files)]
    for folder in (root, ImageFolder(str(root)), sl.data.create_dataset("folder", root=str(root), val=0, test=0)):
        found = sl.explain(model, folder, input_spec=SPEC)
        assert torch.allclose(found.maps, expected[order], atol=1e-5)
        assert found.names == [str(file) for file in sorted(files)]


def test_targets_and_draws_belong_to_their_images(model: nn.Module, arrays: list[np.ndarray]) -> None:
    images, targets = stacked(arrays), torch.arange(20) % 3
    for wanted in (targets, Contrast(targets, (targets + 1) % 3), 2, lambda output: output[:, 1]):
        expected = sl.explain(model, images, targets=wanted, input_spec=SPEC)
        assert torch.allclose(sl.explain(model, arrays, targets=wanted, input_spec=SPEC).maps, expected, atol=1e-5)
    with pytest.raises(sl.SightlineError, match=r"targets have shape \(3,\); expected \(20,\)"):
        sl.explain(model, arrays, targets=torch.tensor([0, 1, 2]), input_spec=SPEC)
    whole, some = (sl.explain(model, part, "randomcam", input_spec=SPEC).maps for part in (arrays, arrays[:3]))
    assert torch.equal(whole[:3], some)


def test_images_are_resized_and_cropped(model: nn.Module) -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, 16:48] = 255  # the central square
    found = sl.explain(model, [image], input_spec=SPEC)
    assert found.images.shape == (1, 3, 16, 16)
    assert found.images.mean() > 0.9


def test_explained_images_are_shown_with_their_file_names(model: nn.Module, files: list[Path], tmp_path: Path) -> None:
    found = sl.explain(model, files[:2], input_spec=SPEC)
    assert repr(found).startswith("Explained(images (2, 3, ")
    assert repr(found).endswith(f"names {found.names})")
    overlay = sl.show(found)
    assert overlay.titles == ["00.png", "01.png"]
    assert torch.equal(overlay.overlays["map"], sl.show(found.images, found.maps).overlays["map"])
    assert overlay.save(tmp_path / "maps.png").is_file()
    both = sl.show(found, {"one": found.maps, "two": None}, titles=["a", "b"])
    assert (list(both.overlays), both.titles) == (["one", "two"], ["a", "b"])
    with pytest.raises(sl.SightlineError, match="maps was not given"):
        sl.show(found.images)


def test_a_normalization_that_is_assumed_is_said(model: nn.Module, arrays: list[np.ndarray]) -> None:
    with pytest.warns(UserWarning, match="the normalization is assumed to be that of ImageNet"):
        found = sl.explain(model, arrays[:1])
    assert found.images.shape == (1, 3, 224, 224)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images is empty"), ("nowhere.png", "images: nothing at nowhere.png"), (3, "data is a int; expected"),
        ([np.full((4, 4, 3), 3.0), np.full((4, 4, 3), 9.0)], "the values of image 0 range over"),
    ],
)  # fmt: skip
def test_input_that_is_not_an_image_raises(model: nn.Module, images: object, message: str) -> None:
    with pytest.raises(sl.SightlineError) as error:
        sl.explain(model, images, input_spec=SPEC)
    assert message in str(error.value)
