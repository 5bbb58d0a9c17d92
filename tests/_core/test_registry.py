"""Names, nearest names, options, and what other packages offer."""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from sightline._core.registry import Registry
from sightline.errors import SightlineError


@pytest.fixture
def registry() -> Registry[dict]:
    registry: Registry[dict] = Registry("shape")

    @registry.register("circle", round=True)
    def circle(radius: float, filled: bool = False) -> dict:
        """A circle."""
        return {"radius": radius, "filled": filled}

    return registry


def test_create_passes_options_and_capabilities_are_listed(registry: Registry[dict]) -> None:
    assert registry.create("circle", radius=2.0) == {"radius": 2.0, "filled": False}
    assert registry.capabilities() == {"circle": {"round": True}}
    assert registry["circle"].summary == "A circle."


def test_an_unknown_name_answers_with_the_nearest(registry: Registry[dict]) -> None:
    with pytest.raises(SightlineError, match=r"unknown shape 'circel'; did you mean 'circle'\?"):
        registry["circel"]


def test_an_unknown_option_answers_with_the_nearest(registry: Registry[dict]) -> None:
    with pytest.raises(SightlineError, match=r"'raduis'; did you mean 'radius'"):
        registry.create("circle", raduis=1)


def test_a_missing_option_is_named(registry: Registry[dict]) -> None:
    with pytest.raises(SightlineError, match="needs 'radius'"):
        registry.create("circle")


def test_a_taken_name_is_rejected(registry: Registry[dict]) -> None:
    with pytest.raises(SightlineError, match="taken"):
        registry.register("circle")(dict)


def test_another_package_offers_an_explainer_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "from sightline.explainers.cam import CAM\n"
        "def factory(*, power: float = 1.0):\n"
        "    'Activations alone.'\n"
        "    return CAM(lambda a, g: a.relu() ** power, needs_gradient=False)\n"
        "factory.capabilities = {'differentiable': True}\n"
    )
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sightline.explainers]\nelsewhere = elsewhere:factory\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import torch, sightline as sl\n"
        "model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n"
        "print(sl.explainers.list_explainers()['elsewhere'])\n"
        "print(tuple(sl.explain(model, torch.rand(2, 3, 8, 8), 'elsewhere').shape))\n"
        "sl.SegmentOverlap(explainer='elsewhere')"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["{'differentiable': True}", "(2, 8, 8)"]


def test_an_entry_point_names_a_factory_or_a_module_that_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: Registry[dict] = Registry("shape")

    def module() -> ModuleType:
        shapes.register("square", round=False)(dict)
        return ModuleType("elsewhere")

    class Line:
        """A line."""

        @classmethod
        def capabilities(cls) -> dict[str, bool]:
            return {"thin": True}

    points = [SimpleNamespace(name="any", load=module), SimpleNamespace(name="line", load=lambda: Line)]
    asked: list[str] = []
    monkeypatch.setattr("sightline._core.registry.entry_points", lambda group: asked.append(group) or points)
    assert shapes.capabilities() == {"line": {"thin": True}, "square": {"round": False}}
    assert shapes["line"].summary == "A line."
    assert asked == ["sightline.shapes"]


@pytest.mark.slow
def test_the_package_of_the_docs_is_listed_trained_and_evaluated(tmp_path: Path) -> None:
    """The package of docs/how-to/extending.md, word for word: an explainer, a guide, a metric and a data set."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "extending.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"```(?:toml|py)\n# (mypackage/\S+)\n(.*?)```", page, re.DOTALL))
    assert set(files) == {"mypackage/pyproject.toml", "mypackage/mypackage.py"}
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    # What pip writes of it; a build would need a backend, and this test no network.
    project = tomllib.loads((tmp_path / "mypackage" / "pyproject.toml").read_text())["project"]
    info = tmp_path / "mypackage" / "mypackage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))

    def sightline(*arguments: str) -> str:
        environment = {
            **os.environ,
            "PYTHONPATH": str(tmp_path / "mypackage"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        command = [sys.executable, "-c", "from sightline.cli import main; main()", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = sightline("list")
    for name in ("squarecam", "quiet_background", "peak", "sides"):
        assert re.search(rf"^{name} ", listed, re.MULTILINE), name

    sightline(
        "train", "demo-cross-entropy", "data=sides", "image_size=32", "batch_size=16", "guide=quiet_background",
        "stages=[{epochs: 1, lr: 1.0e-3}]", "evaluation.splits=[test]", "evaluation.explainers=[squarecam]",
        "evaluation.metrics=[accuracy, peak]", "--output", "run",
    )  # fmt: skip
    row = next(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert float(row["train/quiet_background"]) > 0
    summary = json.loads((tmp_path / "run" / "evaluation" / "test" / "summary.json").read_text())
    measured = {(result["metric"], result["explainer"]) for result in summary["results"]}
    assert measured == {("accuracy", None), ("peak", "squarecam")}


@pytest.mark.parametrize(
    ("noun", "group"),
    [
        ("guide", "sightline.guides"),
        ("box detector", "sightline.box_detectors"),
        ("query strategy", "sightline.query_strategies"),
    ],
)
def test_group_of_entry_points_is_the_plural_of_the_noun(noun: str, group: str) -> None:
    assert Registry(noun).group == group
