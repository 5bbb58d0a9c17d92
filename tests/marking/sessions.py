"""Small marking sessions for the tests: discs on scenes, and a refit that is a logistic regression on mean colors."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch

from sightline.errors import SightlineError
from sightline.fixing.protocol import Figure, Refitted

HEIGHT, WIDTH = 96, 128
COLORS = {"amber": (230, 170, 30), "blue": (40, 70, 220)}


class Discs:
    """Discs in two colors. The scene has the color of the other class in every second image, and the map lies in a corner."""

    title = "disc model · 128 × 96 px · mean 0, std 1"

    def __init__(self, images: int = 12, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.fingerprint = f"discs {images} {seed}"
        names = list(COLORS)
        self.labels = [names[i % 2] for i in range(images)]
        self.predicted = [names[(i // 2) % 2] for i in range(images)]
        self.names = [f"{label}/{i:03d}.jpg" for i, label in enumerate(self.labels)]
        self.scores = draw.permutation(images).astype(float).tolist()
        self.centers = [(draw.uniform(0.35, 0.65), draw.uniform(0.35, 0.65)) for _ in range(images)]
        self.noise = [draw.normal(0, 12, (HEIGHT, WIDTH, 3)) for _ in range(images)]

    def truth(self, index: int) -> np.ndarray:
        x, y = self.centers[index]
        rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        return np.hypot(columns - x * WIDTH, rows - y * HEIGHT) < 24

    def image(self, index: int) -> np.ndarray:
        scene = np.array([120, 140, 110.0]) + np.array(COLORS[self.predicted[index]]) * 0.3
        pixels = np.where(self.truth(index)[..., None], np.array(COLORS[self.labels[index]], float), scene)
        return np.clip(pixels + self.noise[index], 0, 255).astype(np.uint8)

    def map(self, index: int) -> np.ndarray:
        rows, columns = np.mgrid[:12, :16]
        return np.exp(-((rows - 2) ** 2 + (columns - 2) ** 2) / 8)

    def suggest(self, index: int) -> np.ndarray | None:
        return None if index % 4 == 3 else self.truth(index)


class MeanColors:
    """Logistic regression on the mean color: of the corner that the map shows before, of the marked objects after."""

    def __init__(self, data: Discs) -> None:
        self.data = data

    def __call__(self, marks, number, progress):
        progress("Reading the marked images", 0.1)
        masks = {i: m.resized(HEIGHT, WIDTH).object for i, m in marks.items() if m.object is not None}
        if len({self.data.labels[i] for i in masks}) < 2:
            raise SightlineError("The marks are of one class. Mark an object of each class.")
        fresh = Discs(24, seed=1)  # images that nobody marks
        corner = np.zeros((HEIGHT, WIDTH), bool)
        corner[: HEIGHT // 4, : WIDTH // 4] = True
        before = self._accuracy(dict.fromkeys(masks, corner), fresh)
        progress("Fitting", 0.6)
        after = self._accuracy(masks, fresh)
        figures = [
            Figure("accuracy", before, after, (max(0.0, after - 0.2), min(1.0, after + 0.2))),
            Figure("swap", float("nan"), np.float32(0.1)),
        ]
        html = f"<h3>Unmarked images</h3><p>{len(fresh.names)} images</p>"
        word = "Better than before." if after > before else "No better than before."
        return Refitted(figures, word, after > before, html)

    def _accuracy(self, masks, fresh) -> float:
        names = list(COLORS)
        features = torch.tensor(
            np.array([self.data.image(i)[m].mean(0) for i, m in masks.items()]), dtype=torch.float32
        )
        labels = torch.tensor([names.index(self.data.labels[i]) for i in masks])
        mean, std = features.mean(0), features.std(0) + 1e-3
        head = torch.nn.Linear(3, 2)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50)

        def closure():
            optimizer.zero_grad()
            loss = (
                torch.nn.functional.cross_entropy(head((features - mean) / std), labels)
                + head.weight.square().sum() * 1e-3
            )
            loss.backward()
            return loss

        optimizer.step(closure)
        seen = np.array([fresh.image(i)[fresh.truth(i)].mean(0) for i in range(len(fresh.names))])
        told = head((torch.tensor(seen, dtype=torch.float32) - mean) / std).argmax(1).tolist()
        return sum(names[answer] == label for answer, label in zip(told, fresh.labels)) / len(told)


def export(number, marks, folder):
    (folder / "model.txt").write_text(f"refit {number} of {len(marks)} marks\n")
    return [folder / "model.txt"]


@contextmanager
def serving(
    folder: Path, images: int = 12, head_seconds: float = 10
) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A server in a process of its own, with its address and token."""
    script = (
        "import sys; from pathlib import Path; from sightline.marking.app import serve;"
        "from sessions import Discs, MeanColors, export; from sightline.serving.listening import TimedProtocol;"
        "TimedProtocol.head_seconds = float(sys.argv[3]);"
        "data = Discs(int(sys.argv[2]));"
        "serve(data, MeanColors(data), export, Path(sys.argv[1]), port=0, announce=lambda link: print(link, flush=True))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(images), str(head_seconds)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        link = urlsplit(process.stdout.readline().strip())
        yield process, f"{link.scheme}://{link.netloc}", parse_qs(link.query)["token"][0]
    finally:
        process.kill()
        process.wait()
