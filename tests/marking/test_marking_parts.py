"""The parts of the marking page without the page."""

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("cv2")

from sessions import Discs

from sightline import SightlineError
from sightline.fixing.marks import Mark
from sightline.marking.drawing import Drawing, Layer
from sightline.marking.mark_files import write_marks
from sightline.marking.queue import RESERVED, Queue
from sightline.marking.segmenting import Segmenting


def test_the_queue_goes_by_score_and_gives_no_image_to_two_people_at_once():
    now = [0.0]
    queue = Queue([0.1, float("nan"), 0.9, 0.5], clock=lambda: now[0])
    assert queue.order == [2, 3, 0, 1]
    assert [queue.next(person, ()) for person in (1, 2, 1)] == [2, 3, 2]  # who asks again sees the same image
    assert queue.next(1, (), after=2) == 0  # skipped; another person looks at 3
    assert queue.next(1, (0,), after=0) == 1
    assert queue.next(1, (0, 1), after=1) == 2  # around, to what was skipped
    assert queue.next(3, (0, 1, 2)) is None
    now[0] = RESERVED + 1
    assert queue.next(3, (0, 1, 2)) == 3  # whoever held it went away
    queue.show(0, 1)
    assert queue.next(2, ()) == 2
    with pytest.raises(SightlineError, match="at least one image"):
        Queue([])


def test_a_stroke_is_a_round_brush_of_its_radius():
    layer = Layer().painted(((0.5, 0.5),), 0.1, False, (80, 100))
    rows, columns = np.nonzero(layer.mask)
    assert abs(layer.mask.sum() - np.pi * 10**2) < 25
    assert (abs(rows.mean() - 39.5) < 0.3, abs(columns.mean() - 49.5) < 0.3) == (True, True)
    line = Layer().painted(((0.2, 0.5), (0.8, 0.5)), 0.05, False, (80, 100))
    assert abs(line.mask.sum() - (60 * 10 + np.pi * 5**2)) < 80
    half = line.painted(((0.5, 0.5), (1.0, 0.5)), 0.08, True, (80, 100))
    assert half.mask[:, :40].sum() == line.mask[:, :40].sum()
    assert half.mask[:, 55:].sum() == 0


def test_painting_and_erasing_outlive_another_segmentation():
    first, second = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    first[10:20, 10:20] = True
    second[10:20, 10:30] = True
    layer = (
        Layer()
        .segmented(first)
        .painted(((0.06, 0.06),), 0.03, False, (40, 40))
        .painted(((0.31, 0.31),), 0.03, True, (40, 40))
    )
    again = layer.segmented(second)
    assert again.mask[2, 2]
    assert not again.mask[12, 12]
    assert again.mask[15, 25]
    assert not layer.mask[15, 25]


def test_a_drawing_is_the_same_after_it_was_kept():
    mask = np.zeros((30, 20), bool)
    mask[3:9, 4:11] = True
    layer = Layer(inside=((0.1, 0.2),), outside=((0.9, 1.0),), box=(0.0, 0.1, 0.5, 0.6)).segmented(mask)
    drawing = Drawing("wrong", layer.painted(((0.5, 0.5),), 0.1, True, (30, 20)), Layer())
    again = Drawing.decode(*drawing.encode())
    assert (again.judgement, again.object.inside, again.object.outside) == ("wrong", layer.inside, layer.outside)
    assert again.object.box == layer.box
    assert (again.object.pixels == drawing.object.pixels).all()
    assert again.avoid == Layer()
    assert Drawing().mark.is_empty


def test_a_mark_is_resized_with_its_place():
    mask = np.zeros((10, 20), bool)
    mask[2:6, 5:10] = True
    large = Mark(object=mask).resized(100, 200).object
    assert large.shape == (100, 200)
    assert abs(large.sum() - 2000) < 60
    rows, columns = np.nonzero(large)
    assert (round(rows.mean()), round(columns.mean())) == (40, 74)


def test_names_that_lead_out_or_clash_are_rejected_on_export(tmp_path):
    data = Discs(3)
    marks = {i: Mark("right") for i in range(3)}
    for names in (["../a.jpg", "b.jpg", "c.jpg"], ["/a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "a.png", "c.jpg"]):
        data.names = names
        with pytest.raises(SightlineError, match=r"names has|one name"):
            write_marks(data, marks, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def square(image, points, box):
    mask = np.zeros(image.shape[:2], bool)
    mask[int(points[0, 1]) :, int(points[0, 0]) :] = True
    return mask


def all_but(image, points, box, outside=None):
    mask = np.ones(image.shape[:2], bool)
    for x, y in outside:
        mask[int(y), int(x)] = False
    return mask


def floats(image, points, box):
    return np.ones(image.shape[:2])


def broken(image, points, box):
    raise RuntimeError("out of memory")


def test_a_segmenter_of_the_users_is_asked_with_pixels():
    image = np.zeros((40, 60, 3), np.uint8)
    one = Segmenting(f"{__name__}:square")
    assert not one.takes_outside
    assert one(image, Layer(inside=((0.5, 0.25),)), "object").sum() == 30 * 30
    two = Segmenting(f"{__name__}:all_but")
    assert two.takes_outside
    assert not two(image, Layer(inside=((0.5, 0.5),), outside=((0.5, 0.25),)), "object")[10, 30]
    for name, problem in (("floats", "expected bool"), ("broken", "out of memory")):
        with pytest.raises(SightlineError, match=problem):
            Segmenting(f"{__name__}:{name}")(image, Layer(inside=((0.5, 0.5),)), "object")
    with pytest.raises(SightlineError, match="expected 'grabcut' or"):
        Segmenting("sam")
