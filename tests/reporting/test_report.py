import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import PurePath

import pytest

from run_folders import write_run
from sightline import SightlineError
from sightline.evaluation.comparison import ACCURACY, read_comparison
from sightline.reporting.comparison import charts, compare
from sightline.reporting.comparison.report import cautions

VOID = {"meta", "br", "img", "line", "polyline"}


class Page(HTMLParser):
    """The page's text, tags and attributes; fails where a tag is closed that is not open."""

    def __init__(self, source):
        super().__init__()
        self.open, self.words, self.tags = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture
def page(tmp_path):
    def make(ours, theirs):
        return Page(compare(ours, theirs, tmp_path / "new" / "report.html").read_text(encoding="utf-8"))

    return make


def test_values_are_on_the_page(tmp_path, page):
    patterns = {"so": [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 1]], "ce": [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]}
    runs = {
        name: [write_run(tmp_path / f"{name}{s}", name=name, seed=s, n=4, correct=p) for s, p in enumerate(each)]
        for name, each in patterns.items()
    }
    text = page(runs["so"], runs["ce"]).text
    # accuracies 75, 100, 75 against 25, 50, 0: 58.3 points, paired t interval 58.3 +- 4.3027 * 8.333
    assert "83.3% compared with 25.0%, a difference of +58.3 points (95% intervals: +22.5 to +94.2 over seeds" in text
    assert "3 seeds each, paired by seed." in text
    assert "so is 58.3 points more accurate than ce on test" in text


def test_summary_states_that_a_refit_did_not_help(tmp_path, page):
    right, wrong = [1] * 20 + [0] * 20, [0] * 20 + [1] * 20
    same = [write_run(tmp_path / f"{n}", name=n, n=40, correct=c) for n, c in (("so", right), ("ce", wrong))]
    assert "so does not significantly differ from ce in accuracy on test" in page(same[:1], same[1:]).text
    better, worse = (
        write_run(tmp_path / n, name=n, n=40, correct=c) for n, c in (("good", [1] * 40), ("bad", [0] * 40))
    )
    text = page([worse], [better]).text
    assert "bad is 100.0 points less accurate than good on test" in text


def test_explainers_that_training_used_are_distinguished(groups, page):
    text = page(*groups()).text
    assert "The gradcam maps of so-loss (an explainer that the training used) have" in text
    assert "The eigencam maps of so-loss (an explainer that the training did not use) have" in text


def test_page_is_self_contained(groups, page):
    document = page(*groups(splits=("test", "val")))
    references = [
        a[name] for _, a in document.tags for name in ("src", "href", "srcset", "data", "action") if name in a
    ]
    assert references
    assert all(r.startswith("data:image/") for r in references)
    assert not {tag for tag, _ in document.tags} & {"script", "link", "iframe", "object"}


def test_styles_load_nothing(groups, tmp_path):
    source = compare(*groups(), tmp_path / "report.html").read_text()
    style = re.search(r"<style>(.*?)</style>", source, re.S)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_names_are_escaped(groups, page):
    names = ["<script>alert(1)</script>", 'say "hi" & go', "<img src=http://x.example>"]
    document = page(*groups(classes=names))
    assert "<script>alert(1)</script>" in document.text
    assert "script" not in {tag for tag, _ in document.tags}
    assert all(a.get("src", "data:").startswith("data:") for tag, a in document.tags if tag == "img")


def test_chance_rows_stand_apart_and_are_never_best(tmp_path, groups, page):
    ours, theirs = groups(focus=0.2)  # maps that miss the object: a centred Gaussian has more energy on it
    document = page(ours, theirs)
    assert [a.get("class") for tag, a in document.tags if tag == "tbody"].count("chance") == 2
    source = (tmp_path / "new" / "report.html").read_text()
    chance = "".join(re.findall(r'<tbody class="chance">.*?</tbody>', source, re.S))
    assert 'class="best"' not in chance
    assert source.count('class="best"') == 2  # one for each metric


def test_gallery_states_how_it_was_chosen(groups, page):
    document = page(*groups())
    assert (
        "These are the 8 of 24 saved images whose maps differ most in the share of the map that is on" in document.text
    )
    assert "8 of the other saved images, drawn with a fixed seed" in document.text
    assert sum(tag == "img" for tag, _ in document.tags) == 16 * 3


def test_gallery_without_masks_measures_the_change_of_the_map(groups, page):
    assert "differ most in the map, by the mean absolute difference of its pixels" in page(*groups(masks=False)).text


def test_report_without_gallery_curves_and_groups_leaves_them_out(groups, page):
    ours, theirs = groups()
    for path in (*ours, *theirs):
        test = path / "evaluation" / "test"
        shutil.rmtree(test / "gallery")
        (test / "curves.json").unlink()
        rows = (test / "samples.csv").read_text().splitlines()
        place = rows[0].split(",").index("group")
        cut = [",".join("" if i == place and n else c for i, c in enumerate(r.split(","))) for n, r in enumerate(rows)]
        (test / "samples.csv").write_text("\n".join(cut))
        summary = json.loads((test / "summary.json").read_text())
        summary["results"] = [r for r in summary["results"] if r["metric"] != "worst_group_accuracy"]
        (test / "summary.json").write_text(json.dumps(summary))
    text = page(ours, theirs).text
    assert "drawn at random" not in text
    assert "Accuracy by group" not in text
    assert "Insertion and deletion" not in text


def test_report_states_recipes_commands_and_versions(groups, page):
    text = page(*groups()).text
    assert "guide.name none segment_overlap" in text
    assert "sightline train so-loss.yaml seed=2" in text
    assert "torch 2.9.0" in text
    assert "640 steps on 10,240 images" in text


def test_report_explains_each_measure_once(groups, page):
    assert page(*groups()).text.count("Mean share of the map's energy on the object, in [0, 1]") == 1


def test_report_cautions_name_every_difference(tmp_path):
    ours = write_run(tmp_path / "a", name="a", steps=700, status="failed: NaN loss")
    theirs = write_run(tmp_path / "b", name="b", versions={"torch": "2.6"})
    assert cautions(read_comparison([ours], [theirs])) == [
        "A model has fewer than three runs, so intervals over seeds are missing or very wide.",
        "The trainings differ in length: 700 steps compared with 640.",
        "The runs were made with different versions of the software.",
        "a is not finished: its status is “failed: NaN loss”.",
    ]


def test_runs_of_one_epoch_have_no_learning_curves(groups, page):
    ours, theirs = groups()
    assert "Learning curves" in page(ours, theirs).text
    for run in (*ours, *theirs):
        history = run / "metrics.csv"
        history.write_text("".join(history.read_text().splitlines(keepends=True)[:2]))
    assert "Learning curves" not in page(ours, theirs).text


def test_a_value_that_is_the_same_everywhere_is_drawn_between_readable_ticks():
    assert charts.Scale.over([0.0, 0.0]).ticks == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


def test_cautions_without_cause_are_empty(groups):
    assert cautions(read_comparison(*groups())) == []


def test_the_page_depends_only_on_the_runs(groups, tmp_path):
    ours, theirs = groups()
    first, second = (compare(ours, theirs, tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert first == second


def test_a_place_that_cannot_be_written(groups, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SightlineError, match="cannot write"):
        compare(*groups(), tmp_path / "file" / "report.html")


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed: the page's width is not tested"
)
@pytest.mark.parametrize("width", [390, 1280])
def test_report_never_overflows_horizontally(groups, tmp_path, width):
    """The page in a frame of the width, since a window of chromium is never narrower than 500 pixels."""
    ours, theirs = groups(splits=("test", "val"), classes=["a-very-long-class-name-without-a-space" * 2, "b", "c"])
    source = compare(ours, theirs, tmp_path / "report.html").read_text().replace("<details>", "<details open>")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe id="f" style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(source)}"></iframe>'
        '<p id="out"></p><script>f.onload = () => {'
        "const d = f.contentDocument;"
        "const wide = [...d.querySelectorAll('main *')].filter(e => !e.closest('.table')"
        " && e.getBoundingClientRect().right > d.documentElement.clientWidth + 1);"
        "out.textContent = JSON.stringify([d.documentElement.scrollWidth, d.querySelectorAll('details[open]').length,"
        " wide.map(e => e.className).slice(0, 5)]);"
        "}</script>",
        encoding="utf-8",
    )
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    done = subprocess.run(
        ["chromium", *options.split(), "--disable-component-update", "--disable-sync", "--hide-scrollbars",
         f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000", "--dump-dom", f"file://{frame}"],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    found = re.search(r'<p id="out">(.*?)</p>', done.stdout)
    scroll_width, opened, wide = json.loads(html.unescape(found[1]))
    assert opened == 7  # six runs and one more split: the hidden parts were measured, too
    assert wide == []
    assert scroll_width == width


def test_results_at_chance_level_are_never_marked_best(tmp_path, page):
    """60 images: a model that is always right on the same 2 or 12 of them; the most frequent class is more frequent."""
    ours, theirs = (
        write_run(tmp_path / name, name=name, n=60, correct=[1] * right + [0] * (60 - right))
        for name, right in (("so", 12), ("ce", 2))
    )
    compared = read_comparison([ours], [theirs])
    difference = compared.splits[0].differences[ACCURACY]
    labels = compared.ours.runs[0].evaluations["test"].samples.label.tolist()
    assert difference.significant
    assert difference.chance == max(map(labels.count, labels)) / 60 > 12 / 60
    assert difference.outcome == "unclear"
    text = page([ours], [theirs]).text
    assert (
        "Neither so nor ce is better than chance on test, where always predicting the most frequent class has" in text
    )
    assert "more accurate" not in text
    better = write_run(tmp_path / "good", name="good", n=60, correct=[1] * 50 + [0] * 10)
    assert read_comparison([better], [theirs]).splits[0].differences[ACCURACY].outcome == "better"


def test_images_are_shown_with_the_names_of_their_files(tmp_path, page):
    runs = [write_run(tmp_path / name, name=name) for name in ("a", "b")]
    samples = read_comparison(runs[:1], runs[1:]).ours.runs[0].evaluations["test"].samples
    text = page(runs[:1], runs[1:]).text
    assert sum(text.count(PurePath(path).name) for path in samples.path) >= 8
