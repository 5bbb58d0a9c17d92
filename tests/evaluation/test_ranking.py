"""Ranks, ties and chance among the explainers of a model, by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from grid_folders import N, noise, settled, write_grid
from sightline.evaluation.grid_folder import Cell, Column, Evaluations, Value, read_evaluations
from sightline.evaluation.ranking import CellMark, is_chance, ranking_tables


@pytest.fixture
def table(tmp_path):
    def make(values, **options):
        return ranking_tables(read_evaluations([write_grid(tmp_path / "grid", values, **options)]))[0]

    return make


def test_ranks_follow_the_direction_of_each_metric(table):
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


def test_differences_that_the_table_does_not_show_are_ties(table):
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
    assert found.compare_rows("insertion", "best", "far").significant
    assert not found.compare_rows("insertion", "best", "near").significant


def test_rows_with_fewer_images_are_compared_on_those_that_both_have(table):
    easy = np.r_[np.full(10, 0.9), np.full(30, 0.3)] + noise(0)
    values = {("net", "all", "insertion"): easy, ("net", "few", "insertion"): easy[:10] - 0.1 + noise(1, 10)}
    found = table(values)
    assert found.value("few", "insertion").value > found.value("all", "insertion").value
    comparison = found.compare_rows("insertion", "all", "few")
    assert (comparison.by, comparison.significant, comparison.n) == (pytest.approx(0.1, abs=0.02), True, 10)
    assert found.mark("all", "insertion").place == 1
    assert found.mark("few", "insertion").place == 2


def test_cells_are_marked_above_at_or_below_chance(table):
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
def test_chance_rows_are_recognized_by_any_spelling(label):
    assert is_chance(label)
    assert not is_chance("Gaussian-blurred Grad-CAM")


def test_a_beaten_explainer_is_not_on_the_front(table):
    values = settled()
    values["net", "D", "insertion"], values["net", "D", "deletion"] = 0.3 + noise(90), 0.5 + noise(91)
    assert table(values).unbeaten == ["A", "B", "C"]


def test_friedman_equals_scipy_and_the_critical_difference_demsars(table):
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


def test_friedman_with_only_ties_has_p_of_one(table):
    found = table({("net", name, "insertion"): [0.5] * 8 for name in "ABC"}).image_ranks("insertion")
    assert found.p == 1
    assert np.isnan(found.statistic)


def test_friedman_needs_three_rows(table):
    assert table({("net", name, "insertion"): noise(i) for i, name in enumerate("AB")}).image_ranks("insertion") is None


def test_leads_are_known_without_any_sample():
    values = {
        Cell("net", "A", "insertion"): Value(0.5, 0.4, 0.6, 9),
        Cell("net", "B", "insertion"): Value(0.3, 0.2, 0.35, 9),
    }
    columns: dict[Cell, Column] = {}
    evaluations = Evaluations("", [], [], {"insertion": True}, values, columns, {}, {}, {})
    found = ranking_tables(evaluations)[0]
    assert found.compare_rows("insertion", "A", "B").significant
    assert found.image_ranks("insertion") is None
