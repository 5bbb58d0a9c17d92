import json
import random

import pytest

from sightline._core.progress_log import ProgressLog, read_progress
from sightline.errors import SightlineError


def test_entries_are_found_by_the_image_and_not_by_the_line(tmp_path):
    path = tmp_path / "journal"
    log = ProgressLog(path, {"of": "data"})
    log.add({3: {"x": 30}, 1: {"x": 10}})
    log.add({2: {"x": 20}})
    assert read_progress(path) == ({"of": "data"}, {1: {"x": 10}, 2: {"x": 20}, 3: {"x": 30}})
    first, *lines = path.read_text().splitlines()
    random.Random(0).shuffle(lines)
    path.write_text("\n".join([first, *lines, lines[0]]) + "\n")  # in another order, and one twice
    assert ProgressLog(path, {"of": "data"}).entries == {1: {"x": 10}, 2: {"x": 20}, 3: {"x": 30}}


def test_a_line_that_was_cut_at_any_byte_is_thrown_away(tmp_path):
    path = tmp_path / "journal"
    ProgressLog(path, {"of": "data"}).add({0: {"x": "ü"}, 1: {"x": 1}})
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole, start=1) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        log = ProgressLog(path, {"of": "data"})
        assert list(log.entries) == list(range(max(0, sum(end <= cut for end in ends) - 1)))
        log.add({index: {"x": 0} for index in range(2) if index not in log.entries})
        assert list(read_progress(path)[1]) == [0, 1]


@pytest.mark.parametrize("line", ["{", "[1]", '{"x": 1}', '{"index": "a"}', "\xff", "3"])
def test_a_damaged_line_is_named_with_what_to_do(tmp_path, line):
    path = tmp_path / "journal"
    ProgressLog(path, {"of": "data"}).add({0: {"x": 1}})
    path.write_bytes(path.read_bytes() + line.encode("latin-1") + b"\n" + json.dumps({"index": 1}).encode() + b"\n")
    with pytest.raises(SightlineError, match=f"{path}, line 3: .*; remove the file to start from scratch"):
        ProgressLog(path, {"of": "data"})
