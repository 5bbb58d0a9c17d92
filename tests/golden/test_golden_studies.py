"""Every shipped study, made very small, writes what it wrote when its results were recorded (see record.py)."""

import json
from collections.abc import Iterator
from fnmatch import fnmatch

import adapter
import pytest
from folders import differences, renamed
from overrides import OVERRIDES
from renames import TEXT
from workplace import DATA, golden_file, machine, results_of, workplace

STUDIES = ["/".join(study) for study in adapter.list_studies()]


@pytest.fixture(scope="module")
def _workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with workplace(tmp_path_factory.mktemp("golden")):
        yield


def test_every_study_has_golden_data_and_nothing_else_has() -> None:
    recorded = {path.relative_to(DATA).with_suffix("").as_posix() for path in DATA.glob("*/*.json")}
    assert sorted(recorded) == sorted(OVERRIDES) == sorted(STUDIES)


@pytest.mark.slow
@pytest.mark.usefixtures("_workplace")
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_writes_what_was_recorded(name: str) -> None:
    recorded = json.loads(golden_file(name).read_text(encoding="utf-8"))
    names = {old: new for pattern, some in TEXT.items() if fnmatch(name, pattern) for old, new in some.items()}
    found = differences(renamed(recorded["files"], names), results_of(name), values=recorded["made with"] == machine())
    assert not found, "\n".join([f"{name} differs from what was recorded:", *found])
