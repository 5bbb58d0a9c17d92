"""An epoch of a stage that is trained from kept features, against the same epoch from images.

    OMP_NUM_THREADS=1 python benchmarks/feature_cache.py [--epochs 3] [--image-size 224]

Trains recomposed pets (90 images, EfficientNet-Lite0) as `sightline train` does. The time of an epoch is that of its steps; the
first cached epoch also computes the features, and is given apart. SIGHTLINE_DATA names the folder with `pets/`,
`imagenet1k-sample/` and `weights/`.
"""

import argparse
import statistics
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import harness
import sightline as sl

GUIDE = [{"name": "random_background"}, {"name": "l1"}]
STAGES: dict[str, dict[str, Any]] = {
    "head": {"trainable": "head", "guide": None},
    "head, random backgrounds and L1 on Grad-CAM": {"trainable": "head", "guide": GUIDE},
    "from conv_head, random backgrounds and L1 on Grad-CAM": {"trainable": {"from": "conv_head"}, "guide": GUIDE},
}


def epochs(folder: Path, stage: dict[str, Any], count: int, image_size: int) -> list[float]:
    """Seconds of each epoch of a training."""
    keys = {"stages": [{"epochs": count, "lr": 1e-3, **stage}], "image_size": image_size}
    rows = sl.train("pets-recomposed", keys, output=folder).rows
    ends = [0.0, *(float(row["seconds"]) for row in rows)]
    return [end - start for start, end in pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=3, help="of each training, at least 2; the first is not compared")
    parser.add_argument("--image-size", type=int, default=224)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of maps that are zero in so short a training
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, stage) in enumerate(STAGES.items()):
            sizes = arguments.epochs, arguments.image_size
            plain = epochs(Path(scratch, f"{number}-images"), stage, *sizes)[1:]
            first, *cached = epochs(Path(scratch, f"{number}-features"), stage | {"cache_features": 1}, *sizes)
            found[name] = {
                "seconds_an_epoch_from_images": statistics.median(plain),
                "seconds_an_epoch_from_features": statistics.median(cached),
                "seconds_to_compute_a_draw": first - statistics.median(cached),
                "ratio": statistics.median(plain) / statistics.median(cached),
            }
    harness.write(
        "feature_cache", {"images": 90, "epochs": arguments.epochs, "size": arguments.image_size, "stages": found}
    )


if __name__ == "__main__":
    main()
