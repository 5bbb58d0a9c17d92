"""How much a map costs, against the bare forward pass and against pytorch-grad-cam, torch-cam and Captum.

    python benchmarks/explainers.py [--device cuda] [--batch 32] [--rounds 5]

The limit is the forward pass alone, in eval and inference mode: nobody can explain a prediction for less.
"""

import argparse

import torch
import torchvision

import harness
import sightline as sl

METHODS = ("gradcam", "gradcam++", "xgradcam", "hirescam", "layercam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()

    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval().to(args.device)
    images = torch.rand(args.batch, 3, 224, 224, device=args.device)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    cases = {"forward": forward}
    for method in METHODS:
        cases[method] = lambda method=method: sl.explain(model, images, method)
    if args.peers:
        import captum.attr
        import pytorch_grad_cam
        import torchcam.methods

        def pytorch_grad_cam_map() -> None:
            with pytorch_grad_cam.GradCAM(model=model, target_layers=[model.layer4]) as cam:
                cam(input_tensor=images, targets=None)

        def torch_cam_map() -> None:
            with torchcam.methods.GradCAM(model, "layer4") as cam:
                scores = model(images)
                cam(scores.argmax(1).tolist(), scores)

        def captum_map() -> None:  # it takes the classes, so that it is spared the forward pass that finds them
            captum.attr.LayerGradCam(model, model.layer4).attribute(images, target=classes)

        classes = model(images).argmax(1)
        cases["pytorch-grad-cam gradcam"] = pytorch_grad_cam_map
        cases["torch-cam gradcam"] = torch_cam_map
        cases["captum LayerGradCam"] = captum_map

    seconds = harness.interleave(cases, args.rounds, args.device)
    harness.write(
        f"explainers-{args.device.partition(':')[0]}",
        {
            "command": "python benchmarks/explainers.py",
            "model": "torchvision resnet50, random weights, 224 px",
            "n": {"batch": args.batch, "rounds": args.rounds},
            "seconds a batch (median)": {name: sorted(s)[len(s) // 2] for name, s in seconds.items()},
            "ratio to the forward pass": {name: round(harness.ratio(seconds, name, "forward"), 3) for name in cases},
            "target": "at most 1.15",
        },
        packages=("grad-cam", "torchcam", "captum"),
        device=args.device,
    )


if __name__ == "__main__":
    main()
