"""How often `diagnose` names the shortcut of a network, on made sets whose shortcut is known.

python benchmarks/shortcuts_found.py [--seeds 6] [--output shortcuts.csv]

Three shapes in random colors stand on textures. In a stamped set, a mark of each class lies in a corner; in a recomposed set,
the stripes of the background say the class; in a bright or blurred set, the brightness or the blur does; in a plain set,
only the shape does. One small network is trained on each set and diagnosed on other images of the same kind, on the CPU.
"""

import argparse
import csv
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

import sightline as sl
from sightline.diagnosis import diagnose

SIDE, CLASSES = 32, 3
SPEC = sl.InputSpec((0.5,) * 3, (0.25,) * 3, (SIDE, SIDE))
KINDS = ("stamped", "recomposed", "bright", "blurred", "plain")
EXPECTED = {
    "recomposed": "the background as a whole",
    "bright": "brightness or color cast",
    "blurred": "blur",
    "plain": "",
}
CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}


def shapes(labels: Tensor, draw: torch.Generator) -> Tensor:
    """Masks (n, SIDE, SIDE) of a disc, a cross or a bar near the middle."""
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    centers = SIDE / 2 + 4 * torch.rand(len(labels), 2, 1, 1, generator=draw) - 2
    u, v = x - centers[:, 0], y - centers[:, 1]
    disc = u**2 + v**2 <= 36
    cross = ((u.abs() <= 1.5) | (v.abs() <= 1.5)) & (u.abs().maximum(v.abs()) <= 7)
    bar = (u.abs() <= 8) & (v.abs() <= 3)
    return torch.stack([disc, cross, bar], 1)[torch.arange(len(labels)), labels]


def make(kind: str, count: int, seed: int, corner: str) -> sl.Batch:
    """Images of a set."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    y, x = torch.meshgrid(torch.arange(SIDE) / 3.0, torch.arange(SIDE) / 3.0, indexing="ij")
    angle = 3.1416 * (labels / CLASSES if kind == "recomposed" else torch.rand(count, generator=draw))
    phase = 6.28 * torch.rand(count, generator=draw)
    waves = (x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None] + phase[:, None, None]).sin()
    ground = 0.5 + 0.15 * waves[:, None] + 0.05 * torch.randn(count, 3, SIDE, SIDE, generator=draw)
    masks = shapes(labels, draw)
    colors = torch.rand(count, 3, 1, 1, generator=draw)
    images = torch.where(masks[:, None], colors, ground)
    if kind == "stamped":
        below, right = CORNERS[corner]
        rows, columns = (slice(1, 6) if not far else slice(-6, -1) for far in (below, right))
        stamp = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])[labels]
        images[:, :, rows, columns] = stamp[..., None, None]
    if kind == "bright":
        images = images + 0.2 * (labels - 1)[:, None, None, None]
    if kind == "blurred":
        for label in (1, 2):
            images[labels == label] = gaussian_blur(images[labels == label], [13, 13], [1.2 * label] * 2)
    known = torch.ones(count, dtype=torch.bool)
    return sl.Batch(images.clamp(0, 1), labels, masks=masks.to(torch.uint8), has_mask=known)


def train(batch: sl.Batch, seed: int) -> nn.Module:
    """A small network by cross-entropy."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 16, 1), (16, 32, 2), (32, 32, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(15):
        for rows in torch.randperm(len(batch.labels)).split(50):
            loss = nn.functional.cross_entropy(model(SPEC.normalize(batch.images[rows])), batch.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rows = []
    for kind in KINDS:
        for seed in range(given.seeds):
            corner = list(CORNERS)[seed % 4]
            model = train(make(kind, 300, 2 * seed, corner), seed)
            found = diagnose(model, [make(kind, 90, 2 * seed + 1, corner)], input_spec=SPEC, layer="8")
            assert found.shortcuts is not None
            named, accuracy = found.shortcuts.named, found.measurements["accuracy"].value
            expected = f"a mark in the {corner} corner" if kind == "stamped" else EXPECTED[kind]
            rows.append((kind, seed, f"{accuracy:.2f}", found.verdict.answer, expected, named, named == expected))
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    hits = sum(row[-1] for row in rows if row[0] != "plain")
    alarms = sum(not row[-1] for row in rows if row[0] == "plain")
    print(f"hits {hits} of {len(rows) - given.seeds}; false alarms {alarms} of {given.seeds}")
    if given.output is not None:
        with given.output.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("set", "seed", "accuracy", "verdict", "expected", "named", "hit"), *rows])


if __name__ == "__main__":
    main()
