"""All that the golden tests use of the package. When a module is renamed, this is the only file to change."""

from pathlib import Path
from typing import Any

import yaml

from sightline.studies import reproduce, shipped_studies


def list_studies() -> list[tuple[str, str]]:
    """Paper and item of every study that the package ships."""
    return [(paper, item) for paper, _, item in (name.partition("/") for name in shipped_studies())]


def study_values(paper: str, item: str) -> dict[str, Any]:
    """What a study's YAML file says, from which overrides pick arms and to whose `keys` they add."""
    return yaml.safe_load(shipped_studies()[f"{paper}/{item}"].read_text(encoding="utf-8"))


def run_study(paper: str, item: str, overrides: list[str], output: Path) -> Path:
    """Run a study on the CPU, with overrides `key.sub=value` as on the command line; returns the folder of its results."""
    return reproduce(paper, item, overrides, output=output, device="cpu")
