import numpy as np
from typer.testing import CliRunner

from grid_folders import write_grid
from sightline import SightlineError
from sightline.cli.app import app


def test_writes_both_files_into_the_first_folder_or_elsewhere(tmp_path):
    values = {("net", name, "insertion"): np.linspace(0, 1, 6) * scale for name, scale in (("A", 1), ("B", 0.5))}
    folder = write_grid(tmp_path / "grid", values)
    done = CliRunner().invoke(app, ["leaderboard", str(folder)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [str(folder / "leaderboard.html"), str(folder / "leaderboard.md")]
    assert "| A |" in (folder / "leaderboard.md").read_text(encoding="utf-8")
    other = write_grid(tmp_path / "other", {("second", *key[1:]): some for key, some in values.items()})
    done = CliRunner().invoke(app, ["leaderboard", str(folder), str(other), "-o", str(tmp_path / "new" / "place")])
    assert done.exit_code == 0, done.output
    assert "## second" in (tmp_path / "new" / "place" / "leaderboard.md").read_text(encoding="utf-8")


def test_a_folder_that_is_not_an_evaluation_is_named(tmp_path):
    done = CliRunner().invoke(app, ["leaderboard", str(tmp_path)])
    assert isinstance(done.exception, SightlineError)
    assert f"{tmp_path} is not the folder of an evaluation" in str(done.exception)


def test_a_folder_is_needed():
    assert CliRunner().invoke(app, ["leaderboard"]).exit_code == 2
