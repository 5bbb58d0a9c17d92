"""A missing package is named together with the extra that installs it, and pyproject.toml agrees with the code."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sightline._core.optional import EXTRAS, missing_dependency, requires_extra
from sightline.errors import MissingDependencyError

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {  # where a distribution and its module have different names
    "scikit-learn": "sklearn", "opencv-python-headless": "cv2", "lightning-fabric": "lightning_fabric",
    "mlflow-skinny": "mlflow", "open-clip-torch": "open_clip",
}  # fmt: skip
EXPLAIN = (
    "import torch, torchvision, sightline as sl; "
    "sl.explain(torchvision.models.resnet18(), torch.rand(1, 3, 64, 64), {method!r})"
)

# Extra, blocked module, and what a user runs.
MISSING = [
    ("timm", "timm", "import sightline as sl; sl.load_model('timm/resnet18', weights=None)"),
    ("captum", "captum", EXPLAIN.format(method="saliency")),
    ("cluster", "sklearn", "from sightline.data import DATASETS; DATASETS.create('digits')"),
    ("masks", "cv2", "import torch; from sightline.localization.grabcut import grabcut; "
     "grabcut(torch.rand(1, 3, 32, 32), torch.tensor([[4.0, 4, 28, 28]]))"),
    ("maps", "zarr", "from sightline.data.map_store import MapStore; MapStore('x')"),
    ("maps", "lightning_fabric", "import sightline as sl; sl.maps.compute_maps(None, None, 'x', input_spec=None, devices=2)"),
    ("train", "lightning_fabric", "import sightline as sl; sl.train('so-loss')"),
    ("cli", "typer", "import sys; sys.argv = ['sightline', '--help']; from sightline.cli import main; main()"),
    ("report", "matplotlib", "import sightline as sl; sl.compare"),
    ("report", "matplotlib", "import sightline.reporting.plots"),
    ("report", "matplotlib", "import sightline.studies"),
    ("report", "jinja2", "import sightline.reporting.page"),
    ("report", "pyarrow", "import sightline.reporting.leaderboard"),
    ("rating", "starlette", "import sightline.rating.server"),
    ("rating", "uvicorn", "import sightline.rating.server"),
    ("fix", "cv2", "import sightline.marking.app"),
    ("fix", "starlette", "import sightline.marking.app"),
    ("sweep", "optuna", "import sightline.sweeping"),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "module", "code"), MISSING, ids=lambda value: str(value)[:20])
def test_missing_package_names_its_extra(extra: str, module: str, code: str) -> None:
    script = f"import sys; sys.modules[{module!r}] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0
    expected = f"needs {module}, which is not installed: pip install 'sightline-xai[{extra}]'"
    assert done.stderr.strip().endswith(expected), done.stderr


def test_extras_of_pyproject_are_those_of_the_code() -> None:
    assert {extra: set(_modules(extra)) for extra in PROJECT["optional-dependencies"]} == {
        extra: set(modules) for extra, modules in EXTRAS.items()
    }


def test_every_extra_has_a_promise() -> None:
    code = (Path(__file__).parent / "promises.py").read_text()
    listed = re.findall(
        r"^        (\w+),$", code[code.index("PROMISES = {") :], re.MULTILINE
    )  # what .ci/extras can run
    assert {*listed, "all"} == EXTRAS.keys()


def test_every_extra_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "get-started" / "install.md").read_text()
    assert [extra for extra in EXTRAS if f"`{extra}`" not in page] == []


def test_core_has_nine_dependencies() -> None:
    assert len(PROJECT["dependencies"]) == 9


def test_missing_package_of_another_extra_is_not_translated() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), requires_extra("maps", "a store of maps"):
        import no_such_package  # noqa: F401


def test_missing_dependency_message_is_one_sentence_with_the_command() -> None:
    with pytest.raises(MissingDependencyError, match=r"^a store needs zarr, .* pip install .sightline-xai\[maps\].$"):
        raise missing_dependency("zarr", "maps", "a store")


def _modules(extra: str) -> list[str]:
    """Return the modules that an extra makes importable, with those of the extras that it includes."""
    modules = []
    for requirement in PROJECT["optional-dependencies"][extra]:
        if included := re.fullmatch(r"sightline-xai\[(.*)\]", requirement):
            modules += [module for each in included[1].split(",") for module in _modules(each)]
        else:
            name = re.split(r"[><=!]", requirement)[0]
            modules.append(IMPORTED_AS.get(name, name))
    return modules
