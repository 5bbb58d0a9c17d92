"""Filters of trained models, outlined and circled."""

import csv
from pathlib import Path

import pytest
import torch

from sightline._core.seeding import generator
from sightline.data.loader import create_loader
from sightline.galleries.filters import Filters, discs
from sightline.models.filter_groups import carried_filter_groups
from sightline.reporting.plots.filters import show_filters
from sightline.runs import load_run
from sightline.studies import read_study, run_study
from sightline.studies.study import make_study

TINY = {
    "data.copies": 1, "data.size": 32, "image_size": 32, "model.name": "sightline/lenet5", "batch_size": 64,
    "stages": [{"epochs": 1, "lr": 5e-3}], "train_fraction": 0.3,
}  # fmt: skip


def study(style: str) -> Filters:
    made = make_study({
        "kind": "filters", "paper": "", "item": "x", "title": "x", "source": "", "recipe": "demo-cross-entropy", "keys": TINY,
        "models": [
            {"label": "plain", "keys": {"guide": None}}, {"label": "icCNN", "keys": {"guide": {"name": "iccnn", "groups": 3}}},
        ],
        "style": style, "num_images": 40, "groups": 4, "filters": 2, "images_per_filter": 3,
    })  # fmt: skip
    assert isinstance(made, Filters)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("style", ["contours", "circles"])
def test_the_filters_are_those_of_the_trained_models_and_their_marks_are_measured(style: str, tmp_path: Path) -> None:
    folder = run_study(study(style), tmp_path / "out", device="cpu")
    assert (folder / "plain.png").is_file()
    assert (folder / "icCNN.png").is_file()
    table = list(csv.DictReader((folder / "table.csv").open(newline="")))
    assert [row["model"] for row in table] == ["plain"] * 2 + ["icCNN"] * 2

    run = load_run(folder / "runs" / "icCNN", "cpu")
    test = run.splits[run.splits.main_test]
    drawn = torch.randperm(len(test), generator=generator(0, "filters"))[:40].sort().values.tolist()
    batch = next(iter(create_loader(test, size=32, batch_size=40, train=False, indices=drawn)))
    carried = carried_filter_groups(run.model)
    assert carried is not None
    layer, groups = carried
    gallery = show_filters(run.model, batch.images, layer, run.input_spec, groups=groups, columns=3, style=style)  # type: ignore[arg-type]
    assert [str(row.number) for row in gallery.rows[:2]] == [row["filter"] for row in table[2:]]
    row = gallery.rows[0]
    torch.testing.assert_close(batch.images[row.places], row.images)

    shares = []  # by hand, pixel by pixel
    for place, maps, circle in zip(row.places, row.maps, row.circles):
        marked = on_object = 0
        for y in range(32):
            for x in range(32):
                inside = (
                    float(maps[y, x]) > 0.5
                    if style == "contours"
                    else (x - circle[0]) ** 2 + (y - circle[1]) ** 2 <= circle[2] ** 2
                )
                marked += bool(inside)
                on_object += bool(inside) and bool(batch.object_masks()[place, y, x] >= 0.5)
        shares += [on_object / marked] if marked else []
    assert float(table[2]["on_object"]) == pytest.approx(sum(shares) / len(shares), abs=1e-5)


def test_a_disc_has_the_pixels_within_its_radius_and_a_silent_filter_none() -> None:
    found = discs(torch.tensor([[1.0, 2.0, 1.0], [1.0, 2.0, 0.0]]), torch.Size([4, 4]))
    assert found[0].nonzero().tolist() == [[1, 1], [2, 0], [2, 1], [2, 2], [3, 1]]
    assert not found[1].any()


@pytest.mark.parametrize(("item", "style"), [("figure-5", "circles"), ("figure-6", "contours")])
def test_the_papers_values_compare_iccnn_with_and_without_weights(item: str, style: str) -> None:
    figure = read_study("ec", item)
    assert isinstance(figure, Filters)
    assert figure.style == style
    assert [model.keys.get("guide", "the recipe's") for model in figure.models] == ["iccnn", "the recipe's"]
