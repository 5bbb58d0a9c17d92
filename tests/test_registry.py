"""Names, nearest names, options, and what other packages offer."""

import subprocess
import sys
from pathlib import Path

import pytest

from sightline.errors import SightlineError
from sightline.registry import Registry


@pytest.fixture
def registry() -> Registry[dict]:
    registry: Registry[dict] = Registry("shape")

    @registry.register("circle", round=True)
    def circle(radius: float, filled: bool = False) -> dict:
        """A circle."""
        return {"radius": radius, "filled": filled}

    return registry


def test_create_and_capabilities(registry: Registry[dict]) -> None:
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


def test_a_taken_name_is_refused(registry: Registry[dict]) -> None:
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
        "print(sl.explainers.names()['elsewhere'], tuple(sl.explain(model, torch.rand(2, 3, 8, 8), 'elsewhere').shape))\n"
        "sl.SegmentOverlap(explainer='elsewhere')"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "{'differentiable': True} (2, 8, 8)"
