import pytest
import torch

from sightline.reporting import show
from sightline.reporting.plots.panel import panel
from sightline.reporting.plots.style import ACCENT


@pytest.fixture
def overlay():
    return show(
        torch.rand(2, 3, 8, 8), {"gradcam": torch.rand(2, 8, 8), "hirescam": torch.rand(2, 8, 8)}, ["a.jpg", "b.jpg"]
    )


def bars(axes):
    return [(bar.get_width(), bar.get_facecolor()) for bar in axes.patches]


def test_panel_lists_the_likeliest_classes(overlay):
    probabilities = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    figure = panel(overlay, probabilities, targets=[1, 0], classes=["cat", "dog", "hen"], top=2)
    assert len(figure.axes) == 2 * 4  # image, two methods, prediction
    first, second = figure.axes[3], figure.axes[7]
    assert [t.get_text() for t in first.texts] == ["dog", "60.0%", "hen", "30.0%"]
    assert [t.get_text() for t in second.texts] == ["cat", "50.0%", "hen", "30.0%"]
    assert [width for width, _ in bars(first)] == pytest.approx([0.6, 0.3])


def test_the_explained_class_is_marked_and_listed_also_when_unlikely(overlay):
    probabilities = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    figure = panel(overlay, probabilities, targets=[0, 0], classes=["cat", "dog", "hen"], top=2)
    first = figure.axes[3]
    assert [t.get_text() for t in first.texts] == ["dog", "60.0%", "hen", "30.0%", "cat", "10.0%"]
    colours = [colour for _, colour in bars(first)]
    from matplotlib.colors import to_rgba

    assert [c == to_rgba(ACCENT) for c in colours] == [False, False, True]
