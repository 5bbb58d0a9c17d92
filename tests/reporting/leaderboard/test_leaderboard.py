"""The leaderboard as a page and as Markdown."""

import base64
import re

import numpy as np
import pytest
import torch

from grid_folders import N, noise, settled, write_grid
from sightline.evaluation.grid_folder import read_evaluations
from sightline.evaluation.ranking import CellMark, model_ranking_table, ranking_tables
from sightline.reporting.leaderboard.curves import line_styles
from sightline.reporting.leaderboard.page import write_leaderboard
from sightline.reporting.leaderboard.sections import make_gallery, make_sections, overview
from sightline.reporting.leaderboard.tables import render_markdown
from sightline.reporting.leaderboard.words import KEY


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
    assert "Without a value, and therefore without a rank: B (Deletion); D (Insertion, Deletion)." in text
    assert "| B | (1.00) | 1 | – |" in text
    assert "| D | – | – | – |" in text
    assert "Without a value, and therefore without a rank" in html


@pytest.mark.parametrize("title", ["", "mine"])  # a study without a title of its own has the name of its file
def test_title_without_study_title_says_what_is_ranked(page, title):
    values = settled()
    html, text = page(values, title=title, item="mine")
    assert text.splitlines()[0] == "# Ranking of 3 explainers on net by 2 metrics"
    assert "<h1>Ranking of 3 explainers on net by 2 metrics</h1>" in html
    one = {key: some for key, some in values.items() if key[1:] == ("A", "insertion")}
    both = one | {("other", *key[1:]): some for key, some in one.items()}
    assert page(one, title="")[1].startswith("# Ranking of one explainer on net by insertion\n")
    assert page(both, title="")[1].startswith("# Ranking of one explainer on 2 models by insertion\n")
    assert page({("net", "", "accuracy"): [1, 0], ("other", "", "accuracy"): [1, 1]}, title="")[1].startswith(
        "# Ranking of 2 models by accuracy\n"
    )


def test_findings_name_explainers_that_another_one_equals_in_every_metric(page):
    assert "The best explainer depends on the metric: none is at least as good as another one" in page(settled())[1]
    worst = settled() | {("net", "D", metric): [0.45] * N for metric in ("insertion", "deletion")}
    assert (
        "For D, another explainer is at least as good in every metric. A, B and C: every other explainer is worse in at "
        "least one metric." in page(worst)[1]
    )


def test_markdown_lists_values_with_intervals_and_bold_best(page):
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
    assert "- Every explainer is significantly better than chance (Random-CAM) in every metric." in lines
    assert "A, B and C share the best mean rank over the 2 metrics: 2.00 (1 is best, 3 is last)." in text


def test_the_page_explains_each_measure_once(page):
    html, _ = page(settled())
    assert html.count("<li><b>Insertion</b>: Mean probability of the class while pixels are added") == 1


def test_the_page_marks_what_is_no_better_than_chance(page):
    values = settled()
    values["net", "C", "insertion"] = values["net", "Random-CAM", "insertion"] + noise(50)
    values["net", "A", "insertion"] = values["net", "Random-CAM", "insertion"] - 0.1
    html, text = page(values)
    tables = text.replace(KEY, "")
    assert tables.count("≈ chance") == 1
    assert tables.count("below chance") == 1
    assert '<small class="level">≈ chance</small>' in html
    assert '<small class="below">below chance</small>' in html
    assert "2 of 6 values are not significantly better than chance (Random-CAM): Insertion (A, C)." in text


def test_findings_without_random_maps_name_the_gap(page):
    html, text = page({key: some for key, some in settled().items() if key[1] != "Random-CAM"})
    assert "No chance baseline was evaluated" in text
    assert 'class="chance"' not in html


def test_table_with_only_random_maps_has_no_ranking(page):
    _, text = page({key: some for key, some in settled().items() if key[1] == "Random-CAM"})
    assert "- No value can be compared with chance (Random-CAM) yet." in text
    assert "best mean rank" not in text


def test_explainer_alone_is_not_called_the_best(table, page):
    values = {("net", "A", "insertion"): 0.5 + noise(0)}
    assert table(values).mark("A", "insertion") == CellMark(0, False, None)
    _, text = page(values)
    assert "**" not in text
    assert "best mean rank" not in text


def test_several_models_get_a_section_each_and_an_overview(tmp_path):
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


def gallery(looks, size=8):
    """Two images; a map a row of that mean, in per cent of 255."""
    maps = {
        f"maps/net/{row}": torch.full((2, size, size), int(255 * look), dtype=torch.uint8)
        for row, look in looks.items()
    }
    return {"index": torch.tensor([1, 3]), "images": torch.zeros(2, 3, size, size, dtype=torch.uint8), **maps}


def test_images_of_largest_make_gallery(tmp_path):
    # By looks A, B, C on both images. By score on image 1 C, B, A: A's gap is 2 of 2 places, C's -2. On image 3 A, C, B.
    scores = {"A": [0, 0.1, 0, 0.9], "B": [0, 0.2, 0, 0.1], "C": [0, 0.3, 0, 0.5], "Random-CAM": [0, 0, 0, 0]}
    values = {("net", row, "insertion"): some for row, some in scores.items()}
    saved = gallery({"C": 0.8, "A": 0.2, "B": 0.5, "Random-CAM": 0.1})
    evaluations = read_evaluations([write_grid(tmp_path / "grid", values, gallery=saved)])
    found = make_gallery(ranking_tables(evaluations)[0], evaluations.saved["net"])
    assert (found.found.looks, found.found.scores, found.found.pool) == (["complexity"], ["insertion"], 2)
    first = found.plausible_but_unfaithful[0]
    assert (first.disputed.path, first.disputed.chosen.row) == ("images/1.jpg", "A")
    assert (first.disputed.chosen.looks, first.disputed.chosen.score) == (1, 3)
    assert [tile.scored_map.row for tile in first.tiles] == ["C", "B", "A", "Random-CAM"]  # by score, chance last
    assert [tile.chosen for tile in first.tiles] == [False, False, True, False]
    assert first.tiles[-1].scored_map.ranks == {}
    second = found.plausible_but_unfaithful[1]  # on image 3, B looks second and scores third
    chosen = second.disputed.chosen
    assert (second.disputed.path, chosen.row, chosen.score - chosen.looks) == ("images/3.jpg", "B", 1)
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
    found = make_gallery(ranking_tables(evaluations)[0], evaluations.saved["net"])
    judged = {tile.scored_map.row: tile.scored_map for tile in found.plausible_but_unfaithful[0].tiles}
    assert judged["in"].values["energy_in_mask"] == pytest.approx(2 / 3)
    assert judged["out"].values["energy_in_mask"] == pytest.approx(2 / 7)
    assert found.plausible_but_unfaithful[0].disputed.chosen.row == "in"


def test_leaderboard_without_saved_maps_has_no_gallery(tmp_path, page):
    evaluations = read_evaluations([write_grid(tmp_path / "grid", settled())])
    assert make_gallery(ranking_tables(evaluations)[0], None) is None
    assert "Plausible but unfaithful" not in page(settled())[0]


def test_page_is_self_contained(page):
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
