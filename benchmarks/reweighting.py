"""What reweighting by explanation consistency costs: its pass, against the least possible and hard negative mining; and fused.

python benchmarks/reweighting.py [--device cuda] [--model resnet18] [--batch 16] [--rounds 5]

Every image is predicted as its label says, which is the dearest case: other images are not attacked.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import harness
import sightline as sl
from sightline.guides import create_guide

EXPLAINERS = ("gradcam", "xgradcam", "eigencam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = torchvision.models.get_model(args.model, num_classes=10).eval()
    model.to(args.device, memory_format=torch.channels_last)
    images = torch.rand(args.batch, 3, 224, 224).to(args.device, memory_format=torch.channels_last)
    with torch.inference_mode():
        labels = model(images).argmax(1)
    batch = sl.Batch(images, labels.clone(), indices=torch.arange(args.batch, device=args.device))

    passes: dict[str, Callable[[], object]] = {"limit": lambda: limit(model, batch)}
    for explainer in EXPLAINERS:
        passes[explainer] = pass_of(model, "explanation_consistency", batch, explainer=explainer)
    passes["hard negative mining"] = pass_of(model, "hard_negative_mining", batch)
    seconds = harness.interleave(passes, args.rounds, args.device)

    steps = {"plain": step_of(args.model, None, batch, args.device)}
    reached = replace(batch, images=images.detach().requires_grad_())
    steps["plain, with the images' gradient"] = step_of(args.model, None, reached, args.device)
    steps["forward pass alone"] = forward_of(args.model, images)
    for explainer in EXPLAINERS:
        options = {"mode": "fused", "explainer": explainer}
        steps[explainer] = step_of(args.model, create_guide("explanation_consistency", **options), batch, args.device)
    step_seconds = harness.interleave(steps, args.rounds, args.device)

    harness.write(
        f"reweighting-{args.device.partition(':')[0]}-{args.model}",
        {
            "command": f"python benchmarks/reweighting.py --model {args.model} --batch {args.batch} --rounds {args.rounds}",
            "model": f"torchvision {args.model}, 224 px, channels_last; training with Adam",
            "n": {"batch": args.batch, "rounds": args.rounds},
            "seconds a pass over the batch (median)": medians(seconds),
            "pass, ratio to forward + input gradient + forward": {
                name: round(harness.ratio(seconds, name, "limit"), 3) for name in EXPLAINERS
            },
            "pass, ratio to hard negative mining's": {
                name: round(harness.ratio(seconds, name, "hard negative mining"), 3) for name in EXPLAINERS
            },
            "seconds a training step (median)": medians(step_seconds),
            "fused, ratio to the plain training step": {
                name: round(harness.ratio(step_seconds, name, "plain"), 3) for name in steps if name != "plain"
            },
            "fused, arithmetic of the plain training step's": {
                name: round(operations(steps[name]) / operations(steps["plain"]), 3)
                for name in steps
                if name != "plain"
            },
            "target": "pass: at most 1.15 x the limit (the paper: 5 x hard negative mining's); fused: at most 1.3",
        },
        device=args.device,
    )


def limit(model: nn.Module, batch: sl.Batch) -> None:
    """A forward pass, the input's gradient, and a forward pass."""
    images = batch.images.detach().requires_grad_()
    loss = F.cross_entropy(model(images), batch.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    with torch.inference_mode():
        model((batch.images + 0.1 * gradient.sign()).clamp(0, 1))


def pass_of(model: nn.Module, name: str, batch: sl.Batch, **options: str) -> Callable[[], None]:
    """A guide's pass over one batch."""
    guide = create_guide(name, interval=1, **options)
    objective = sl.Objective(model, guide)
    objective.on_epoch_start([batch], 0)
    return lambda: objective.on_epoch_start([batch], 1)


def step_of(name: str, guide: sl.Guide | None, batch: sl.Batch, device: str) -> Callable[[], None]:
    """A training step of a model of its own; the weights are read and measured, where there is a guide."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=10).to(device, memory_format=torch.channels_last)
    objective = sl.Objective(model, guide)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-4)
    objective.on_epoch_start([batch], 0)

    def step() -> None:
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()

    return step


def forward_of(name: str, images: torch.Tensor) -> Callable[[], object]:
    """A forward pass in training mode, without a graph."""
    model = torchvision.models.get_model(name, num_classes=10)
    model.to(images.device, memory_format=torch.channels_last)
    return torch.no_grad()(lambda: model(images))


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations in convolutions and matrix products, which no implementation of the same step can spare."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(sorted(each)[len(each) // 2], 3) for name, each in seconds.items()}


if __name__ == "__main__":
    main()
