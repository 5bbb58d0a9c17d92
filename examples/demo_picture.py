"""The picture in the README: what the demo's two models look at, on test images.

sightline demo
python examples/demo_picture.py runs/demo docs/images/demo.png
"""

import sys
from pathlib import Path

import torch

import sightline as sl
from sightline.data.loader import loader


def main(runs: Path, picture: Path) -> None:
    data = sl.data.create("digits", size=96)["test"]  # the demo's pictures, drawn at twice the size
    batch = next(iter(loader(data, size=96, batch_size=len(data), train=False)))
    shown = torch.stack([(batch.labels == digit).nonzero()[7, 0] for digit in range(5)])
    images, labels = batch.images[shown], batch.labels[shown]
    small = torch.nn.functional.interpolate(images, (48, 48), mode="area")
    maps = {}
    for caption, name in (("cross-entropy", "demo-cross-entropy"), ("SO-Loss", "demo-so-loss")):
        weights = runs / f"{name}-seed0" / "checkpoints" / "last.safetensors"
        model, spec = sl.load_model("sightline/small_cnn", weights, len(data.classes), size=48)
        seen = sl.explain(model, small, targets=labels, input_spec=spec)
        maps[caption] = sl.explainers.resize_maps(seen, (96, 96))
    sl.show(images, maps).save(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
