"""Explainers side by side on the same photographs: the pictures of docs/explanation/explainers.md.

    python examples/methods_panel.py --weights efficientnet_lite0.safetensors [--output docs/images]

The photographs are scikit-image's. The weights are EfficientNet-Lite0's for timm's `tf_efficientnet_lite0`.
"""

import argparse
from pathlib import Path

import torch
from skimage import data
from torchvision.transforms import v2

import sightline as sl

PHOTOGRAPHS = {"Chelsea": data.chelsea, "espresso": data.coffee, "rocket": data.rocket}
CAMS = (
    "gradcam", "gradcam++", "smoothgradcam++", "xgradcam", "hirescam", "layercam", "eigencam", "ablationcam",
    "scorecam", "randomcam",
)  # fmt: skip
# Those that are defined for this network (its ReLU6 has no rule in DeepLIFT, LRP and guided backprop) and take seconds.
PIXELS = ("lots", "saliency", "smoothgrad", "input_x_gradient", "integrated_gradients", "fullgrad", "occlusion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--methods", nargs="*", help="instead of the two panels, one of these")
    args = parser.parse_args()

    model, spec = sl.load_model("timm/tf_efficientnet_lite0", weights=args.weights)
    see = v2.Compose([v2.ToImage(), v2.Resize(256), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)])
    images = torch.stack([see(photograph()) for photograph in PHOTOGRAPHS.values()])
    panels = {"methods": args.methods} if args.methods else {"cams": CAMS, "pixels": PIXELS}
    for name, methods in panels.items():
        maps: dict[str, torch.Tensor | None] = {}
        for method in methods:
            try:
                maps[method] = sl.explain(model, images, method, input_spec=spec)
            except sl.NotDefinedError as error:
                print(error)
                maps[method] = None
        figure = sl.show(images, maps, list(PHOTOGRAPHS)).figure()
        figure.set_dpi(75)
        path = args.output / f"{name}.jpg"
        figure.savefig(path)
        print(path)


if __name__ == "__main__":
    main()
