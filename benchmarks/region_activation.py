"""What RIA's connected components cost of a training step: at most 5 %.

python benchmarks/region_activation.py [--device cuda] [--model resnet18] [--batch 32] [--rounds 5]

The maps are those of an untrained network, whose many small components are the dearest case, and of smooth blobs.
"""

import argparse

import torch
import torchvision
from torchvision.transforms.v2.functional import gaussian_blur

import harness
import sightline as sl
from sightline.regions.boxes import component_of_peak, tight_boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = torchvision.models.get_model(args.model, num_classes=10)
    model.to(args.device, memory_format=torch.channels_last)
    images = torch.rand(args.batch, 3, 224, 224).to(args.device, memory_format=torch.channels_last)
    boxes = torch.tensor([[[56.0, 56.0, 168.0, 168.0]]]).repeat(args.batch, 1, 1)
    has_box = torch.ones(args.batch, 1, dtype=torch.bool)
    batch = sl.Batch(images, torch.randint(10, (args.batch,)), boxes=boxes, has_box=has_box).to(args.device)
    objective = sl.Objective(model, sl.RegionActivation())
    optimizer = torch.optim.Adam(objective.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()

    maps = sl.explain(model, images)
    noise = gaussian_blur(torch.rand(args.batch, 224, 224), 15).to(args.device)
    noise = (noise - noise.amin((1, 2), keepdim=True)) / (
        noise.amax((1, 2), keepdim=True) - noise.amin((1, 2), keepdim=True)
    )
    cases = {
        "training step": step,
        "components of the network's maps": lambda: tight_boxes(component_of_peak(maps, 0.5)),
        "components of speckled maps": lambda: tight_boxes(component_of_peak(noise, 0.5)),
    }
    seconds = harness.interleave(cases, args.rounds, args.device)
    harness.write(
        f"region_activation-{args.device.partition(':')[0]}-{args.model}",
        {
            "command": f"python benchmarks/region_activation.py --model {args.model} --batch {args.batch} "
            f"--rounds {args.rounds}",
            "model": f"torchvision {args.model}, 224 px, channels_last, RIA loss, Adam",
            "n": {"batch": args.batch, "rounds": args.rounds},
            "seconds (median)": {name: round(sorted(each)[len(each) // 2], 4) for name, each in seconds.items()},
            "share of the training step": {
                name: round(harness.ratio(seconds, name, "training step"), 4)
                for name in cases
                if name != "training step"
            },
            "target": "at most 0.05",
        },
        device=args.device,
    )


if __name__ == "__main__":
    main()
