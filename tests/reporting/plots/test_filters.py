"""Filter pictures: fields worked by hand, the images and filters that are chosen, what is drawn, and the verb."""

from pathlib import Path

import pytest
import torch
from matplotlib.patches import Circle
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from run_folders import begin_run
from sightline import Objective, SightlineError, load_model
from sightline.cli.app import app
from sightline.cli.subject import find_subject
from sightline.evaluation.filter_responses import effective_field
from sightline.guides.iccnn import ICCNN
from sightline.models.filter_groups import carried_filter_groups
from sightline.reporting.plots.filters import show_filters
from sightline.training.checkpoint import State, write_state


class Colours(nn.Module):
    """Filters 0 and 1 respond to red, 2 and 3 to blue, in windows of 3 x 3; filter 4 never does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Linear(5, 2)
        with torch.no_grad():
            self.layer.weight.zero_()
            for number, channel, scale in [(0, 0, 1.0), (1, 0, 3.0), (2, 2, 0.5), (3, 2, 2.0)]:
                self.layer.weight[number, channel] = scale / 9
            self.layer.bias.copy_(torch.tensor([0.0, 0, 0, 0, -1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).relu().mean((2, 3)))


def spots() -> Tensor:
    """Eight black images with a red and a blue square of 5 pixels each, brighter from image to image and back."""
    images = torch.zeros(8, 3, 24, 24)
    for n in range(8):
        images[n, 0, 2 + n : 7 + n, 3:8] = 0.3 + 0.1 * n
        images[n, 2, 15:20, 4 + n : 9 + n] = 1.0 - 0.1 * n
    return images


def test_the_field_of_a_disc_is_the_disc() -> None:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    disc = ((x - 50) ** 2 + (y - 22) ** 2 <= 15**2).float()
    field = effective_field(torch.stack([disc, 7 * disc, torch.zeros_like(disc)]))
    torch.testing.assert_close(field[:2], torch.tensor([[50.0, 22, 15]] * 2), atol=0.1, rtol=0)
    assert field[2].tolist() == [0, 0, 0]
    point = torch.zeros(1, 5, 9)
    point[0, 3, 7] = 2
    torch.testing.assert_close(effective_field(point), torch.tensor([[7.0, 3, 0]]))


def test_filters_of_a_colour_make_a_group_and_find_their_squares() -> None:
    images = spots()
    gallery = show_filters(Colours(), images, "layer", groups=torch.tensor([0, 0, 1, 1, 2]), columns=3, style="circles")
    assert [row.group for row in gallery.rows] == [0, 1]  # the silent filter is not drawn
    assert [row.members for row in gallery.rows] == [2, 2]
    red, blue = gallery.rows
    assert torch.equal(red.images, images[[7, 6, 5]])
    assert torch.equal(blue.images, images[[0, 1, 2]])
    for row, channel in ((red, 0), (blue, 2)):
        for image, saliency, (x, y, radius) in zip(row.images, row.maps, row.circles.tolist()):
            place = (image[channel] > 0).nonzero().float()
            centre = place.mean(0)
            assert abs(x - centre[1]) <= 1.01  # the window's place within the square is open
            assert abs(y - centre[0]) <= 1.01
            assert radius == pytest.approx((2 * 12 / 9) ** 0.5)  # a window of 3 x 3 has mean square distance 12 / 9
            pooled = nn.functional.avg_pool2d(image[None, channel], 3, 1, 1)[0]
            torch.testing.assert_close(saliency, pooled / row.images[0, channel].max())
    assert red.maps.amax((1, 2)).tolist() == pytest.approx([1, 0.9, 0.8])


def test_groups_are_made_by_the_images() -> None:
    gallery = show_filters(Colours(), spots(), "layer", groups=3)
    numbers = {row.number for row in gallery.rows}
    assert len(numbers & {0, 1}) == len(numbers & {2, 3}) == 1
    # Two pairs that are like each other alone, and a filter that is like none: 2 x 8 / (8 + 4 + 2) + 1 / 5.
    assert gallery.coherence == pytest.approx(16 / 14 + 0.2, abs=0.01)
    assert all(len(row.images) == 6 for row in gallery.rows)


def test_named_filters_in_given_images() -> None:
    pictures = torch.zeros(2, 3, 24, 24)
    pictures[1, 0] = 0.5
    gallery = show_filters(Colours(), spots(), "layer", groups=3, filters=[4, 1], pictures=pictures)
    assert sorted(row.number for row in gallery.rows) == [1, 4]
    by_number = {row.number: row for row in gallery.rows}
    assert all(torch.equal(row.images, pictures) for row in gallery.rows)
    assert not by_number[4].maps.any()
    assert not by_number[4].circles.any()
    assert by_number[1].maps.amax((1, 2)).tolist() == [0, 0.5]  # of the highest among the images, not the pictures
    assert by_number[1].circles[0].tolist() == [0, 0, 0]


def test_the_model_is_unchanged() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        show_filters(model, spots(), "0", groups=2)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("style", ["contours", "circles"])
def test_show_filters_draws_the_region_of_each_filter(style, tmp_path: Path) -> None:
    gallery = show_filters(Colours(), spots(), "layer", groups=torch.tensor([0, 0, 1, 1, 1]), columns=2, style=style)
    figure = gallery.figure()
    assert len(figure.axes) == 4
    assert "1 of 2 in group 0" in figure.axes[0].get_ylabel()
    for axes, square in zip(figure.axes[:2], ([9, 14, 3, 8], [8, 13, 3, 8])):
        if style == "circles":
            (circle,) = [patch for patch in axes.patches if isinstance(patch, Circle)]
            assert square[0] <= circle.center[1] <= square[1]
            assert square[2] <= circle.center[0] <= square[3]
        else:
            (contour,) = axes.collections
            outline = contour.get_paths()[0].vertices
            assert outline[:, 1].min() >= square[0] - 1
            assert outline[:, 1].max() <= square[1]
            assert outline[:, 0].min() >= square[2] - 1
            assert outline[:, 0].max() <= square[3]
    assert Image.open(gallery.save(tmp_path / "filters.png")).size[0] > 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": spots()[:1]}, "images holds 1 image"),
        ({"images": spots() + 0.5}, "images must be grey or in colour"),
        ({"pictures": torch.zeros(1, 5, 24, 24)}, "pictures must be grey or in colour"),
        ({"style": "boxes"}, "style is 'boxes'"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"columns": 0}, "columns is 0"),
        ({"groups": torch.zeros(3, dtype=torch.int64)}, "groups has 3 entries; the layer has 5 filters"),
        ({"groups": 6}, "groups is 6; the layer has 5 filters"),
        ({"filters": [5]}, "filters holds 5; the layer has the filters 0 to 4"),
        ({"filters": []}, "filters is empty"),
        ({"layer": "lair"}, "did you mean 'layer'"),
    ],
)
def test_show_filters_invalid_options_raise(options, message: str) -> None:
    arguments = {"images": spots(), "layer": "layer", "groups": 2} | options
    with pytest.raises(SightlineError, match=message):
        show_filters(Colours(), **arguments)


# ---- the verb ----


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of noise photographs and a run's folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        for i in range(3):
            file = Path(f"images/{name}/{i}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 50), 90).convert("RGB").save(file)
    torch.manual_seed(0)
    model, _ = load_model("sightline/small_cnn", classes=2)
    save_file(
        model.state_dict(), begin_run(Path("run"), "sightline/small_cnn", ["cat", "dog"], 32, layer="blocks").last
    )
    return tmp_path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["filters", *arguments])
    if done.exception:
        raise done.exception
    return done.stderr + done.stdout


def test_filters_command_draws_a_run_by_its_layer(here: Path) -> None:
    data = ["--run", "run", "--data", "folder", "root=images", "val=0", "test=0", "--split", "train"]
    said = call(*data, "--groups", "4", "--count", "5", "--columns", "2")
    assert "\ncoherence 1." in said
    assert "of 4 groups" in said
    assert said.endswith("filters.png\n")
    small = Image.open("filters.png").size
    call(*data, "--groups", "4", "--filters", "3, 90", "images/cat/0.png", "--style", "circles", "-o", "out/two.png")
    drawn = Image.open("out/two.png").size
    assert drawn[0] == pytest.approx(small[0] / 2, abs=2)
    assert drawn[1] < small[1]
    with pytest.raises(SightlineError, match="has the filters 0 to 23"):
        call(*data, "--groups", "4", "--filters", "90", "--layer", "stem")


def test_filters_command_draws_the_groups_that_a_run_kept(here: Path) -> None:
    model, _ = load_model("sightline/small_cnn", classes=2)
    objective = Objective(model, guide := ICCNN(groups=3), layer="blocks")
    write_state(Path("run/checkpoints/resume.safetensors"), [objective], None, State())
    data = ["--run", "run", "--data", "folder", "root=images", "val=0", "test=0", "--split", "train", "--columns", "2"]
    assert "of 16 groups" in call(*data)  # the guide has found none
    guide._assigned.values = torch.arange(96) % 3
    write_state(Path("run/checkpoints/resume.safetensors"), [objective], None, State())
    subject = find_subject(None, None, Path("run"))
    gallery = show_filters(
        subject.model, torch.rand(4, 3, 32, 32), "blocks", subject.input_spec, groups=guide.filter_groups
    )
    assert [row.number % 3 for row in gallery.rows] == [row.group for row in gallery.rows]
    assert "of the run's groups" in call(*data)
    assert "of 4 groups" in call(*data, "--groups", "4")
    assert torch.equal(carried_filter_groups(subject.model)[1], guide.filter_groups)


def test_filters_command_rejects_words_for_filters(here: Path) -> None:
    with pytest.raises(SightlineError, match="--filters is 'three'; expected numbers"):
        call("--run", "run", "--filters", "three")
    with pytest.raises(SightlineError, match="no model was named"):
        call("--data", "digits")
