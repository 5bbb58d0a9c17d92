"""The study of the user's own in docs/how-to/reproduce.md."""

import csv
import re
from pathlib import Path

import pytest

from sightline.studies import load_study, run_study

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "reproduce.md"


@pytest.mark.slow
def test_documented_study_runs_and_writes_its_outputs(tmp_path: Path) -> None:
    shown = next(
        text for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL) if "outputs" in text
    )
    (tmp_path / "mine.yaml").write_text(shown)
    small = "keys={data.copies: 1, data.size: 32, image_size: 32, batch_size: 64, stages: [{epochs: 1, lr: 2.0e-3}]}"
    folder = run_study(load_study(tmp_path / "mine.yaml", [small, "seeds=[0]"]), tmp_path / "out")
    rows = list(csv.DictReader((folder / "table.csv").open(newline="")))
    assert {row["column"] for row in rows} >= {
        "test_shifted/accuracy",
        "test_shifted/miou@gradcam",
        "relative_accuracy",
    }
    assert {row["variant"] for row in rows} == {"cross-entropy", "SO-Loss"}
    assert (folder / "robustness.png").is_file()
