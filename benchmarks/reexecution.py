"""What Ablation-CAM and Score-CAM cost on one image, against the limit and against pytorch-grad-cam.

    python benchmarks/reexecution.py [--device cuda] [--rounds 2]

The limit of Ablation-CAM is one forward pass and a tail for each of the 512 channels; that of Score-CAM is 513 forward
passes in full batches.
"""

import argparse

import torch
import torchvision

import harness
import sightline as sl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval().to(args.device)
    image = torch.rand(1, 3, 224, 224, device=args.device)
    many = torch.rand(513, 3, 224, 224, device=args.device)

    def forwards() -> None:
        with torch.inference_mode():
            for part in many.split(32):
                model(part)

    def forward_and_tails() -> None:
        with torch.inference_mode():
            tail = sl.Tap(model).tail(image)
            tail(tail.raw.expand(512, -1, -1, -1), torch.zeros(512, dtype=torch.int64, device=args.device))

    cases = {
        "513 forwards": forwards,
        "forward and 512 tails": forward_and_tails,
        "ablationcam": lambda: sl.explain(model, image, "ablationcam"),
        "scorecam": lambda: sl.explain(model, image, "scorecam"),
    }
    if args.peers:
        import pytorch_grad_cam

        def peer(kind: type) -> None:
            with kind(model=model, target_layers=[model.layer4]) as cam:
                cam(input_tensor=image, targets=None)

        cases["pytorch-grad-cam ablationcam"] = lambda: peer(pytorch_grad_cam.AblationCAM)
        cases["pytorch-grad-cam scorecam"] = lambda: peer(pytorch_grad_cam.ScoreCAM)

    seconds = harness.interleave(cases, args.rounds, args.device)
    pairs = [("ablationcam", "forward and 512 tails"), ("scorecam", "513 forwards")]
    if args.peers:
        pairs += [(f"pytorch-grad-cam {name}", name) for name in ("ablationcam", "scorecam")]
    harness.write(
        f"reexecution-{args.device.partition(':')[0]}",
        {
            "command": "python benchmarks/reexecution.py",
            "model": "torchvision resnet18, random weights, 224 px, layer4",
            "n": {"images": 1, "rounds": args.rounds},
            "seconds (median)": {name: sorted(s)[len(s) // 2] for name, s in seconds.items()},
            "ratios": {f"{a} / {b}": round(harness.ratio(seconds, a, b), 3) for a, b in pairs},
            "target": "scorecam / 513 forwards at most 1.1; pytorch-grad-cam ablationcam / ablationcam at least 100",
        },
        packages=("grad-cam",),
        device=args.device,
    )


if __name__ == "__main__":
    main()
