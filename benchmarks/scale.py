"""A large number of small images through `explain --store` and `evaluate`, against bare inference.

    OMP_NUM_THREADS=1 python benchmarks/scale.py [--images 100000] [--model torchvision/resnet18] [--profile]

Makes the images (32 x 32 px, JPEG, with a mask each) as tar shards of WebDataset in a temporary folder (4 kB an image). Bare
inference is the same loader and the same batches with a forward pass only. `evaluate` is `evaluate_model` with the accuracy,
the energy and the pointing game of Grad-CAM, and the written folder. Each pass runs on the first 64 images before it is
measured: the first call of a process imports and looks up what later calls have; its seconds are shown. The rate counts
seconds of this process (which are right on a busy machine too) next to seconds of the clock. Memory is the peak of resident
memory in each quarter of the images. It is flat if the last three quarters do not need more than the first.
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

SIDE, CLASSES, BATCH, SHARD, FIRST = 32, 10, 32, 1000, 64
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


def peak() -> float:
    """Return the peak of resident memory in MB since the last call, and begin again."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


class Watched(ImageDataset):
    """The first images of another data set, which notes the peak of memory when each quarter of them is done."""

    def __init__(self, images: ImageDataset, count: int) -> None:
        self.images, self.peaks = images, list[float]()
        labels, masks = images.labels[:count].tolist(), images.has_mask[:count].tolist()
        super().__init__(images.classes, labels, masks, identity=(images.fingerprint, count))

    def path(self, index: int) -> str:
        return self.images.path(index)

    def load(self, index: int) -> Sample:
        if index and index % (len(self) // 4) == 0 and len(self.peaks) < 3:
            self.peaks.append(round(peak(), 1))
        return self.images[index]


def infer(model: torch.nn.Module, loader: "DataLoader[Sample]", spec: sl.InputSpec) -> Iterator[torch.Tensor]:
    with torch.no_grad():
        for batch in loader:
            yield logits_of(model(spec.normalize(batch.images))).argmax(1)


class Passes:
    """What is measured, each on any images of the data set."""

    def __init__(self, model: torch.nn.Module, spec: sl.InputSpec, folder: Path) -> None:
        self.model, self.spec, self.folder = model, spec, folder

    def bare(self, images: Watched) -> None:
        for _ in infer(self.model, self._loader(images), self.spec):
            pass

    def explain(self, images: Watched) -> None:
        compute_maps(self.model, images, self.folder / f"maps-{len(images)}", input_spec=self.spec)

    def evaluate(self, images: Watched) -> None:
        loader = self._loader(images)
        found = evaluate_model(self.model, loader, ["gradcam"], METRICS, input_spec=self.spec, gallery=256)
        paths = [images.path(index) for index in range(len(images))]
        write_evaluation(found, self.folder / f"evaluation-{len(images)}", {"split": "test"}, paths)

    def _loader(self, images: Watched) -> "DataLoader[Sample]":
        return create_loader(images, size=SIDE, batch_size=BATCH, train=False)


def measure(work: Callable[[Watched], None], images: ImageDataset, profile: bool) -> dict[str, Any]:
    started = time.process_time()
    work(Watched(images, FIRST))
    first = time.process_time() - started
    watched, profiler = Watched(images, len(images)), cProfile.Profile(time.process_time)
    peak()
    clock, spent = time.perf_counter(), time.process_time()
    if profile:
        profiler.runcall(work, watched)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    else:
        work(watched)
    clock, spent = time.perf_counter() - clock, time.process_time() - spent
    quarters = [*watched.peaks, round(peak(), 1)]
    return {
        "images_a_second": len(images) / clock,
        "images_a_second_of_the_process": len(images) / spent,
        "seconds_of_the_first_call": first,
        "peak_mb_of_each_quarter": quarters,
        "peak_mb_of_the_last_three_quarters_over_the_first": max(quarters[1:]) / quarters[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000, help=f"at least {FIRST}")
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
        images = create_dataset("webdataset", root=scratch, val=0)["test"]
        opened = time.process_time() - started
        model, spec = sl.load_model(arguments.model, weights=None, classes=CLASSES, size=SIDE)
        model.eval()
        passes = Passes(model, spec, folder)
        works = {"bare inference": passes.bare, "explain --store": passes.explain, "evaluate": passes.evaluate}
        found = {name: measure(work, images, arguments.profile) for name, work in works.items()}
    bare = found["bare inference"]["images_a_second_of_the_process"]
    for row in found.values():
        row["of_bare_inference"] = row["images_a_second_of_the_process"] / bare
    result = {"images": arguments.images, "size": SIDE, "batch": BATCH, "model": arguments.model}
    if arguments.profile:
        return
    harness.write("scale-cpu", result | {"seconds_to_open_the_shards": opened, "passes": found}, packages=("zarr",))


if __name__ == "__main__":
    main()
