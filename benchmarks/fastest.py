"""What the fastest form of a model and bfloat16 save, against the default layout, pytorch-grad-cam and Quantus, in one run.

    bash benchmarks/peers.sh                                    # once: the peers, in an environment of their own
    OMP_NUM_THREADS=1 build/peers/bin/python benchmarks/fastest.py [--device cuda] [--rounds 3] [--only gradcam scorecam curves]

Weights are random and the models in PyTorch's default layout. Score-CAM runs on a layer with few channels, since its time is
proportional to their number; the peer runs the same layer in its own batches of 16. Quantus flips pixels to one value in the
order of a map; it runs once in that order and once in the opposite order, as many evaluations as our two curves.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import harness
import sightline as sl
from sightline.inference import fastest
from sightline.inference.precision import Precision, running_in

LAYERS = {"torchvision/resnet50": "layer1", "timm/tf_efficientnet_lite0": "blocks.5"}


def network(name: str, device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return sl.load_model(name, weights=None)[0].eval().to(device)


def gradcam(device: str) -> tuple[dict[str, Callable[[], Any]], dict[str, tuple[str, str]]]:
    model, images = network("torchvision/resnet50", device), torch.rand(32, 3, 224, 224, device=device)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    cases = {
        "resnet50 forward, 32 images": forward,
        "resnet50 gradcam": lambda: sl.explain(model, images),
        "resnet50 gradcam, bf16": lambda: sl.explain(model, images, precision="bf16"),
    }
    return cases, {
        f"{case} / forward in the default layout": (f"resnet50 {case}", "resnet50 forward, 32 images")
        for case in ("gradcam", "gradcam, bf16")
    }


def scorecam(device: str) -> tuple[dict[str, Callable[[], Any]], dict[str, tuple[str, str]]]:
    import pytorch_grad_cam

    image = torch.rand(1, 3, 224, 224, device=device)
    cases: dict[str, Callable[[], Any]] = {}
    ratios = {}
    for name, layer in LAYERS.items():
        model, short = network(name, device), name.partition("/")[2]

        def ours(model: torch.nn.Module = model, layer: str = layer, precision: Precision = "fp32") -> None:
            sl.explain(model, image, "scorecam", layer=layer, precision=precision)

        def theirs(model: torch.nn.Module = model, layer: str = layer) -> None:
            with pytorch_grad_cam.ScoreCAM(model=model, target_layers=[model.get_submodule(layer)]) as cam:
                cam(input_tensor=image, targets=None)

        cases[f"{short} scorecam"], cases[f"{short} scorecam, pytorch-grad-cam"] = ours, theirs
        cases[f"{short} scorecam, bf16"] = partial(ours, precision="bf16")
        for case in ("scorecam", "scorecam, bf16"):
            ratios[f"pytorch-grad-cam / {case}, {short}"] = (f"{short} scorecam, pytorch-grad-cam", f"{short} {case}")
    return cases, ratios


def curves(device: str) -> tuple[dict[str, Callable[[], Any]], dict[str, tuple[str, str]]]:
    import quantus

    model, images = network("torchvision/resnet50", device), torch.rand(2, 3, 224, 224, device=device)
    maps, steps = sl.explain(model, images), 28
    classes = model(images).argmax(1)
    flipping = quantus.PixelFlipping(
        features_in_step=224 * 224 // steps, normalise=False, perturb_baseline=0.0, disable_warnings=True
    )

    def ours(precision: Precision = "fp32") -> None:
        with running_in(precision):
            sl.metrics.perturbation_curves(model, images, maps, classes, steps=steps, fill=0.0)

    def theirs() -> None:  # the two curves, one order after the other
        for sign in (1, -1):
            given = {"x_batch": images.cpu().numpy(), "y_batch": classes.cpu().numpy()}
            ranked = (sign * maps)[:, None].expand_as(images).double().cpu().numpy()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                flipping(model=model, **given, a_batch=ranked, channel_first=True, softmax=True, device=device)

    cases = {
        "resnet50 insertion and deletion": ours,
        "resnet50 insertion and deletion, bf16": partial(ours, "bf16"),
        "resnet50 two orders, Quantus": theirs,
    }
    return cases, {
        f"Quantus / {case}": ("resnet50 two orders, Quantus", f"resnet50 {case}")
        for case in ("insertion and deletion", "insertion and deletion, bf16")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["gradcam", "scorecam", "curves"])
    args = parser.parse_args()
    parts = {"gradcam": gradcam, "scorecam": scorecam, "curves": curves}
    for name in args.only:
        cases, ratios = parts[name](args.device)
        seconds = harness.interleave(cases, args.rounds, args.device)
        harness.write(
            f"fastest-{name}-{args.device.partition(':')[0]}",
            {
                "command": f"python benchmarks/fastest.py --only {name} --rounds {args.rounds}",
                "n": {"rounds": args.rounds},
                "seconds (median)": {case: sorted(some)[len(some) // 2] for case, some in seconds.items()},
                "ratios [median, least, greatest]": {
                    told: [round(value, 3) for value in spread(seconds, *pair)] for told, pair in ratios.items()
                },
                "forms": sorted({str(form) for form in fastest._measured.values()}),
            },
            packages=("grad-cam", "quantus", "timm"),
            device=args.device,
        )


def spread(seconds: dict[str, list[float]], one: str, other: str) -> tuple[float, float, float]:
    """The median, the least and the greatest of one case's time by another's in the same round."""
    each = [a / b for a, b in zip(seconds[one], seconds[other])]
    return harness.ratio(seconds, one, other), min(each), max(each)


if __name__ == "__main__":
    main()
