"""Write the generated pages into a folder: `python -m reference docs/reference`, with tools/ on PYTHONPATH."""

import sys
from pathlib import Path

from reference.api import API_PAGES
from reference.pages import PAGES


def main(folder: Path) -> None:
    """Write every generated page."""
    (folder / "api").mkdir(exist_ok=True)
    for name, page in (PAGES | API_PAGES).items():
        (folder / name).write_text(page(), encoding="utf-8")


main(Path(sys.argv[1]))
