import base64
import csv
import re

import numpy as np
import pytest
import torch
from scipy import stats

from grid_folders import write_grid
from sightline import SightlineError
from sightline.evaluation.leaderboard_folder import Cell, Column, Evaluations, Value, read_evaluations
from sightline.evaluation.ranking import CellMark, is_chance, model_ranking_table, ranking_tables
from sightline.reporting.leaderboard.gallery import disagreement
from sightline.reporting.leaderboard.page import (
    line_styles,
    make_sections,
    overview,
    render_markdown,
    write_leaderboard,
)

N = 40


def noise(seed, n=N, scale=0.01):
    return np.random.default_rng(seed).normal(0, scale, n)


def settled():
    """Three explainers and Random-CAM whose order nobody doubts, in insertion and deletion."""
    means = {"Random-CAM": (0.2, 0.6), "A": (0.5, 0.3), "B": (0.7, 0.4), "C": (0.4, 0.2)}
    return {
        ("net", name, metric): mean + noise(7 * i + j)
        for i, (name, both) in enumerate(means.items())
        for j, (metric, mean) in enumerate(zip(("insertion", "deletion"), both))
    }


@pytest.fixture
def table(tmp_path):
    def make(values, **options):
        return ranking_tables(read_evaluations([write_grid(tmp_path / "grid", values, **options)]))[0]

    return make


@pytest.fixture
def page(tmp_path):
    def make(values, **options):
        page, text = write_leaderboard([write_grid(tmp_path / "grid", values, **options)], tmp_path / "out")
        return page.read_text(encoding="utf-8"), text.read_text(encoding="utf-8")

    return make


def test_ranks_by_hand(table):
    found = table(settled())
    # insertion, up: B A C; deletion, down: C A B. Random-CAM would be fourth in both.
    ranks = {s.row: s.ranks for s in found.rankings}
    assert ranks == {
        "A": {"insertion": 2, "deletion": 2},
        "B": {"insertion": 1, "deletion": 3},
        "C": {"insertion": 3, "deletion": 1},
    }
    assert [s.mean for s in found.rankings] == [2, 2, 2]
    assert found.ranking("Random-CAM").ranks == {"insertion": 4, "deletion": 4}
    assert (found.rows, found.chance) == (["A", "B", "C"], ["Random-CAM"])
    assert found.unbeaten == ["A", "B", "C"]
    assert found.mark("B", "insertion") == CellMark(1, False, None)
    assert found.mark("A", "insertion") == CellMark(2, False, None)
    assert found.mark("C", "insertion") == CellMark(0, False, None)
    assert found.mark("C", "deletion") == CellMark(1, False, None)


def test_what_a_table_does_not_show_is_a_tie(table):
    base = 0.5 + noise(0)
    values = {("net", name, "insertion"): base + more for name, more in (("A", 0.0), ("B", 0.0004), ("C", -0.2))}
    found = table(values)
    assert [found.rank("insertion", row) for row in "ABC"] == [1.5, 1.5, 3]
    assert [found.mark(row, "insertion").place for row in "ABC"] == [1, 1, 2]


def test_ranks_are_those_of_scipy_where_all_rows_see_the_same_images(table):
    random = np.random.default_rng(3)
    values = {("net", f"E{i}", "deletion"): random.random(N).round(1) for i in range(6)}
    found = table(values)
    means = [np.mean(some) for some in values.values()]
    assert [found.rank("deletion", f"E{i}") for i in range(6)] == stats.rankdata(means).tolist()


def test_a_row_that_cannot_be_told_from_the_best_is_marked(table):
    base = noise(0, scale=0.2)
    values = {
        ("net", "best", "insertion"): 0.6 + base,
        ("net", "near", "insertion"): 0.59 + base[::-1],
        ("net", "paired", "insertion"): 0.58 + base,  # as far off as that, yet behind on every image
    }
    found = table(values)
    assert not found.mark("best", "insertion").level
    assert found.mark("near", "insertion").level
    assert not found.mark("paired", "insertion").level


def test_without_paired_tests_intervals_decide(table):
    values = {("net", "best", "insertion"): 0.6 + noise(0), ("net", "far", "insertion"): 0.5 + noise(1)}
    values["net", "near", "insertion"] = 0.6 + noise(2, scale=0.05)
    found = table(values, tested=False)
    assert found.compare_rows("insertion", "best", "far").n is None
    assert found.compare_rows("insertion", "best", "far").settled
    assert not found.compare_rows("insertion", "best", "near").settled


def test_rows_with_fewer_images_are_compared_on_those_that_both_have(table):
    easy = np.r_[np.full(10, 0.9), np.full(30, 0.3)] + noise(0)
    values = {("net", "all", "insertion"): easy, ("net", "few", "insertion"): easy[:10] - 0.1 + noise(1, 10)}
    found = table(values)
    assert found.value("few", "insertion").value > found.value("all", "insertion").value
    comparison = found.compare_rows("insertion", "all", "few")
    assert (comparison.by, comparison.settled, comparison.n) == (pytest.approx(0.1, abs=0.02), True, 10)
    assert found.mark("all", "insertion").place == 1
    assert found.mark("few", "insertion").place == 2


def test_cells_against_chance(table):
    chance = 0.5 + noise(0, scale=0.1)
    values = {
        ("net", "randomcam", "insertion"): chance,
        ("net", "above", "insertion"): chance + 0.1,
        ("net", "level", "insertion"): 0.5 + noise(1, scale=0.1),
        ("net", "below", "insertion"): chance - 0.1,
    }
    found = table(values)
    assert [found.mark(row, "insertion").chance for row in found.rows] == [None, "level", "below"]
    assert found.mark("randomcam", "insertion") == CellMark(0, False, None)


@pytest.mark.parametrize("label", ["randomcam", "Random-CAM", "Random CAM (seed 1)", "gaussian"])
def test_chance_rows_by_any_spelling(label):
    assert is_chance(label)
    assert not is_chance("Gaussian-blurred Grad-CAM")


def test_missing_cells_get_no_rank(table, page):
    values = settled()
    del values["net", "B", "deletion"]
    values["net", "D", "insertion"] = np.full(N, np.nan)
    found = table(values)
    assert found.rank("deletion", "B") is None
    assert found.rank("insertion", "D") is None
    assert [found.rank("insertion", row) for row in "ABC"] == [2, 1, 3]
    assert [found.rank("deletion", row) for row in "AC"] == [2, 1]
    assert [s.row for s in found.rankings] == [
        "A",
        "C",
        "B",
        "D",
    ]  # those with gaps last, though B's 1 is the best mean
    assert found.unbeaten == ["A", "C"]
    html, text = page(values)
    assert "No value and hence no rank: B (Deletion); D (Insertion, Deletion)." in text
    assert "| B | (1.00) | 1 | – |" in text
    assert "| D | – | – | – |" in text
    assert "No value and hence no rank" in html


def test_a_beaten_explainer_is_not_on_the_front(table):
    values = settled()
    values["net", "D", "insertion"], values["net", "D", "deletion"] = 0.3 + noise(90), 0.5 + noise(91)
    assert table(values).unbeaten == ["A", "B", "C"]


def test_friedman_and_the_critical_difference(table):
    # After Demsar (2006): for 4 rows and 14 blocks the critical difference is 2.569 sqrt(4 * 5 / (6 * 14)) = 1.25.
    random = np.random.default_rng(5)
    values = {("net", name, "deletion"): random.random(14) for name in "ABCD"}
    found = table(values).image_ranks("deletion")
    columns = [np.array(some, np.float32).astype(float) for some in values.values()]
    assert found.critical == pytest.approx(1.25, abs=0.005)
    assert (found.statistic, found.p) == pytest.approx(stats.friedmanchisquare(*columns))
    assert list(found.mean.values()) == pytest.approx(stats.rankdata(columns, axis=0).mean(axis=1))
    assert found.n == 14


def test_friedman_takes_the_images_that_all_rows_have(table):
    random = np.random.default_rng(6)
    values = {("net", name, "insertion"): random.random(n) for name, n in (("A", 30), ("B", 12), ("C", 30))}
    values["net", "C", "insertion"][3] = np.nan
    found = table(values).image_ranks("insertion")
    assert found.n == 11
    kept = [np.delete(some[:12], 3) for some in values.values()]
    assert list(found.mean.values()) == pytest.approx(stats.rankdata(-np.array(kept), axis=0).mean(axis=1))


def test_friedman_over_metrics_averages_an_images_ranks(table):
    values = {}
    for i, name in enumerate(
        "ABC"
    ):  # A first and C last in insertion; the reverse in deletion, but for B on all images
        values["net", name, "insertion"] = np.linspace(0.5, 0.6, 5) - 0.1 * i
        values["net", name, "deletion"] = np.linspace(0.5, 0.6, 5) + 0.1 * (0, 2, 1)[i]
    found = table(values).image_ranks_over_metrics()
    # means of an image's ranks: A (1 + 1) / 2, B (2 + 3) / 2, C (3 + 2) / 2
    assert found.mean == {"A": 1, "B": 2.5, "C": 2.5}
    assert found.n == 5


def test_friedman_of_nothing_but_ties(table):
    found = table({("net", name, "insertion"): [0.5] * 8 for name in "ABC"}).image_ranks("insertion")
    assert found.p == 1
    assert np.isnan(found.statistic)


def test_friedman_needs_three_rows(table):
    assert table({("net", name, "insertion"): noise(i) for i, name in enumerate("AB")}).image_ranks("insertion") is None


def test_the_markdown_of_a_small_table(page):
    _, text = page(settled() | {("net", "", "accuracy"): [1] * 30 + [0] * 10}, title="Three explainers")
    lines = text.splitlines()
    assert lines[0] == "# Three explainers"
    assert "| Model | Accuracy ↑ | n |" in lines
    assert any(line.startswith("| net | 75.0% (") and line.endswith(" | 40 |") for line in lines)
    assert "| Explainer | Insertion ↑ | Deletion ↓ | n |" in lines
    row = next(line for line in lines if line.startswith("| B |"))
    assert re.fullmatch(
        r"\| B \| \*\*0\.\d{3}\*\* \(0\.\d{3} to 0\.\d{3}\) \| 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) \| 40 \|", row
    )
    chance = [i for i, line in enumerate(lines) if line.startswith("| *Random-CAM* (chance) |")]
    assert lines[chance[0] + 1] == ""  # the last row of its table
    assert "- Every explainer is better than chance (Random-CAM) in every metric." in lines
    assert "A, B and C share the best mean rank over the 2 metrics: 2.00 of 3." in text


def test_the_page_marks_what_is_no_better_than_chance(page):
    values = settled()
    values["net", "C", "insertion"] = values["net", "Random-CAM", "insertion"] + noise(50)
    values["net", "A", "insertion"] = values["net", "Random-CAM", "insertion"] - 0.1
    html, text = page(values)
    assert text.count("≈ chance") == 1
    assert text.count("below chance") == 1
    assert '<small class="level">≈ chance</small>' in html
    assert '<small class="below">below chance</small>' in html
    assert "2 of 6 values are not shown to be better than chance (Random-CAM): Insertion (A, C)." in text


def test_no_random_maps_is_said(page):
    html, text = page({key: some for key, some in settled().items() if key[1] != "Random-CAM"})
    assert "No random maps were evaluated" in text
    assert 'class="chance"' not in html


def test_random_maps_alone_compete_with_nobody(page):
    _, text = page({key: some for key, some in settled().items() if key[1] == "Random-CAM"})
    assert "- Nothing to set against chance (Random-CAM) yet." in text
    assert "best mean rank" not in text


def test_one_explainer_is_best_of_nothing(table, page):
    values = {("net", "A", "insertion"): 0.5 + noise(0)}
    assert table(values).mark("A", "insertion") == CellMark(0, False, None)
    _, text = page(values)
    assert "**" not in text
    assert "best mean rank" not in text


def test_several_models(tmp_path):
    values = settled() | {(f"other|{m}", e, k): v for (m, e, k), v in settled().items()}
    values |= {("net", "", "accuracy"): [1] * 40, ("other|net", "", "accuracy"): [1] * 20 + [0] * 20}
    values["other|net", "A", "insertion"] = values["other|net", "A", "insertion"] + 0.4
    evaluations = read_evaluations([write_grid(tmp_path / "grid", values)])
    sections = make_sections(evaluations)
    assert [section.table.name for section in sections] == ["net", "other|net"]
    # on the other A is first in insertion, before B and C, and second in deletion
    assert overview(sections) == [("A", ["2.00", "1.50"]), ("C", ["2.00", "2.00"]), ("B", ["2.00", "2.50"])]
    assert model_ranking_table(evaluations).mark("net", "accuracy").place == 1
    assert "| A | 2.00 | 1.50 |" in render_markdown(evaluations, sections)
    assert "| Mean rank | net | other\\|net |" in render_markdown(evaluations, sections)


def test_folders_of_one_model_are_put_together_and_tested_anew(tmp_path):
    values = settled()
    whole = ranking_tables(read_evaluations([write_grid(tmp_path / "whole", values)]))[0]
    one = write_grid(tmp_path / "one", {k: v for k, v in values.items() if k[1] in ("Random-CAM", "A")})
    two = write_grid(tmp_path / "two", {k: v for k, v in values.items() if k[1] in ("Random-CAM", "B", "C")})
    evaluations = read_evaluations([one, two])
    merged = ranking_tables(evaluations)[0]
    assert "Taken from the first of the folders that hold it: Random-CAM on net." in evaluations.notes
    assert merged.rows == whole.rows
    for metric in ("insertion", "deletion"):
        for first in "ABC":
            assert merged.mark(first, metric) == whole.mark(first, metric)
            assert merged.compare_rows(metric, first, "Random-CAM").n == N
    pair = Cell("net", "A", "insertion"), Cell("net", "B", "insertion")
    assert evaluations.tests[pair].p_holm == pytest.approx(6 * evaluations.tests[pair].p)  # the least of six pairs


def test_folders_that_do_not_fit_are_refused_or_noted(tmp_path):
    one = write_grid(tmp_path / "one", {("net", "A", "insertion"): noise(0)})
    other_data = write_grid(tmp_path / "two", {("net", "B", "insertion"): noise(1)}, prefix="elsewhere/")
    with pytest.raises(SightlineError, match=r"hold net on different data: image 0 is images/0.jpg in one"):
        read_evaluations([one, other_data])
    other_net = write_grid(tmp_path / "three", {("net", "B", "insertion"): noise(1)}, predicted=1)
    assert any("what net predicts for 40 of 40 images" in note for note in read_evaluations([one, other_net]).notes)
    with pytest.raises(SightlineError, match="folders is empty"):
        read_evaluations([])


@pytest.mark.parametrize("name", ["table.csv", "tests.csv", "curves.csv", "samples.parquet", "study.yaml"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_grid(tmp_path / "grid", settled())
    (folder / name).unlink()
    with pytest.raises(SightlineError, match=rf"grid.*{name}"):
        read_evaluations([folder])


@pytest.mark.parametrize(("name", "column"), [("table.csv", "value"), ("tests.csv", "p_holm")])
def test_a_missing_column_is_named(tmp_path, name, column):
    path = write_grid(tmp_path / "grid", settled()) / name
    path.write_text(path.read_text().replace(f",{column},", ",colour,", 1))
    with pytest.raises(SightlineError, match=rf"{name} has no column {column}; it has .*colour"):
        read_evaluations([path.parent])


def test_what_is_no_number_is_named_by_its_line(tmp_path):
    folder = write_grid(tmp_path / "grid", settled())
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[2][3] = "much"
    (folder / "table.csv").write_text("\n".join(map(",".join, rows)))
    with pytest.raises(SightlineError, match="line 3: value is 'much'"):
        read_evaluations([folder])


@pytest.mark.parametrize("damage", ["samples.parquet", "gallery.safetensors"])
def test_a_damaged_file_is_named(tmp_path, damage):
    folder = write_grid(tmp_path / "grid", settled())
    (folder / damage).write_bytes(b"not what it says")
    with pytest.raises(SightlineError, match="cannot be read"):
        read_evaluations([folder])


def test_a_folder_without_values_is_refused(tmp_path):
    folder = write_grid(tmp_path / "nan", {("net", "A", "insertion"): [np.nan] * 4})
    with pytest.raises(SightlineError, match="nothing is defined"):
        read_evaluations([folder])
    (folder / "table.csv").write_text("\r\n")  # as `reproduce` leaves it before the first part is done
    with pytest.raises(SightlineError, match="nothing is done yet"):
        read_evaluations([folder])


def gallery(looks, size=8):
    """Two images; a map a row of that mean, in per cent of 255."""
    maps = {
        f"maps/net/{row}": torch.full((2, size, size), int(255 * look), dtype=torch.uint8)
        for row, look in looks.items()
    }
    return {"index": torch.tensor([1, 3]), "images": torch.zeros(2, 3, size, size, dtype=torch.uint8), **maps}


def test_images_of_largest_disagreement(tmp_path):
    # By looks A, B, C on both images. By score on image 1 C, B, A: A's gap is 2 of 2 places, C's -2. On image 3 A, C, B.
    scores = {"A": [0, 0.1, 0, 0.9], "B": [0, 0.2, 0, 0.1], "C": [0, 0.3, 0, 0.5], "Random-CAM": [0, 0, 0, 0]}
    values = {("net", row, "insertion"): some for row, some in scores.items()}
    saved = gallery({"C": 0.8, "A": 0.2, "B": 0.5, "Random-CAM": 0.1})
    evaluations = read_evaluations([write_grid(tmp_path / "grid", values, gallery=saved)])
    found = disagreement(ranking_tables(evaluations)[0], evaluations.saved["net"])
    assert (found.looks, found.scores, found.pool) == (["complexity"], ["insertion"], 2)
    first = found.plausible_but_unfaithful[0]
    assert (first.path, first.chosen.row, first.chosen.looks, first.chosen.score) == ("images/1.jpg", "A", 1, 3)
    assert [tile.scored_map.row for tile in first.tiles] == ["C", "B", "A", "Random-CAM"]  # by score, chance last
    assert [tile.chosen for tile in first.tiles] == [False, False, True, False]
    assert first.tiles[-1].scored_map.ranks == {}
    second = found.plausible_but_unfaithful[1]  # on image 3, B looks second and scores third
    assert (second.path, second.chosen.row, second.chosen.score - second.chosen.looks) == ("images/3.jpg", "B", 1)
    assert found.faithful_but_implausible == []  # both images are taken


def test_looks_with_masks_count_the_energy_on_the_object(tmp_path):
    maps = {"in": torch.zeros(1, 8, 8, dtype=torch.uint8), "out": torch.zeros(1, 8, 8, dtype=torch.uint8)}
    maps["in"][:, :4] = 200
    maps["out"][:, :] = 100
    masks = torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[:, :2], masks[:, 2] = 1, 255  # of the map `in`, two of the three rows that are known lie on the object
    tensors = {"index": torch.tensor([0]), "images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "masks": masks}
    tensors |= {f"maps/net/{row}": tensor for row, tensor in maps.items()}
    values = {("net", "in", "deletion"): [0.8], ("net", "out", "deletion"): [0.2]}
    evaluations = read_evaluations([write_grid(tmp_path / "grid", values, gallery=tensors)])
    found = disagreement(ranking_tables(evaluations)[0], evaluations.saved["net"])
    judged = {tile.scored_map.row: tile.scored_map for tile in found.plausible_but_unfaithful[0].tiles}
    assert judged["in"].values["energy_in_mask"] == pytest.approx(2 / 3)
    assert judged["out"].values["energy_in_mask"] == pytest.approx(2 / 7)
    assert found.plausible_but_unfaithful[0].chosen.row == "in"


def test_no_gallery_no_disagreement(tmp_path, page):
    evaluations = read_evaluations([write_grid(tmp_path / "grid", settled())])
    assert disagreement(ranking_tables(evaluations)[0], None) is None
    assert "metrics and eyes disagree" not in page(settled())[0]


def test_the_page_needs_nothing_beside_it(page):
    saved = gallery({"A": 0.2, "B": 0.5, "C": 0.8, "Random-CAM": 0.1})
    curves = {("net", row, "insertion"): np.linspace(0, 0.5, 9) for row in ("Random-CAM", "A", "B")}
    html, _ = page(settled(), gallery=saved, curves=curves, title="<b>bold</b>")
    assert "<b>bold</b>" not in html
    assert not re.search(r'(?:src|href)="(?!data:)', html)
    drawings = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert len(drawings) == 1
    assert b"pixels changed" in base64.b64decode(drawings[0])
    assert "Area under each curve: Random-CAM 0.250, A 0.250, B 0.250" in html
    assert html.count('class="chosen"') > 0


def test_random_maps_are_grey_and_broken(tmp_path):
    curves = {("net", row, "insertion"): [0, 1] for row in ("A", "Random-CAM", "B")}
    styles = line_styles(read_evaluations([write_grid(tmp_path / "grid", settled(), curves=curves)]))
    assert styles["Random-CAM"] == ("#8a8a85", "dashed")
    assert styles["A"][1] == styles["B"][1] == "solid"
    assert styles["A"][0] != styles["B"][0]


def test_equal_folders_give_equal_pages(tmp_path):
    curves = {("net", "A", "insertion"): [0, 1]}
    folder = write_grid(tmp_path / "grid", settled(), curves=curves)
    first, second = ([p.read_bytes() for p in write_leaderboard([folder], tmp_path / name)] for name in "ab")
    assert first == second


def test_leads_are_known_without_any_sample():
    values = {
        Cell("net", "A", "insertion"): Value(0.5, 0.4, 0.6, 9),
        Cell("net", "B", "insertion"): Value(0.3, 0.2, 0.35, 9),
    }
    columns: dict[Cell, Column] = {}
    evaluations = Evaluations("", [], [], {"insertion": True}, values, columns, {}, {}, {})
    found = ranking_tables(evaluations)[0]
    assert found.compare_rows("insertion", "A", "B").settled
    assert found.image_ranks("insertion") is None
