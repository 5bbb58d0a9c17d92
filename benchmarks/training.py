"""How much a training step with SO-Loss costs, against a step with cross-entropy.

python benchmarks/training.py [--device cuda] [--batch 8] [--rounds 5]
"""

import argparse
from collections.abc import Callable

import torch
import torchvision

import harness
import sightline as sl


def step_of(guide: sl.Guide | None, batch: sl.Batch, device: str) -> Callable[[], None]:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).to(device, memory_format=torch.channels_last)
    objective = sl.Objective(model, guide)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    images = torch.rand(args.batch, 3, 224, 224)
    masks = (torch.rand(args.batch, 224, 224) > 0.5).to(torch.uint8)
    batch = sl.Batch(images, torch.arange(args.batch) % 10, masks=masks).to(args.device)
    cases = {"cross-entropy": step_of(None, batch, args.device)}
    for views in (1, 2, 4):
        cases[f"SO-Loss, {views} views"] = step_of(sl.SegmentOverlap(views=views), batch, args.device)
    cases["SO-Loss, 1 view, at the layer"] = step_of(sl.SegmentOverlap(resolution="layer"), batch, args.device)
    seconds = harness.interleave(cases, args.rounds, args.device)
    harness.write(
        f"training-{args.device.partition(':')[0]}",
        {
            "command": "python benchmarks/training.py",
            "model": "torchvision resnet18, 224 px, Adam, channels_last",
            "n": {"batch": args.batch, "rounds": args.rounds},
            "seconds a step (median)": {name: round(sorted(s)[len(s) // 2], 3) for name, s in seconds.items()},
            "ratio to the cross-entropy step": {n: round(harness.ratio(seconds, n, "cross-entropy"), 3) for n in cases},
            "target": "at most 1.15 at one view, 1.1 x the number of views above",
        },
        device=args.device,
    )


if __name__ == "__main__":
    main()
