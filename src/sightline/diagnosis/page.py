"""The page of a diagnosis: the verdict, what it rests on, and the images that lean most on the background."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline._core.files import write_atomically
from sightline._core.output_lock import LONG, holding_file
from sightline.diagnosis.examples import Picture
from sightline.diagnosis.measurements import Measurement
from sightline.diagnosis.result import Diagnosis, Example
from sightline.diagnosis.verdict import RULES
from sightline.errors import SightlineError
from sightline.reporting.overlay import blend
from sightline.reporting.page import render_page, write_page
from sightline.reporting.thumbnails import data_uri, enlarge, outline

COLUMNS = ("accuracy", "background_swapped", "swap_loss", "object_removed", "energy_in_mask")  # of the table by class
GROUPS = (
    ("Accuracy when the background changes", ("accuracy", "background_noised", "background_greyed", "background_swapped")),
    ("Accuracy when the object is disturbed or removed", ("object_noised", "object_removed")),
    ("Predictions after the swap of backgrounds", ("prediction_kept", "prediction_follows_background")),
    ("Confidence and calibration", ("confidence", "ece")),
    ("Effect of the regions to avoid", ("mark_removed", "mark_pasted", "mark_swapped")),
    ("Location of the saliency maps", ("energy_in_mask", "pointing_game", "energy_in_avoid")),
)  # fmt: skip
CLASSES = 100  # of the table by class; the JSON file has all


@dataclass(frozen=True)
class GalleryItem:
    """One image as data URIs, with what is known of it."""

    about: dict[str, Any]
    image: str
    map: str
    swapped: str
    alone: str


def write_diagnosis(diagnosis: Diagnosis, output: str | Path) -> Path:
    """Write a diagnosis as a page, and as a JSON file of the same name next to it.

    Args:
        diagnosis: What `diagnose` returned.
        output: File name of the page, which ends in `.html`.

    Returns:
        The path of the page.

    Raises:
        SightlineError: The name has another suffix.
        RunFailedError: A file cannot be written.
    """
    output = check_page_name(output)
    with holding_file(output.with_suffix(".json"), LONG):  # so both files are of one diagnosis
        write_atomically(output.with_suffix(".json"), (json.dumps(diagnosis.to_dict(), indent=1) + "\n").encode())
        write_page(render(diagnosis), output)
    return output


def check_page_name(output: str | Path) -> Path:
    """Return the path of a page, or raise SightlineError where its name does not end in `.html`."""
    if Path(output).suffix not in (".html", ".htm"):
        raise SightlineError(f"output is {str(output)!r}; expected a name that ends in .html")
    return Path(output)


def render(diagnosis: Diagnosis) -> str:
    """Render the page as a string."""
    about = {row["row"]: row for row in diagnosis.images}
    known = diagnosis.measurements
    return render_page(
        "diagnosis.html.j2",
        d=diagnosis,
        rules=RULES,
        groups=[
            (title, [known[name] for name in names if name in known and not math.isnan(known[name].value)])
            for title, names in GROUPS
        ],
        figures=list(known.values()),
        text=text,
        span=span,
        columns=[known[name] for name in COLUMNS],
        classes=dict(list(diagnosis.classes.items())[:CLASSES]),
        examples=[draw_example(example, about[example.row]) for example in diagnosis.worst],
        percent=percent,
        names=diagnosis.names,
        pictures={row: draw_picture(each) for row, each in diagnosis.examples.pictures.items()},
        about=about,
    )


def draw_example(example: Example, about: dict[str, Any]) -> GalleryItem:
    """Draw an image, outlined where its object is taken to be, with its map and in its changed forms."""
    shown, border = enlarge(example.image), outline(example.region == 1)
    heat = enlarge(example.map[None]).clamp(0, 1)
    changed = (data_uri(enlarge(each)) for each in (example.swapped, example.alone))
    return GalleryItem(about, data_uri(shown, border), data_uri(blend(shown[None], heat)[0], border), *changed)


def draw_picture(picture: Picture) -> dict[str, str]:
    """Draw an image and its maps as data URIs: "image", "predicted" and, where it is another one, "true"."""
    shown, border = enlarge(picture.image), outline(picture.region == 1)
    maps = {"predicted": picture.predicted, "true": picture.true}
    heats = {name: enlarge(each[None]).clamp(0, 1) for name, each in maps.items() if each is not None}
    blended = {name: data_uri(blend(shown[None], heat)[0], border) for name, heat in heats.items()}
    return {"image": data_uri(shown, border), **blended}


def text(one: Measurement, value: float) -> str:
    """Format a value, as a percentage or unchanged."""
    if math.isnan(value):
        return "–"
    share = f"{value:.1%}" if one.share else f"{value:.2f}"
    if one.name in ("swap_loss", "mark_loss"):
        points = f"{100 * value:+.1f}"
        share = f"{points if float(points) else '0.0'} points"
    return share.replace("-", "−")


def span(one: Measurement) -> str:
    """Format the interval of a value."""
    if math.isnan(one.value):
        return "–"
    low, high = (100 * v if one.share else v for v in (one.low, one.high))
    return f"{low:.1f} to {high:.1f}".replace("-", "−") if one.share else f"{low:.2f} to {high:.2f}".replace("-", "−")


def percent(value: float) -> str:
    """Return a position on a strip from 0 to 1 as a percentage for a style sheet."""
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"
