"""A large number of small images through `explain --store` and `evaluate`, against bare inference.

    OMP_NUM_THREADS=1 python benchmarks/scale.py [--images 100000] [--model torchvision/resnet18] [--profile]

Makes the images (32 x 32 px, JPEG, with a mask each) as tar shards of WebDataset in a temporary folder. Bare inference is the
same loader and the same batches with a forward pass only. `evaluate` is `evaluate_model` with the accuracy, the energy and the
pointing game of Grad-CAM, and the written folder. The rate counts seconds of this process (which are right on a busy machine
too) next to seconds of the clock. Memory is the resident memory after each tenth of the images.
"""

import argparse
import cProfile
import io
import pstats
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

import harness
import sightline as sl
from sightline.data import create_dataset
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.loader import create_loader
from sightline.evaluation import evaluate_model
from sightline.evaluation.split_folder.folder import write_evaluation
from sightline.explainers.maps import compute_maps
from sightline.network.logits import logits_of

SIDE, CLASSES, BATCH, SHARD = 32, 10, 32, 1000
METRICS = ("accuracy", "energy_in_mask", "pointing_game")


def write_shards(folder: Path, images: int) -> None:
    """Write noise with a bright square, whose place is the mask."""
    for start in range(0, images, SHARD):
        with tarfile.open(folder / f"test-{start // SHARD:05}.tar", "w") as tar:
            for number in range(start, min(start + SHARD, images)):
                draw = np.random.default_rng(number)
                pixels = draw.integers(0, 128, (SIDE, SIDE, 3), dtype=np.uint8)
                mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
                top, left = draw.integers(0, SIDE // 2, 2)
                mask[top : top + 12, left : left + 12] = 1
                pixels[mask == 1] += 100
                for suffix, content in (
                    ("jpg", encoded(pixels, "JPEG")),
                    ("cls", str(number % CLASSES).encode()),
                    ("mask.png", encoded(mask, "PNG")),
                ):
                    info = tarfile.TarInfo(f"{number:08}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def resident() -> float:
    """MB of resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


class Watched(ImageDataset):
    """Another data set, which notes the resident memory after each tenth of its images."""

    def __init__(self, images: ImageDataset) -> None:
        self.images, self.memory = images, list[float]()
        super().__init__(images.classes, images.labels.tolist(), images.has_mask.tolist(), identity=images.fingerprint)

    def path(self, index: int) -> str:
        return self.images.path(index)

    def load(self, index: int) -> Sample:
        if (index + 1) % (len(self) // 10) == 0:
            self.memory.append(round(resident(), 1))
        return self.images[index]


def infer(model: torch.nn.Module, loader: "DataLoader[Sample]", spec: sl.InputSpec) -> Iterator[torch.Tensor]:
    with torch.no_grad():
        for batch in loader:
            yield logits_of(model(spec.normalize(batch.images))).argmax(1)


def measure(images: Watched, work: Callable[[], Any], profile: bool) -> dict[str, Any]:
    images.memory.clear()
    profiler = cProfile.Profile()
    clock, spent = time.perf_counter(), time.process_time()
    if profile:
        profiler.runcall(work)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    else:
        work()
    clock, spent = time.perf_counter() - clock, time.process_time() - spent
    return {
        "images_a_second": len(images) / clock,
        "images_a_second_of_the_process": len(images) / spent,
        "resident_mb": list(images.memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--model", default="torchvision/resnet18")
    parser.add_argument("--profile", action="store_true", help="print where the time goes; the rates are then too low")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "train").mkdir()
        write_shards(folder, arguments.images)
        write_shards(folder / "train", 10)
        started = time.process_time()
        images = Watched(create_dataset("webdataset", root=scratch, val=0)["test"])
        opened = time.process_time() - started
        model, spec = sl.load_model(arguments.model, weights=None, classes=CLASSES, size=SIDE)
        model.eval()
        loader = create_loader(images, size=SIDE, batch_size=BATCH, train=False)
        options = {"input_spec": spec, "gallery": 256}

        def evaluate() -> None:
            found = evaluate_model(model, loader, ["gradcam"], METRICS, **options)
            paths = [images.path(index) for index in range(len(images))]
            write_evaluation(found, folder / "evaluation", {"split": "test"}, paths)

        works: dict[str, Callable[[], Any]] = {
            "bare inference": lambda: list(infer(model, loader, spec)),
            "explain --store": lambda: compute_maps(model, images, folder / "maps", input_spec=spec),
            "evaluate": evaluate,
        }
        list(infer(model, [next(iter(loader))], spec))  # the first call of a model takes longer
        found = {name: measure(images, work, arguments.profile) for name, work in works.items()}
    bare = found["bare inference"]["images_a_second_of_the_process"]
    for row in found.values():
        row["of_bare_inference"] = row["images_a_second_of_the_process"] / bare
    result = {"images": arguments.images, "size": SIDE, "batch": BATCH, "model": arguments.model}
    if arguments.profile:
        return
    harness.write("scale-cpu", result | {"seconds_to_open_the_shards": opened, "passes": found}, packages=("zarr",))


if __name__ == "__main__":
    main()
