"""The Gaussian blur against torchvision's, at the sizes that sightline uses.

OMP_NUM_THREADS=1 python benchmarks/blur.py [--device cuda] [--rounds 5]
"""

import argparse

import torch
from torchvision.transforms.v2.functional import gaussian_blur as torchvisions

import harness
from sightline._core.kernels import gaussian_blur

CASES = {
    "masks for SO-Loss": ((32, 1, 224, 224), 23),
    "a map by LOTS": ((1, 1, 224, 224), 49),
    "random backgrounds": ((16, 3, 128, 128), 63),
    "a masker for Partition SHAP": ((1, 3, 224, 224), 127),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = {}
    for name, (shape, kernel) in CASES.items():
        torch.manual_seed(0)
        images = torch.rand(shape, device=args.device)
        seconds = harness.interleave(
            {
                "sightline": lambda images=images, kernel=kernel: gaussian_blur(images, kernel),
                "torchvision": lambda images=images, kernel=kernel: torchvisions(images, [kernel, kernel]),
            },
            args.rounds,
            args.device,
        )
        apart = (gaussian_blur(images, kernel) - torchvisions(images, [kernel, kernel])).abs().max().item()
        found[name] = {
            "shape": shape,
            "kernel": kernel,
            "torchvision / sightline": harness.ratio(seconds, "torchvision", "sightline"),
            "milliseconds": 1000 * min(seconds["sightline"]),
            "largest difference": apart,
        }
    harness.write("blur", {"rounds": args.rounds, "cases": found}, device=args.device)


if __name__ == "__main__":
    main()
