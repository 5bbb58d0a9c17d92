"""Milliseconds an image of every explainer on four networks.

    python benchmarks/explainer_times.py [--device cuda] [--budget 10]

Weights are random, which changes no time but where a method may stop early: LOTS runs all its iterations here. Each case
runs on a batch of eight images at 224 px, or on one image where eight would exceed the budget. Methods whose time is
proportional to a number of samples take fewer than by default; the number stands beside the figure.
"""

import argparse
import time
from typing import Any

import torch
import torchvision

import harness
import sightline as sl

MODELS = ("alexnet", "resnet50", "densenet121", "convnext_tiny")
OPTIONS: dict[str, dict[str, Any]] = {
    "lots": {"iterations": 50, "tau": 0.0},  # of 500; never converges, so that all of them are timed
    "scorecam": {"top": 64},  # of 256 to 2048 channels
    "rise": {"masks": 400},  # of 4000
    "lime": {"samples": 100},  # of 1000
    "kernel_shap": {"samples": 200},  # of 2176
}
WRAPPERS = ("augmented",)  # time what they wrap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a case")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument(
        "--methods", nargs="+", default=[name for name in sl.explainers.list_explainers() if name not in WRAPPERS]
    )
    args = parser.parse_args()

    for name in args.models:
        torch.manual_seed(0)
        model = torchvision.models.get_model(name).eval().to(args.device)
        images = torch.rand(args.batch, 3, 224, 224, device=args.device)
        table = {}
        for method in args.methods:
            table[method] = measure(model, images, method, args.budget, args.device)
            print(f"{method:22} {name:14} {table[method]}", flush=True)
        harness.write(
            f"explainer_times-{args.device.partition(':')[0]}-{name}",
            {
                "command": f"python benchmarks/explainer_times.py --models {name}",
                "model": f"torchvision {name}, random weights, 224 px",
                "n": "calls and images a call stand beside each figure",
                "options": OPTIONS,
                "milliseconds an image (median)": table,
            },
            packages=("captum",),
            device=args.device,
        )


def measure(model: torch.nn.Module, images: torch.Tensor, method: str, budget: float, device: str) -> Any:
    """The median time an image, with the number of calls and of images a call; or why the method is not defined."""
    explainer = sl.create_explainer(method, **OPTIONS.get(method, {}))
    unit = sl.InputSpec((0.0,) * 3, (1.0,) * 3, (224, 224))  # images in [0, 1], as methods that change pixels want them

    def call(batch: torch.Tensor) -> float:
        harness.synchronize(device)
        start = time.perf_counter()
        explainer(model, batch, input_spec=unit)
        harness.synchronize(device)
        return time.perf_counter() - start

    try:
        first = call(images[:1])
    except sl.NotDefinedError as error:
        return f"not defined: {error}"
    batch = images if first * len(images) < budget / 2 else images[:1]
    times = [] if len(batch) > 1 or first < budget / 2 else [first]
    spent = 0.0
    while not times or (spent + times[-1] < budget and len(times) < 5):
        times.append(call(batch))
        spent += times[-1]
    median = sorted(times)[len(times) // 2] / len(batch)
    return {"ms": round(1000 * median, 1), "calls": len(times), "images a call": len(batch)}


if __name__ == "__main__":
    main()
