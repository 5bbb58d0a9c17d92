"""The picture in the README: what the demo's two models look at, on test images.

sightline demo
python examples/demo_picture.py runs/demo docs/images/demo.png
"""

import sys
from pathlib import Path

import torch

import sightline as sl
from sightline.data.loader import create_loader


def main(runs: Path, picture: Path) -> None:
    data = sl.data.create_dataset("digits", size=96)["test_shifted"]  # the demo's pictures, drawn at twice the size
    batch = next(iter(create_loader(data, size=96, batch_size=len(data), train=False)))
    # The first digit 4 on the pagoda, the first 2 on petals, the first 0 on trees: groups are digit * 5 + region.
    shown = torch.stack([(batch.groups == group).nonzero()[0, 0] for group in (21, 13, 2)])
    images = batch.images[shown]
    small = torch.nn.functional.interpolate(images, (48, 48), mode="area")
    maps = {}
    for caption, name in (("cross-entropy", "demo-cross-entropy"), ("SO-Loss", "demo-so-loss")):
        weights = runs / f"{name}-seed1" / "checkpoints" / "last.safetensors"
        model, spec = sl.load_model("sightline/small_cnn", weights, len(data.classes), size=48)
        maps[caption] = sl.explainers.resize_maps(sl.explain(model, small, input_spec=spec), (96, 96))
        with torch.no_grad():
            predicted = model.eval()(spec.normalize(small)).argmax(1)
        print(caption, "says", predicted.tolist(), "of", batch.labels[shown].tolist())
    sl.show(images, maps).save(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
