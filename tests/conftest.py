"""What every test folder shares."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from layouts import BREEDS, trimap, write_image, write_mask
from run_folders import write_run
from sightline._core.allocator import keep_freed_memory
from sightline.data.dataset import InMemory, Sample

keep_freed_memory()  # as the command line does: forward passes take up to half the time
if not torch.cuda.is_available():
    os.environ["CUDA_VISIBLE_DEVICES"] = (
        ""  # torch.export asks for a device a hundred times, and looks for the driver each time
    )


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real photographs and weights: SIGHTLINE_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("SIGHTLINE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is not at hand: set SIGHTLINE_DATA (looked at {folder})")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="PyTorch finds no CUDA device here"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def pets_folder(tmp_path: Path) -> Path:
    """Oxford-IIIT Pet's layout: three of the breeds, ten trainval and four test photographs each."""
    root = tmp_path / "pets"
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for breed, number in BREEDS.items():
        for i in range(14):
            name = f"{breed}_{i}"
            lists["trainval" if i < 10 else "test"].append(f"{name} {number} 1 1")
            write_image(root / "images" / f"{name}.jpg", (10 * number, 100, 10 * i))
            write_mask(root / "annotations/trimaps" / f"{name}.png", trimap())
    for part, lines in lists.items():
        (root / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
    (root / "annotations" / "list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n")
    return root


@pytest.fixture
def make_objects() -> Callable[..., InMemory]:
    """Red objects, a filled rectangle, on blue photographs."""

    def make(count: int = 20, classes: Sequence[str] = ("a", "b"), box: Sequence[int] = (4, 6, 20, 14)) -> InMemory:
        x1, y1, x2, y2 = box
        samples = []
        for i in range(count):
            image = torch.zeros(3, 24, 32, dtype=torch.uint8)
            mask = torch.zeros(24, 32, dtype=torch.uint8)
            image[2] = 255
            image[:, y1:y2, x1:x2] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
            mask[y1:y2, x1:x2] = 1
            label = i % len(classes)
            samples.append(Sample(tv_tensors.Image(image), label, tv_tensors.Mask(mask), i, None, f"object{i}"))
        return InMemory(samples, classes, "objects")

    return make


@pytest.fixture
def make_scenes() -> Callable[..., InMemory]:
    """Backgrounds without red: noise in green and blue, three for each class."""

    def make(classes: Sequence[str] = ("a", "b"), each: int = 3) -> InMemory:
        draw = torch.Generator().manual_seed(0)
        samples = []
        for i in range(each * len(classes)):
            image = torch.randint(0, 256, (3, 40, 40), generator=draw, dtype=torch.uint8)
            image[0] = 0
            samples.append(Sample(tv_tensors.Image(image), i // each, None, i, None, f"scene{i}"))
        return InMemory(samples, classes, "scenes")

    return make


@pytest.fixture
def groups(tmp_path: Path) -> Callable[..., tuple[list[Path], list[Path]]]:
    """Two groups of three seeds each, as paths of run folders: guided and not."""

    def make(seeds: int = 3, **options) -> tuple[list[Path], list[Path]]:
        guide = {"name": "segment_overlap", "explainer": "gradcam"}
        ours = [
            write_run(
                tmp_path / f"so-{s}", name="so-loss", seed=s, guide=guide, **{"skill": 0.9, "focus": 3.0} | options
            )
            for s in range(seeds)
        ]
        theirs = [write_run(tmp_path / f"ce-{s}", name="cross-entropy", seed=s, **options) for s in range(seeds)]
        return ours, theirs

    return make
