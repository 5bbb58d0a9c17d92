import pytest
from typer.testing import CliRunner

from sightline.cli.app import app
from sightline.evaluation.comparison import ACCURACY, read_comparison
from sightline.reporting.formatting import number


@pytest.mark.slow
def test_demo_trains_evaluates_and_reports(tmp_path):
    done = CliRunner().invoke(app, ["demo", "--quick", "--output", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert str(tmp_path / "report.html") in done.output.replace("\n", "")
    comparison = read_comparison([tmp_path / "demo-so-loss-seed0"], [tmp_path / "demo-cross-entropy-seed0"])
    assert [key for key, *_ in comparison.recipe_changes][:1] == ["guide.name"]
    accuracy = comparison.splits[0].differences[ACCURACY]
    assert number(accuracy.ours[0], "accuracy") in done.output
    assert "<title>demo-so-loss compared with demo-cross-entropy</title>" in (tmp_path / "report.html").read_text()
