"""Write the generated pages into a folder: `python -m reference docs/reference`, with tools/ on PYTHONPATH."""

import sys
from pathlib import Path

from reference.pages import PAGES


def main(folder: Path) -> None:
    """Write every generated page."""
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


main(Path(sys.argv[1]))
