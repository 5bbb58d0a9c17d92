"""What an iteration of LOTS costs, against a forward pass and input gradient, and against the algorithm as it is printed.

python benchmarks/lots.py [--device cuda] [--iterations 10] [--rounds 3]
"""

import argparse

import torch
import torchvision

import harness
import sightline as sl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval().to(args.device)
    images = torch.rand(args.batch, 3, 224, 224, device=args.device)
    unit = sl.InputSpec((0.0,) * 3, (1.0,) * 3, (224, 224))
    explainer = sl.create_explainer("lots", iterations=args.iterations, tau=0.0)  # tau = 0: no image stops early

    def limit() -> None:
        """A forward pass and the gradient of the images, at the full batch, once an iteration."""
        weights = [p for p in model.parameters() if p.requires_grad]
        for parameter in weights:
            parameter.requires_grad_(False)
        for _ in range(args.iterations):
            leaf = images.clone().requires_grad_()
            torch.autograd.grad(model(leaf).square().sum(), leaf)
        for parameter in weights:
            parameter.requires_grad_(True)

    def literal() -> None:
        """Algorithm 1 as it is printed: image by image, with a backward pass through everything."""
        features: list[torch.Tensor] = []
        handle = model.fc.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
        for image in images:
            source = image[None].clone()
            for _ in range(args.iterations):
                leaf = source.clone().requires_grad_()
                model.zero_grad()
                model(leaf)
                (0.5 * features.pop().square().sum()).backward()
                source = (source - leaf.grad / leaf.grad.abs().max() / 255).clamp(0, 1)
        handle.remove()
        model.zero_grad()

    cases = {
        "forward and input gradient": limit,
        "lots": lambda: explainer(model, images, input_spec=unit),
        "literal, image by image": literal,
    }
    seconds = harness.interleave(cases, args.rounds, args.device)
    pairs = [("lots", "forward and input gradient"), ("literal, image by image", "lots")]
    harness.write(
        f"lots-{args.device.partition(':')[0]}",
        {
            "command": "python benchmarks/lots.py",
            "model": "torchvision resnet50, random weights, 224 px",
            "n": {"batch": args.batch, "iterations": args.iterations, "rounds": args.rounds},
            "milliseconds an iteration and image (median)": {
                name: 1000 * sorted(s)[len(s) // 2] / args.iterations / args.batch for name, s in seconds.items()
            },
            "ratios": {f"{a} / {b}": round(harness.ratio(seconds, a, b), 3) for a, b in pairs},
            "target": "lots / limit at most 1.1; literal / lots at least 1.5 on a CPU, 50 on a GPU",
        },
        device=args.device,
    )


if __name__ == "__main__":
    main()
