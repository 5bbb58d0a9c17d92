"""Compare the speed of this checkout with that of another one, in one run.

python benchmarks/against.py ../sightline-before

Both checkouts run the same work, through public names alone, in alternating processes. A case's ratio is this checkout's
time by the other one's in the same round; the table shows the median and the range over rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import harness

HERE = Path(__file__).resolve().parents[1]


def work() -> dict[str, Callable[[], object]]:
    """The cases: a map, maps by many forward passes, a training step, a metric, and reading batches."""
    import sightline as sl

    torch.manual_seed(0)
    model, spec = sl.load_model("torchvision/resnet18", classes=10, size=128)
    images, labels = torch.rand(16, 3, 128, 128), torch.arange(16) % 10
    masks = (torch.rand(16, 128, 128) > 0.5).to(torch.uint8)
    batch = sl.Batch(images, labels, masks=masks)
    objective = sl.Objective(model, sl.SegmentOverlap(), input_spec=spec)
    network = model.eval()
    maps = sl.explain(network, images, input_spec=spec)
    insertion = sl.metrics.Insertion(network, input_spec=spec)

    def measure() -> None:
        insertion.reset()
        insertion.update(images[:2], maps[:2])
        insertion.compute()

    return {
        "Grad-CAM, 16 images": lambda: sl.explain(network, images, input_spec=spec),
        "Ablation-CAM, 2 images": lambda: sl.explain(network, images[:2], "ablationcam", input_spec=spec),
        "SO-Loss, one step of 16 images": lambda: objective(batch)["loss"].backward(),
        "Insertion, 2 images": measure,
    }


def measure_here() -> dict[str, float]:
    """The seconds of each case in this process, without the first pass."""
    torch.set_num_threads(1)
    return {name: statistics.median(times) for name, times in harness.interleave(work(), rounds=5).items()}


def measure_in(checkout: Path) -> dict[str, float]:
    """The seconds of each case, and of the imports, in a new process that imports the package from a checkout."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(checkout / "src"), str(HERE / "benchmarks")])}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import sightline"], env=environment, check=True)
    seconds = {"import sightline": time.perf_counter() - start}
    command = [sys.executable, str(HERE / "benchmarks" / "against.py"), "--here"]
    answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return seconds | json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", nargs="?", type=Path, help="another checkout of the project")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--here", action="store_true", help="measure in this process (used by the command itself)")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure_here()))
        return
    ratios: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        ours, theirs = measure_in(HERE), measure_in(arguments.other.resolve())
        for name in ours:
            ratios.setdefault(name, []).append(ours[name] / theirs[name])
    table = {name: [statistics.median(some), min(some), max(some)] for name, some in ratios.items()}
    for name, (middle, low, high) in table.items():
        print(f"{name:34s} {middle:.2f}  ({low:.2f} to {high:.2f})")
    harness.write("against", {"rounds": arguments.rounds, "ratio [median, least, greatest]": table})


if __name__ == "__main__":
    main()
