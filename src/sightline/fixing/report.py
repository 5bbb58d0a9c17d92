"""The report of a fix: before and after, what was marked, and what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sightline.fixing.reading import Given
from sightline.fixing.result import Fixed
from sightline.models.opening import OpenedModel
from sightline.reporting.page import render_page


@dataclass(frozen=True)
class Look:
    """One image with the maps of both models, as data URIs, and what they answer."""

    name: str
    label: str
    before: str
    after: str
    image: str
    map_before: str
    map_after: str


def render_report(fixed: Fixed, opened: OpenedModel, given: Given, looks: Sequence[Look]) -> str:
    """Return the page as a string."""
    return render_page(
        "fix.html.j2",
        fixed=fixed,
        looks=looks,
        marked=int(given.drawn().sum()),
        images=len(given.images),
        about=opened.describe(),
        name=opened.name,
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        percent=lambda value: "–" if value is None else f"{100 * value:.1f}%",
    )
