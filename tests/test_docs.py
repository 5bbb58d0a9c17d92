"""The code in README and docs runs as it stands."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sightline.acquisition import QUERY_STRATEGIES
from sightline.explainers import EXPLAINERS
from sightline.guides import GUIDES
from sightline.localization.detectors import BOX_DETECTORS
from sightline.metrics import METRICS
from sightline.models.registry import MODELS

ROOT = Path(__file__).parents[1]
IGNORED = (ROOT / ".gitignore").read_text().splitlines()
GENERATED = {
    ROOT / name.strip("/") for name in IGNORED if name.startswith("/docs/")
}  # see tests/test_reference_pages.py
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - GENERATED)]


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda p: p.name)
def test_the_python_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for registry in (BOX_DETECTORS, EXPLAINERS, GUIDES, METRICS, MODELS, QUERY_STRATEGIES):
        registry.names()  # loads the built-in entries; what a page registers goes into the copy
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("page", ["README.md", "docs/get-started/quickstart.md"])
def test_the_first_map_of_a_page_is_drawn(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights: the page downloads the pretrained ones."""
    timm = pytest.importorskip("timm")
    pytest.importorskip("sklearn")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```py\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    exec(compile(block, page, "exec"), {"__name__": "docs"})
    assert (tmp_path / "overlay.png").stat().st_size > 1000


def test_readme_is_short_and_starts_with_an_install_line() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert any(line.startswith("pip install") for line in lines[:30])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            path = (page.parent / target).resolve()
            assert path.exists() or path in GENERATED, target


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(entries: list[dict[str, Any]]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages(value)

    named = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(named) == sorted(str(page.relative_to(ROOT / "docs")) for page in [*PAGES[1:], *GENERATED])


def test_every_paper_that_a_name_cites_is_in_the_bibliography() -> None:
    lines = (ROOT / "docs" / "reference" / "bibliography.md").read_text().splitlines()
    cited = {
        (author, year)
        for registry in (EXPLAINERS, GUIDES, METRICS, QUERY_STRATEGIES)
        for entry in registry
        if entry.factory.__module__.startswith("sightline.")
        for author, year in re.findall(r"([A-Z][\w]+)(?: et al\.| & \w+| and \w+) (\d{4})", entry.summary)
    }
    assert len(cited) > 20
    assert [each for each in sorted(cited) if not any(each[0] in line and each[1] in line for line in lines)] == []


@pytest.mark.parametrize(
    "term",
    [
        *("active learning", "query strategy", "faithfulness", "out-of-distribution", "hyperparameter", "saliency map"),
        *(
            "guide",
            "objective",
            "tap",
            "recipe",
            "mask",
            "shortcut",
            "energy",
            "pointing game",
            "target layer",
            "study",
        ),
    ],
)
def test_the_glossary_defines_a_term(term: str) -> None:
    titles = re.findall(r"^(\S.*)\n:   \S", (ROOT / "docs" / "reference" / "glossary.md").read_text(), re.MULTILINE)
    text = (ROOT / "docs" / "reference" / "glossary.md").read_text().lower()
    assert any(term in title.lower() for title in titles) or f"*{term}*" in text
