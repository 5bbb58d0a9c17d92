"""A page: one HTML file that needs no other file."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from sightline._core.files import write_atomically
from sightline._core.optional import requires_extra
from sightline._core.output_lock import LONG, holding_file
from sightline.reporting import formatting

with requires_extra("report", "an HTML page"):
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape


def render_page(template: str, **values: Any) -> str:
    """Fill a template of this package.

    Args:
        template: its file name under `templates/`.
        values: the variables of the template.
    """
    environment = Environment(
        loader=PackageLoader("sightline.reporting"),
        autoescape=True,  # class names, paths and recipes come from users' files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        title=formatting.title,
        number=formatting.number,
        change=formatting.change,
        interval=formatting.interval,
        code=mark_code,
        mean=np.mean,
        zip=zip,
    )
    return environment.get_template(template).render(**values)


def mark_code(text: str) -> "Markup":
    """Escape a sentence for a page, with its parts between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def write_page(page: str, output: str | Path) -> Path:
    """Write a page whole or not at all; its folder is made if needed.

    Raises:
        RunFailedError: the file cannot be written.
    """
    output = Path(output)
    with holding_file(output, LONG):
        write_atomically(output, page.encode())
    return output
