"""The page of an audit: the images on which a model uses most of what does not support its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sightline.auditing.result import AuditResult
from sightline.reporting.overlay import blend
from sightline.reporting.page import render_page
from sightline.reporting.thumbnails import data_uri, enlarge


@dataclass(frozen=True)
class GalleryItem:
    """One image with what the model uses and the evidence for its answer, as data URIs."""

    result: AuditResult
    picture: str
    used: str
    evidence: str


def draw_item(result: AuditResult, image: Tensor, used: Tensor, evidence: Tensor) -> GalleryItem:
    """Draw an image.

    Args:
        result: what was found of it.
        image: (3, H, W) in [0, 1].
        used: (H, W) in [0, 1], the map of what the model uses.
        evidence: (H, W) in [0, 1], the map of the predicted class.
    """
    shown = enlarge(image)
    heats = [enlarge(m[None]).clamp(0, 1) for m in (used, evidence)]
    return GalleryItem(result, data_uri(shown), *(data_uri(blend(shown[None], heat)[0]) for heat in heats))


def render(
    results: Sequence[AuditResult], worst: Sequence[GalleryItem], best: Sequence[GalleryItem], facts: Mapping[str, Any]
) -> str:
    """Render the page as a string.

    Args:
        results: of every image, the largest share outside first, those without a map last.
        worst: the first of them, drawn.
        best: the last that have a map, drawn; the smallest share outside first.
        facts: what the page says about model, data and settings; "model" and "reference explainer" among them.
    """
    counted = [f for f in results if np.isfinite(f.outside_fraction)]
    above = counted[: max(1, len(counted) // 10)]
    labels = sorted({f.label for f in counted})
    comparable = any(f.predicted in labels for f in counted)  # a model of other classes never says a label
    rows = [(name, [f for f in counted if f.label == name]) for name in labels]
    classes = [
        {
            "name": name,
            "n": len(some),
            "outside_fraction": np.mean([f.outside_fraction for f in some]),
            "agreed": _agreed(some),
        }
        for name, some in rows
    ]
    return render_page(
        "audit.html.j2",
        results=results,
        worst=worst,
        best=best,
        facts=facts,
        classes=sorted(classes, key=lambda row: -row["outside_fraction"]),
        median=np.median([f.outside_fraction for f in counted]),
        upper=above[-1].outside_fraction,
        chance=np.mean([f.chance for f in counted]),
        agreed=_agreed(counted) if comparable else None,
        agreed_above=_agreed(above),
        empty=len(results) - len(counted),
    )


def _agreed(results: Sequence[AuditResult]) -> float:
    return float(np.mean([f.predicted == f.label for f in results]))
