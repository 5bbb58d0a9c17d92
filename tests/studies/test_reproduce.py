"""What every study shares: finding it, its folder, and going on after an interruption."""

import csv
import json
from typing import Any, Literal

import pytest
import torch
from typer.testing import CliRunner

from sightline._core.strict import Positive
from sightline.cli.app import app
from sightline.errors import MissingFileError, SightlineError
from sightline.explainers import create_explainer
from sightline.metrics import METRICS
from sightline.models.loading import check_name
from sightline.studies import KINDS, Part, Study, read_study, reproduce, shipped_studies
from sightline.studies import study as study_module
from sightline.studies.study import scale_count, study_from_yaml


class Counting(Study):
    """Parts that count themselves; what a table of trained runs would be, but for the training."""

    kind: Literal["counting"]
    count: Positive = 4
    paper_values: dict[str, float] = {}  # noqa: RUF012

    def parts(self):
        return [f"run/{number}" for number in range(self.count)]

    def scaled(self, scale):
        return self.model_copy(update={"count": scale_count(self.count, scale)})

    def prepare(self, device, folder):
        return self.work

    def work(self, part):
        LOG.append(part)
        if part in FAILING:
            raise KeyboardInterrupt
        if part in LACKING:
            raise MissingFileError(LACKING[part])
        number = int(part[4:])
        return Part({"square": number**2}, {"tensor": torch.tensor([number], dtype=torch.uint8)})

    def table(self, done) -> list[dict[str, Any]]:
        return [
            {"part": name, "square": part.values["square"], "tensor": part.tensors["tensor"].item()}
            for name, part in done.items()
        ]

    def summary(self, done):
        return f"{len(done)} squares"


LOG: list[str] = []
FAILING: set[str] = set()
LACKING: dict[str, str] = {}


@pytest.fixture
def counting(tmp_path, monkeypatch):
    """The shipped studies are one of the kind `counting`, `club/table-1`."""
    monkeypatch.setattr(KINDS, "_entries", dict(KINDS._entries))
    KINDS.register("counting")(Counting)
    file = tmp_path / "table-1.yaml"
    file.write_text("# Squares.\nkind: counting\ntitle: Squares\nsource: a book\n")
    monkeypatch.setattr(study_module, "shipped_studies", lambda: {"club/table-1": file})
    LOG.clear()
    FAILING.clear()
    LACKING.clear()
    return tmp_path / "out"


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_reads_back_as_itself_and_names_only_what_exists(name, tmp_path):
    study = read_study(*name.split("/"))
    (tmp_path / "study.yaml").write_text(study.to_yaml())
    assert study_from_yaml(tmp_path / "study.yaml") == study
    assert len(set(study.parts())) == len(study.parts()) > 0
    values = study.model_dump()
    columns = [column for column in values.get("columns", []) if isinstance(column, dict)]
    models = [values.get("model"), *values.get("models", []), *(column.get("model") for column in columns)]
    for model in filter(None, models):
        if "name" in model:  # else a recipe names it
            check_name(model["name"])
    for metric in values.get("metrics", {}):
        assert metric in METRICS
    rows = [row for row in values.get("explainers", []) if row["features"] is None]
    methods = [*values.get("methods", []), *columns, *rows, *filter(None, [values.get("method")])]
    for method in methods:
        create_explainer(method["name"], **{k: v for k, v in method["options"].items() if k != "target"})
    if values["kind"] == "grid":
        for rows in values["paper_values"].values():
            assert set(rows) <= {row["label"] for row in values["explainers"]}
            assert all(set(row) == set(values["metrics"]) for row in rows.values())
    elif "methods" in values and "paper_values" in values:
        assert set(values["paper_values"]) == {method["label"] for method in values["methods"]}
        for row in values["paper_values"].values():
            assert set(row) == {model["label"] for model in values["models"]}


def test_list_shows_the_studies_among_the_recipes():
    shown = CliRunner().invoke(app, ["list", "recipes"], catch_exceptions=False).output
    assert all(name in shown for name in shipped_studies())


@pytest.mark.parametrize(
    ("paper", "item", "override", "words"),
    [
        ("lot", "table-5.3", "seed=1", ["unknown paper 'lot'", "'lots'"]),
        ("lots", "table-5.4", "seed=1", ["'table-5.4'", "'table-5.3'"]),
        ("lots", "table-5.3", "round=1", ["unknown key 'round'", "'rounds'"]),
        ("lots", "table-5.3", "methods.0.labl=x", ["'methods.0.labl'", "'methods.0.label'"]),
        ("lots", "table-5.3", "models.0.weight=x", ["'models.0.weight'", "'models.0.weights'"]),
        ("lots", "table-5.3", "rounds=0", ["rounds is 0"]),
        ("lots", "table-5.3", "kind=tabel", ["unknown study kind 'tabel'"]),
        ("lots", "table-5.3", "kind=null", ["kind is None", "timing"]),
        ("lots", "table-5.3", "methods.1.label=LOTS", ["methods", "'LOTS' is taken"]),
        ("lots", "figure-5.2", "columns.1.label=image", ["columns", "'image' is taken"]),
        ("lots", "section-6.2", "axes={taus: [1]}", ["axes.taus", "method.options"]),
        ("lots", "section-6.2", "axes={tau: [small]}", ["axes.tau", "numbers"]),
    ],
)
def test_unknown_studies_raise_with_the_nearest_name(paper, item, override, words):
    with pytest.raises(SightlineError) as raised:
        read_study(paper, item, [override])
    assert all(word in str(raised.value) for word in words), raised.value


def test_a_study_is_worked_off_part_by_part_and_written(counting):
    folder = reproduce("club", "table-1", output=counting)
    assert LOG == ["run/0", "run/1", "run/2", "run/3"]
    assert [row["square"] for row in csv.DictReader((folder / "table.csv").open())] == ["0", "1", "4", "9"]
    page = (folder / "report.md").read_text()
    for words in ("# Squares", "After a book.", "4 squares", "seed 0", "4 of 4 parts", "torch", "threads", "command"):
        assert words in page
    assert "Not finished" not in page
    assert "--scale" not in page


def test_an_interrupted_study_resumes_with_the_part_that_it_lost(counting):
    FAILING.add("run/2")
    with pytest.raises(KeyboardInterrupt):
        reproduce("club", "table-1", output=counting)
    assert len(list(csv.DictReader((counting / "table.csv").open()))) == 2  # the table fills as parts finish
    assert "Not finished: 2 of 4" in (counting / "report.md").read_text()

    FAILING.clear()
    LOG.clear()
    reproduce("club", "table-1", output=counting)
    assert LOG == ["run/2", "run/3"]
    rows = list(csv.DictReader((counting / "table.csv").open()))
    assert [(row["square"], row["tensor"]) for row in rows] == [("0", "0"), ("1", "1"), ("4", "2"), ("9", "3")]

    LOG.clear()
    reproduce("club", "table-1", output=counting)
    assert LOG == []


def test_parts_without_their_data_are_left_out_and_named_and_done_when_it_is_there(counting, capsys):
    LACKING.update({"run/0": "nothing at birds", "run/2": "nothing at birds"})
    folder = reproduce("club", "table-1", output=counting)
    assert [row["square"] for row in csv.DictReader((folder / "table.csv").open())] == ["1", "9"]
    for text in ((folder / "report.md").read_text(), capsys.readouterr().err):
        assert "Left out, 2 parts: nothing at birds" in text
    LACKING.clear()
    reproduce("club", "table-1", output=counting)
    assert LOG[4:] == ["run/0", "run/2"]
    assert "Left out" not in (folder / "report.md").read_text()

    LACKING.update({f"run/{number}": "nothing at birds" for number in range(4)})
    with pytest.raises(MissingFileError, match=r"^club/table-1: nothing at birds$"):
        reproduce("club", "table-1", output=counting.with_name("other"))


def test_a_kill_between_a_parts_two_files_leaves_it_undone(counting):
    reproduce("club", "table-1", output=counting)
    (counting / "parts" / "run-1.json").unlink()
    LOG.clear()
    reproduce("club", "table-1", output=counting)
    assert LOG == ["run/1"]
    kept = json.loads((counting / "parts" / "run-1.json").read_text())
    assert kept["values"] == {"square": 1}
    assert kept["seconds"] >= 0
    assert "threads" in kept["where"]


def test_scaled_study_reports_the_scale_and_has_its_own_folder(counting, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = reproduce("club", "table-1", scale=0.5)
    assert LOG == ["run/0", "run/1"]
    assert "--scale 0.5" in (folder / "report.md").read_text()
    assert folder.parts[:3] == ("runs", "reproduce", "club")
    assert reproduce("club", "table-1") != folder


@pytest.mark.parametrize("scale", [0, -1, 1.5, float("nan")])
def test_a_scale_is_a_share(scale, counting):
    with pytest.raises(SightlineError, match="scale"):
        reproduce("club", "table-1", scale=scale, output=counting)


def test_results_of_another_study_are_not_taken_for_this_ones(counting):
    reproduce("club", "table-1", output=counting)
    with pytest.raises(SightlineError, match=r"count \(4 and 2\)"):
        reproduce("club", "table-1", ["count=2"], output=counting)
    with pytest.raises(SightlineError, match="seed"):
        reproduce("club", "table-1", ["seed=1"], output=counting)


def test_labels_that_make_one_file_are_rejected(tmp_path):
    with pytest.raises(SightlineError, match="punctuation"):
        reproduce("lots", "figure-5.2", ["columns.0.label=a b", "columns.1.label=a/b"], output=tmp_path / "out")


def test_a_folder_of_something_else_is_unchanged(counting):
    counting.mkdir()
    (counting / "thesis.tex").write_text("years of work")
    with pytest.raises(SightlineError, match="not the folder of a study"):
        reproduce("club", "table-1", output=counting)
    assert [file.name for file in counting.iterdir()] == ["thesis.tex"]


def test_the_command_prints_where_the_report_is(counting):
    done = CliRunner().invoke(app, ["reproduce", "club", "table-1", "count=1", "--output", str(counting)])
    assert done.exit_code == 0, done.exception
    assert str(counting / "report.md") in done.output.replace("\n", "")


@pytest.mark.parametrize(
    ("count", "scale", "expected"), [(20, 1, 20), (20, 0.1, 2), (20, 0.01, 1), (5, 0.5, 3), (10, 0.3, 3)]
)
def test_a_share_is_rounded_up(count, scale, expected):
    assert scale_count(count, scale) == expected
