"""Bad inputs: arguments of commands that read a run, a data set or a study. A line says what is wrong; nothing is made."""

import sys
from pathlib import Path

import pytest
from bad_arguments import ARGUMENTS, make_files

import sightline.cli
import tiny  # noqa: F401 - the data set `squares`

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_files(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("command", ARGUMENTS)
def test_bad_arguments_end_with_one_line(
    command: str,
    given: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, line in enumerate(ARGUMENTS[command]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        arguments = [command, *(part.format(tmp=folder, **given) for part in line.split())]
        monkeypatch.setattr(sys, "argv", ["sightline", *arguments])
        with pytest.raises(SystemExit) as ended:
            sightline.cli.main()
        told = capsys.readouterr()
        assert ended.value.code in (1, 2), (line, told)
        assert "error" in told.err.lower() or "usage" in told.err.lower(), (line, told)
        assert "Traceback" not in told.err, (line, told)
        kept = [each for each in folder.rglob("*") if each.is_file() and not each.name.endswith(".lock")]
        assert not kept, (line, kept)


def test_arguments_tried_are_at_least_380() -> None:
    assert sum(map(len, ARGUMENTS.values())) >= 380
