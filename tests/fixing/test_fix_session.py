"""What the marking page does with marks: the session that stands between the page and the refit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cheats import GROUNDS, SIZE, accuracy, cheating_model, read_masks, write

from sightline.fixing.marks import Mark
from sightline.fixing.mending.mend import open_networks
from sightline.fixing.reading import read_given
from sightline.fixing.session import Session
from sightline.models.opening import open_model


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Path, Path]:
    root = tmp_path_factory.mktemp("session")
    seen, swapped = write(root / "seen", False, 12, 0), write(root / "swapped", True, 12, 1)
    opened = open_model(cheating_model(seen), size=SIZE, mean=(0.5,), std=(0.5,))
    given = read_given(opened, seen / "images", None, None, None)
    return Session(open_networks(opened, None, "none"), given), seen, swapped


def test_images_of_the_page_are_whole_and_have_maps_and_scores(session) -> None:
    page, _, _ = session
    assert sorted(page.names)[0] == "apple/0.png"
    assert page.image(0).shape == (SIZE, SIZE, 3)
    assert page.map(0).shape == (SIZE, SIZE)
    assert 0 <= min(page.scores) <= max(page.scores) <= 1
    assert set(page.labels) == set(GROUNDS) == set(page.predicted)


def test_marks_refit_and_export_the_model(session, tmp_path: Path) -> None:
    page, seen, swapped = session
    masks = read_masks(seen)
    marks = {i: Mark("wrong", masks[name] > 0) for i, name in enumerate(page.names) if int(Path(name).stem) < 6}
    told: list[str] = []
    found = page.refit(marks, 1, lambda text, share: told.append(text))
    assert found.helped
    assert told == ["find objects", "fit heads"]
    files = page.export(1, marks, tmp_path)
    assert all(file.exists() for file in files)
    program = torch.export.load(tmp_path / "model" / "model.pt2").module()
    assert accuracy(program, swapped) > 0.9


def test_export_without_a_refit_writes_no_model(session, tmp_path: Path) -> None:
    page, _, _ = session
    assert page.export(None, {}, tmp_path) == []


def test_a_region_to_avoid_is_a_mark(session) -> None:
    page, seen, _ = session
    masks = read_masks(seen)
    avoid = {i: Mark(None, None, masks[name] == 0) for i, name in enumerate(page.names)}
    given = page.with_marks(avoid)
    assert given.drawn().all()
    assert np.array_equal(given.avoid[0], masks[page.names[0]] == 0)
