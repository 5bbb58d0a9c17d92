"""Several sources: the probe of the source, one source left out, and where the sources come from."""

import pytest
import torch
from torch import nn

import sightline as sl
from sightline.diagnosis import diagnose
from sightline.diagnosis.page import render
from sightline.diagnosis.sources import read_sources

SIDE, COUNT = 8, 120
LABELS, SITES = torch.arange(COUNT) % 2, torch.arange(COUNT) // 2 % 3


def images(marked: bool) -> torch.Tensor:
    """Red says the class; in a marked set, blue says the site, and at site 2 red says the other class."""
    noise = 0.05 * torch.randn(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    shades = torch.stack([LABELS.float(), torch.full((COUNT,), 0.5), torch.full((COUNT,), 0.5)], 1)
    if marked:
        shades[:, 2] = SITES / 2
        shades[SITES == 2, 0] = 1 - LABELS[SITES == 2].float()
    return (0.2 + 0.6 * shades[..., None, None] + noise).clamp(0, 1)


def found(marked: bool, sources: object = None) -> sl.diagnosis.Diagnosis:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model[-1].weight.data, model[-1].bias.data = torch.tensor([[-9.0, 0, 0], [9, 0, 0]]), torch.tensor([4.5, -4.5])
    masks = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.uint8)
    masks[:, 2:6, 2:6] = 1
    batch = sl.Batch(images(marked), LABELS, masks=masks, has_mask=torch.ones(COUNT, dtype=torch.bool))
    names = [f"site {site}" for site in SITES.tolist()] if sources is None else sources
    return diagnose(model, [batch], explainer="hirescam", layer="0", sources=names, shortcuts=False)


def test_a_source_that_is_otherwise_fails_when_it_is_left_out() -> None:
    said = found(marked=True)
    assert said.sources is not None
    other = next(each for each in said.sources.each if each.name == "site 2")
    assert (other.images, other.accuracy, other.left_out) == (40, 0, 0)
    assert {each.accuracy for each in said.sources.each if each.name != "site 2"} == {1}
    losses = [each.within - each.left_out for each in said.sources.each]
    assert losses == sorted(losses, reverse=True)
    assert said.sources.told.accuracy == 1
    assert said.sources.told.chance == pytest.approx(1 / 3)
    assert said.sources.told_in_class.p < 1e-6
    assert "site 2" in render(said)


def test_equal_sources_are_not_separable() -> None:
    sources = found(marked=False).sources
    assert sources is not None
    assert sources.told.p > 0.01
    assert sources.told_in_class.p > 0.01
    assert {(each.left_out, each.within) for each in sources.each} == {(1, 1)}


def test_sources_are_read_from_folders_and_tables(tmp_path) -> None:
    paths = ["/d/north/cat/1.png", "/d/south/cat/1.png"]
    assert read_sources(paths, "folder:2") == ["north", "south"]
    assert read_sources(paths, "folder:1") == ["cat", "cat"]
    table = tmp_path / "meta.csv"
    table.write_text("path,hospital\nnorth/cat/1.png,A\nsouth/cat/1.png,B\n")
    assert read_sources(paths, f"{table}:hospital") == ["A", "B"]
    for where, message in (
        ("folder:9", "fewer folders"), ("folder:0", "expected 'folder:N'"), ("site", "expected 'folder:N'"),
        (f"{table}:doctor", "doctor"),
    ):  # fmt: skip
        with pytest.raises(sl.SightlineError, match=message):
            read_sources(paths, where)
    with pytest.raises(sl.SightlineError, match=r"no row for /d/east/1\.png"):
        read_sources(["/d/east/1.png"], f"{table}:hospital")


def test_one_source_is_rejected() -> None:
    with pytest.raises(sl.SightlineError, match="'x' for every image; expected two sources"):
        found(marked=True, sources=["x"] * COUNT)
