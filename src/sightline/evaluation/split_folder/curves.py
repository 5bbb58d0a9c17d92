"""curves.json: explainer -> metric -> the mean curve. The explainer "" stands for metrics that judge no maps."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sightline._core.reading import reading
from sightline.evaluation.result import Curve
from sightline.statistics.bootstrap import Array


def curves_json(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """Return the curves of an evaluation as JSON."""
    return json.dumps({
        explainer: {metric: {"at": curve.at.tolist(), "score": curve.score.tolist()} for metric, curve in some.items()}
        for explainer, some in curves.items()
    })  # fmt: skip


def read_curves(path: Path) -> dict[str, dict[str, Array]]:
    """Return explainer -> metric -> (2, points): degrees of the change, and the mean score at each."""
    if not path.exists():
        return {}
    with reading(path, "evaluate the run again"):
        return {
            explainer: {metric: np.asarray([curve["at"], curve["score"]], float) for metric, curve in some.items()}
            for explainer, some in json.loads(path.read_text(encoding="utf-8")).items()
        }
