"""The count of hard phrases that `make lint` holds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from check_language import PATTERNS, files, hits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The weights cannot be had.", 1),
        ("An interrupted command goes on when it is given again.", 2),
        ("one row a vote", 1),
        ("The figures of `figure-5` are in figure.png.", 1),
        ("one row per vote\nThe command continues.", 0),
        ("Who looks at the object hardly minds.", 2),
    ],
)
def test_a_line_counts_once_for_each_pattern(text: str, expected: int) -> None:
    assert len(list(hits(text))) == expected


def test_every_pattern_says_what_to_write_instead() -> None:
    assert len(PATTERNS) == 40
    assert all(PATTERNS.values())


def test_generated_pages_are_not_counted() -> None:
    names = {path.name for path in files("docs")}
    assert "glossary.md" in names
    assert "recipe-keys.md" not in names
