"""What a diagnosis found, in memory."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from sightline.diagnosis.examples import Examples
from sightline.diagnosis.measurements import Measurement
from sightline.diagnosis.preprocessing import PreprocessingCheck
from sightline.diagnosis.recommendations import Recommendation
from sightline.diagnosis.shortcuts import Shortcuts
from sightline.diagnosis.sources import Sources
from sightline.diagnosis.verdict import RULES, Verdict


@dataclass(frozen=True)
class Example:
    """One of the images that lean most on the background, to be drawn.

    Attributes:
        row: its place among the images of the diagnosis.
        image: (3, H, W) in [0, 1].
        region: (H, W) uint8, where its object is.
        map: (H, W) in [0, 1], the map of its predicted class.
        swapped: (3, H, W), with the other background.
        alone: (3, H, W), without its object.
    """

    row: int
    image: Tensor
    region: Tensor
    map: Tensor
    swapped: Tensor
    alone: Tensor


@dataclass(frozen=True)
class Diagnosis:
    """Whether a model looks at the object.

    Attributes:
        verdict: the answer and what it rests on.
        preprocessing: what came of trying other ways to prepare the images; None = it was not tried.
        shortcuts: what the answers follow; None = it was not searched for, or there are too few images.
        sources: what the sources of the images are to the model; None = they are not known.
        measurements: every value, by name.
        classes: class -> measurement -> [value, low, high, n], the class that loses most by a swap first.
        images: a row per image, the ones that lean most on the background first.
        worst: the first of these with their images.
        examples: confused classes, and the best and worst images of each class, with their maps.
        names: the name of each of the model's classes.
        recommendations: guides that fit the annotation.
        mend: the `sightline fix` command for this model and folder; "" = they are not known by name.
        annotation: the kind, source and trust of the annotation.
        facts: model, data and settings.
    """

    verdict: Verdict
    preprocessing: PreprocessingCheck | None
    shortcuts: Shortcuts | None
    sources: Sources | None
    measurements: dict[str, Measurement]
    classes: dict[str, dict[str, list[float]]]
    images: list[dict[str, Any]]
    worst: list[Example]
    examples: Examples
    names: list[str]
    recommendations: list[Recommendation]
    mend: str
    annotation: dict[str, Any]
    facts: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.verdict.answer}: {self.verdict.because}"

    def to_dict(self) -> dict[str, Any]:
        """All but the images, as plain values; what has no value is None."""
        plain = {
            "answer": self.verdict.answer,
            "because": self.verdict.because,
            "findings": self.verdict.findings,
            "rules": list(RULES),
            "preprocessing": None if self.preprocessing is None else asdict(self.preprocessing),
            "shortcuts": None if self.shortcuts is None else asdict(self.shortcuts),
            "sources": None if self.sources is None else asdict(self.sources),
            "annotation": self.annotation,
            "measurements": {name: asdict(each) for name, each in self.measurements.items()},
            "classes": self.classes,
            "images": self.images,
            "confusions": [
                {"label": self.names[c.label], "predicted": self.names[c.predicted], "count": c.count, "of": c.of}
                for c in self.examples.confusions
            ],
            "recommendations": [{**asdict(each), "command": each.command} for each in self.recommendations],
            "mend": self.mend,
            "facts": self.facts,
        }
        return _without_nan(plain)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
