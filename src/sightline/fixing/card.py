"""The model card of a mended model: what it is, what was found, and what it must not be trusted with."""

from datetime import UTC, datetime

from sightline.fixing.reading import Given
from sightline.fixing.result import Fixed
from sightline.models.opening import OpenedModel
from sightline.reporting.markdown import markdown


def render_card(fixed: Fixed, opened: OpenedModel, given: Given) -> str:
    """Return the card as Markdown."""
    images, marked = len(given.images), int(given.drawn().sum())
    verdict = "The refit helped" if fixed.helped else "The refit did not help"
    rows = [[row.name, _percent(row.before), _percent(row.after), _interval(row.interval)] for row in fixed.table]
    chosen = fixed.chosen
    pooling = "an attention map that was fitted to the masks" if chosen.attention else "their mean"
    sections = [
        f"# {opened.name}, mended by sightline",
        f"**{verdict}.** {fixed.summary}",
        "## Before and after",
        markdown(["Measurement", "Given model", "Mended model", "95 % interval"], rows),
        "Each image was classified by a head that was fitted on other images. The network itself was not trained. These values "
        "are of the images below alone; images from elsewhere can give other values.",
        "## The model",
        _bullets(
            [
                *opened.describe(),
                f"network: {chosen.trunk}; features pooled by {pooling}; penalty {chosen.strength:g}",
                "pixels: (value / 255 - mean) / std; `model/model.json` has the lines that load the model",
            ]
        ),
        "## The images that it was fitted on",
        _bullets(
            [
                f"{images} images, {marked} of them with a given mask or region to avoid; fingerprint "
                f"{given.images.fingerprint}",
                f"classes: {', '.join(fixed.classes)}",
                f"date: {datetime.now(UTC):%Y-%m-%d}",
            ]
        ),
        "## Know before use",
        _bullets(_limits(fixed, given)),
    ]
    return "\n\n".join(sections) + "\n"


def _limits(fixed: Fixed, given: Given) -> list[str]:
    limits = [] if fixed.helped else ["The gain is not significant. Do not use it instead of the given model."]
    if not given.drawn().any():
        limits.append(
            "No mask or region was given: the objects were found by GrabCut and an attention map. Look at `masks/`."
        )
    return [
        *limits,
        "The use of the object was measured on the images above alone. Measure it again on your images.",
        *fixed.notes,
    ]


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _interval(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{_percent(interval[0])} to {_percent(interval[1])}"
