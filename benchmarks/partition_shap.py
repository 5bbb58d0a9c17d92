"""What Partition SHAP costs, against the shap package and against as many bare forward passes of masked images in full batches.

python benchmarks/partition_shap.py [--device cuda] [--batch 128] [--evaluations 2000] [--rounds 3]
"""

import argparse
from collections.abc import Callable
from typing import Any

import shap
import timm
import torch
from torch import Tensor, nn

import harness
from sightline._core.internal_batches import InternalBatches
from sightline.attributions.owen import owen_values
from sightline.models import MODELS


@torch.no_grad()
def limit(model: nn.Module, images: Tensor, evaluations: int) -> None:
    """As many forward passes of masked images, in the batches that an explainer of ours would choose."""
    rows = min(InternalBatches().size(images), len(images) * evaluations)
    of = torch.arange(rows, device=images.device) % len(images)
    some, shown = images[of], torch.rand(rows, *images.shape[1:], device=images.device) < 0.5
    for start in range(0, len(images) * evaluations, rows):
        count = min(rows, len(images) * evaluations - start)
        model(torch.where(shown[:count], some[:count], 0.5)).softmax(1)


def by_shap(model: nn.Module, images: Tensor, evaluations: int) -> Callable[[], Any]:
    """Shap's partition explainer, which takes image by image."""
    _, channels, height, width = images.shape

    @torch.no_grad()
    def probability(pixels: Any) -> Any:
        inputs = torch.as_tensor(pixels, device=images.device).movedim(-1, 1)
        return model(inputs).softmax(1)[:, :1].cpu().numpy()

    explainer = shap.PartitionExplainer(probability, shap.maskers.Image(0.5, (height, width, channels)))
    pixels = images.movedim(1, -1).contiguous().cpu().numpy()
    return lambda: explainer(pixels, max_evals=evaluations, batch_size=10, fixed_context=None, silent=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=128, help="images for LeNet-5")
    parser.add_argument("--few", type=int, default=4, help="of them, those that shap explains")
    parser.add_argument("--large", type=int, default=2, help="images for EfficientNet-Lite0; 0 leaves it out")
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--large-evaluations", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    torch.manual_seed(0)
    lenet = MODELS.create("lenet5").eval().to(args.device)
    images = torch.rand(args.batch, 3, 32, 32, device=args.device)
    few = images[: args.few]
    cases = {
        "limit": lambda: limit(lenet, images, args.evaluations),
        "partition_shap": lambda: owen_values(lenet, images, 0, evaluations=args.evaluations, masker=0.5),
        "partition_shap, few images": lambda: owen_values(lenet, few, 0, evaluations=args.evaluations, masker=0.5),
        "shap": by_shap(lenet, few, args.evaluations),
    }
    seconds = harness.interleave(cases, args.rounds, args.device)
    images_of = {name: len(images if name in ("limit", "partition_shap") else few) for name in cases}
    an_image = {name: [s / images_of[name] for s in taken] for name, taken in seconds.items()}
    throughput = {f"lenet5, {name}": args.evaluations / median(taken) for name, taken in an_image.items()}

    if args.large:
        large = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval().to(args.device)
        photos = torch.rand(args.large, 3, 224, 224, device=args.device)
        both = {
            "limit": lambda: limit(large, photos, args.large_evaluations),
            "partition_shap": lambda: owen_values(large, photos, 0, evaluations=args.large_evaluations, masker=0.5),
        }
        for name, taken in harness.interleave(both, args.rounds, args.device).items():
            throughput[f"tf_efficientnet_lite0, {name}"] = args.large * args.large_evaluations / median(taken)

    pairs = [("shap", "partition_shap"), ("shap", "partition_shap, few images"), ("partition_shap", "limit")]
    harness.write(
        f"partition_shap-{args.device.partition(':')[0]}",
        {
            "command": f"python benchmarks/partition_shap.py --batch {args.batch} --rounds {args.rounds}",
            "model": "LeNet-5 at 32 px and timm/tf_efficientnet_lite0 at 224 px, random weights",
            "n": vars(args),
            "seconds an image, lenet5 (median)": {name: round(median(taken), 5) for name, taken in an_image.items()},
            "ratios, lenet5": {f"{a} / {b}": round(harness.ratio(an_image, a, b), 3) for a, b in pairs},
            "evaluations a second": {name: round(value) for name, value in throughput.items()},
            "target": "shap / partition_shap at least 3 on a CPU, 50 on a GPU",
        },
        packages=("shap", "timm"),
        device=args.device,
    )


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
