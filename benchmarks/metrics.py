"""How much insertion and deletion cost, against the model evaluations that they cannot do without, and against Quantus.

    pip install quantus
    python benchmarks/metrics.py [--device cuda] [--images 4] [--rounds 3]

Both curves of an image need 2 x 224 evaluations; the limit is as many forward passes in full batches, and nothing else.
Quantus's pixel flipping, which has no insertion, is timed on the same deletion curve (224 steps to black), and must give
that curve. It flips channels one by one, so the images are grey there.
"""

import argparse
import warnings

import numpy as np
import quantus
import torch
import torchvision

import harness
import sightline as sl
from sightline.faithfulness.perturbation import ranks_of

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

    grey = torchvision.models.resnet18()
    grey.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    grey = grey.eval().to(args.device)
    pixels = images[:, :1]
    classes = grey(pixels).argmax(1)
    theirs = quantus.PixelFlipping(features_in_step=STEPS, normalise=False, perturb_baseline=0.0, disable_warnings=True)
    given = {
        "x_batch": pixels.cpu().numpy(),
        "y_batch": classes.cpu().numpy(),
        "a_batch": -ranks_of(maps)[:, None]
        .cpu()
        .numpy()
        .astype(np.float64),  # no ties, which it breaks in another order
    }

    def flip() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(theirs(model=grey, **given, channel_first=True, softmax=True, device=args.device))

    def delete() -> torch.Tensor:
        return sl.metrics.perturbation_curves(
            grey, pixels, maps, classes, steps=STEPS, fill=0.0, curves=("deletion",), internal_batch_size=BATCH
        )["deletion"]

    np.testing.assert_allclose(delete().cpu().numpy()[:, 1:], flip(), atol=1e-5)

    cases = {
        "448 forward passes an image": forwards,
        "insertion and deletion": lambda: sl.metrics.perturbation_curves(
            model, images, maps, steps=STEPS, internal_batch_size=BATCH
        ),
        "deletion alone": delete,
        "deletion alone, Quantus": flip,
    }
    seconds = harness.interleave(cases, args.rounds, args.device)
    harness.write(
        f"metrics-{args.device.partition(':')[0]}",
        {
            "command": f"python benchmarks/metrics.py --images {args.images} --rounds {args.rounds}",
            "model": "torchvision resnet18, random weights, 224 px",
            "n": {"images": args.images, "steps": STEPS, "batch": BATCH, "rounds": args.rounds},
            "seconds an image (median)": {
                n: round(sorted(s)[len(s) // 2] / args.images, 2) for n, s in seconds.items()
            },
            "ratio to the limit": round(
                harness.ratio(seconds, "insertion and deletion", "448 forward passes an image"), 3
            ),
            "target": "at most 1.2",
            "Quantus's time by ours, the same curve": round(
                harness.ratio(seconds, "deletion alone, Quantus", "deletion alone"), 2
            ),
            "target against Quantus": "at least 3",
        },
        packages=("quantus",),
        device=args.device,
    )


if __name__ == "__main__":
    main()
