import io

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sightline.cli.app import app
from sightline.errors import SightlineError
from sightline.reporting.plots.drawing import png, save_figure
from sightline.reporting.plots.style import new_axes


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def drawn(text: str, log: bool = False) -> bytes:
    """A figure with a text in every place where a name can be."""
    figure, ((axes,),) = new_axes(3, 3)
    axes.plot([1, 10], [1, 2], label=text)
    axes.set(title=text, xlabel=text, ylabel=text)
    axes.set_yticks([1, 2], [text, "b"])
    axes.text(2, 1.5, text)
    figure.legend()
    if log:
        axes.set_xscale("log")
    return png(figure)


@pytest.mark.parametrize("name", ["a$b$c.jpg", "$100$", r"$\frac{$", "$^$", r"a\$b"])
def test_a_dollar_in_a_name_is_a_dollar(name, monkeypatch):
    """The reference is matplotlib told to know no formulas at all."""
    found = drawn(name)
    monkeypatch.setitem(__import__("matplotlib").rcParams, "text.parse_math", False)
    assert np.array_equal(pixels(found), pixels(drawn(name)))


def test_powers_of_ten_at_a_log_axis_stay_powers(monkeypatch):
    with_powers = drawn("a", log=True)
    monkeypatch.setitem(__import__("matplotlib").rcParams, "text.parse_math", False)
    assert not np.array_equal(pixels(with_powers), pixels(drawn("a", log=True)))


def test_a_figure_is_saved_whole_or_not_at_all(tmp_path):
    figure, _ = new_axes(1, 1)
    path = save_figure(figure, tmp_path / "new" / "a.png")
    before = path.read_bytes()

    def half(*_, **__):
        raise KeyboardInterrupt

    figure.savefig = half
    with pytest.raises(KeyboardInterrupt):
        save_figure(figure, path)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["grid.txt", "grid", "grid.", ".png", "grid.png.gz"])
def test_a_name_without_a_format_is_rejected(name, tmp_path):
    figure, _ = new_axes(1, 1)
    with pytest.raises(SightlineError, match=r"expected a name that ends in \.png"):
        save_figure(figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["explain", "none.png"], ["filters"]])
def test_a_command_rejects_a_name_before_it_opens_the_model(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command, "--run", "none", "-o", "grid.txt"])
    assert str(done.exception) == "output is 'grid.txt'; expected a name that ends in .png, .jpg, .pdf or .svg"
