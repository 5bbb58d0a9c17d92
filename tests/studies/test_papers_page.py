"""docs/results/papers.md lists every table and figure of the papers."""

import re
from pathlib import Path

import pytest

from sightline.studies import shipped_studies

PAGE = Path(__file__).parents[2] / "docs" / "results" / "papers.md"
OWN = {"ec/cifar10", "impactx/cifar10", "impactx/controls"}  # studies of ours among those of papers

# What each paper has, counted in its text: numbers of tables and of figures. Roman numerals are written as digits.
PAPERS = {
    "lots": (
        ["5.1", "5.2", "5.3"],
        [
            *("2.1", "2.2", "2.3", "2.4", "4.1", "4.2"),
            *(f"3.{i}" for i in range(1, 7)),
            *(f"{chapter}.{i}" for chapter in "5A" for i in range(1, 8)),
        ],
    ),
    "so-loss": (["1"], [str(i) for i in range(1, 9)]),
    "ec": ([str(i) for i in range(1, 6)], [str(i) for i in range(1, 10)]),
    "ria": (["1", "2"], [str(i) for i in range(1, 8)]),
    "impactx": (["1", "2"], [str(i) for i in range(1, 6)]),
}


def section(paper: str) -> str:
    return next(text for text in PAGE.read_text("utf-8").split("\n## ") if text.startswith(f"`{paper}`"))


@pytest.mark.parametrize("paper", PAPERS)
def test_every_shipped_item_is_on_the_page_and_no_other(paper: str) -> None:
    rows = [line.split("|")[1] for line in section(paper).splitlines() if line.startswith("| `")]
    listed = [item for row in rows for item in re.findall(r"`([^`]+)`", row)]
    shipped = {name.partition("/")[2] for name in shipped_studies() if name.startswith(f"{paper}/") and name not in OWN}
    assert sorted(listed) == sorted(shipped)


@pytest.mark.parametrize("paper", PAPERS)
def test_no_table_or_figure_of_a_paper_is_missing_without_a_reason(paper: str) -> None:
    text = section(paper)
    reasons = " ".join(line for line in text.splitlines() if not line.startswith("|"))
    for word, numbers in zip(("table", "figure"), PAPERS[paper]):
        named = named_numbers(reasons, word)
        for number in numbers:
            listed = re.search(rf"`{word}-{re.escape(number)}(?:[a-d]+)?`", text)
            assert listed or number in named, f"{paper}: {word} {number} is not on the page"


def named_numbers(text: str, word: str) -> set[str]:
    """The numbers of "Figures 2.1 to 2.4, 3.1 and 5" and the like."""
    found: set[str] = set()
    for run in re.findall(rf"{word}s? ((?:[\dA.]+(?:, | and | to )?)+)", text, re.IGNORECASE):
        numbers = re.findall(r"to|[\dA]+(?:\.\d+)?", run)
        for place, number in enumerate(numbers):
            if number == "to":
                chapter, _, last = numbers[place + 1].rpartition(".")
                first = numbers[place - 1].rpartition(".")[2]
                found |= {f"{chapter}.{i}".lstrip(".") for i in range(int(first), int(last) + 1)}
            else:
                found.add(number)
    return found
