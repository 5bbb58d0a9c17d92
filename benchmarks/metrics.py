"""How much insertion and deletion cost, against the model evaluations that they cannot do without.

    python benchmarks/metrics.py [--device cuda] [--images 4] [--rounds 3]

Both curves of an image need 2 x 224 evaluations; the limit is as many forward passes in full batches, and nothing else.
"""

import argparse

import torch
import torchvision

import harness
import sightline as sl

STEPS, BATCH = 224, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval().to(args.device)
    images = torch.rand(args.images, 3, 224, 224, device=args.device)
    maps = sl.explain(model, images)
    filler = torch.rand(BATCH, 3, 224, 224, device=args.device)

    def forwards() -> None:
        with torch.inference_mode():
            for start in range(0, 2 * STEPS * args.images, BATCH):
                model(filler[: min(BATCH, 2 * STEPS * args.images - start)])

    cases = {
        "448 forward passes an image": forwards,
        "insertion and deletion": lambda: sl.metrics.perturbation_curves(model, images, maps, steps=STEPS, chunk=BATCH),
    }
    seconds = harness.interleave(cases, args.rounds, args.device)
    harness.write(
        f"metrics-{args.device.partition(':')[0]}",
        {
            "command": "python benchmarks/metrics.py",
            "model": "torchvision resnet18, random weights, 224 px",
            "n": {"images": args.images, "steps": STEPS, "batch": BATCH, "rounds": args.rounds},
            "seconds an image (median)": {
                n: round(sorted(s)[len(s) // 2] / args.images, 2) for n, s in seconds.items()
            },
            "ratio to the limit": round(
                harness.ratio(seconds, "insertion and deletion", "448 forward passes an image"), 3
            ),
            "target": "at most 1.2",
        },
        device=args.device,
    )


if __name__ == "__main__":
    main()
