"""The marking page's images, refits and export, for one model and one dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sightline._core.fingerprint import fingerprint
from sightline.data.dataset import ImageDataset
from sightline.data.transforms import eval_transform
from sightline.explainers import explain
from sightline.fixing.marks import Mark
from sightline.fixing.mending.finding import stretched
from sightline.fixing.mending.mend import Networks, find_masks, mend, open_bank
from sightline.fixing.protocol import Progress, Refitted
from sightline.fixing.reading import Given
from sightline.fixing.result import Fixed
from sightline.fixing.writing import write_model
from sightline.network.logits import logits_of

CHUNK = 32


class Session:
    """What the marking page shows, and what it does with the marks: see `sightline.fixing.protocol`.

    The images whose answer has the least of its map on the object come first; where the object is, is found by GrabCut and by
    an attention on features.

    Args:
        networks: the networks whose heads can be fitted.
        given: the images, with the marks that were given.
        seed: of the refits.
    """

    def __init__(self, networks: Networks, given: Given, seed: int = 0) -> None:
        self.networks, self.given, self.seed = networks, given, seed
        opened = networks.opened
        self.fingerprint = f"{fingerprint(opened.model)} {given.images.fingerprint} {opened.input_spec}"
        self.title = f"{opened.name}: {'; '.join(opened.describe())}"
        self.names: Sequence[str] = given.relative_names
        self.labels: Sequence[str] = [given.classes[label] for label in given.images.labels.tolist()]
        self._maps, answers = _look(networks, given.images)
        self.predicted: Sequence[str] = [given.classes[answer] for answer in answers]
        self._bank = open_bank(networks, given.images, seed)  # what a refit computes, the next one has
        self._found = find_masks(replace(given, avoid={}), networks, self._bank, [], False)
        self._latest: dict[int, np.ndarray] = {}  # masks of the latest refit
        self.scores: Sequence[float] = [self._outside(index) for index in range(len(self.names))]
        self._refits: dict[int, tuple[Fixed, Given]] = {}

    def image(self, index: int) -> np.ndarray:
        """Return the image as (H, W, 3) uint8."""
        return np.ascontiguousarray(self.given.images[index].image.permute(1, 2, 0).numpy())

    def map(self, index: int) -> np.ndarray:
        """Return the map of the given model over the whole image."""
        return self._maps[index]

    def suggest(self, index: int) -> np.ndarray | None:
        """Return a found mask."""
        mask = self._found.get(index)
        return None if mask is None else mask == 1

    def refit(self, marks: Mapping[int, Mark], number: int, progress: Progress) -> Refitted:
        """Fit the heads again on the marks so far."""
        given = self.with_marks(marks)
        fixed = mend(self.networks, given, self.seed, progress, bank=self._bank, found=self._latest)
        place = {name: index for index, name in enumerate(given.names)}
        self._latest = {place[name]: mask for name, mask in fixed.masks.items()}
        self._refits[number] = fixed, given
        steps = ", ".join(f"{escape(name)} {seconds:.0f} s" for name, seconds in fixed.seconds.items())
        notes = "".join(f"<li>{escape(note)}</li>" for note in fixed.notes)
        return Refitted(fixed.table, fixed.summary, fixed.helped, f"<p>{steps}</p><ul>{notes}</ul>")

    def export(self, number: int | None, marks: Mapping[int, Mark], folder: Path) -> Sequence[Path]:
        """Write the model of a refit, its report and a recipe; for the given model, only the marks.

        A refit of an earlier session is fitted again, from the marks as they are now.
        """
        if number is None:
            return []
        if number not in self._refits:
            self.refit(marks, number, lambda text, share: None)
        fixed, given = self._refits[number]
        return write_model(fixed, self.networks.opened, given, folder)

    def with_marks(self, marks: Mapping[int, Mark]) -> Given:
        """Return the images with the marks of the page instead of the given ones, where both are."""
        objects = {i: mark.object.astype(np.uint8) for i, mark in marks.items() if mark.object is not None}
        avoid = {i: mark.avoid for i, mark in marks.items() if mark.avoid is not None}
        return replace(self.given, objects={**self.given.objects, **objects}, avoid={**self.given.avoid, **avoid})

    def _outside(self, index: int) -> float:
        """Return the share of the map outside the found object."""
        saliency, mask = self._maps[index], self._found.get(index)
        if mask is None or saliency.sum() <= 0:
            return 0.0
        rows = (np.arange(saliency.shape[0]) * mask.shape[0]) // saliency.shape[0]
        columns = (np.arange(saliency.shape[1]) * mask.shape[1]) // saliency.shape[1]
        inside = mask[rows][:, columns] == 1
        return float(saliency[~inside].sum() / saliency.sum())


def _look(networks: Networks, images: ImageDataset) -> tuple[list[np.ndarray], list[int]]:
    """Return the map of each whole image, (S, S) stretched over it, and the answer for its centre."""
    opened = networks.opened
    size = opened.input_spec.size[0]
    device = next(opened.model.parameters()).device
    transform = eval_transform(size)
    maps: list[np.ndarray] = []
    answers: list[int] = []
    for start in range(0, len(images), CHUNK):
        samples = [images[index] for index in range(start, min(start + CHUNK, len(images)))]
        whole = torch.stack([stretched(sample, size) for sample in samples]).to(device)
        maps.extend(explain(opened.model, whole, input_spec=opened.input_spec).cpu().numpy())
        centre = torch.stack([transform(sample.image).as_subclass(Tensor) for sample in samples]).to(device)
        with torch.no_grad():
            answers.extend(logits_of(opened.model(opened.input_spec.normalize(centre))).argmax(1).tolist())
    return maps, answers
