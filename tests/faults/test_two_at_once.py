"""Every command that writes is given twice at the same moment: one refuses and names the other, or both end with one result."""

import re

import pytest
from children import finish, run, start
from verbs import VERBS, left_over

SHARED = {"evaluate a run", "explain an image", "diagnose", "sweep", "acquire next", "filters", "compare", "leaderboard",
          "rate to a batch"}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", VERBS)
def test_two_equal_commands_at_once_leave_one_result(name, work, undisturbed):
    verb = VERBS[name]
    expected, *_ = undisturbed(name)
    folder = work()
    both = [finish(child) for child in [start(folder, *verb.arguments) for _ in range(2)]]
    codes = sorted(done.code for done in both)
    for done in both:
        assert "Traceback" not in done.said, done.said
        if done.code != 0:
            in_use = re.search(
                r"error: \S+ is in use by process \d+ on \S+ since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; ", done.said
            )
            assert in_use or (verb.refused and verb.refused in done.said), done.said
    assert codes in ([0, 0], [0, 2]), [done.said for done in both]
    if name in SHARED:
        assert codes == [0, 0], [done.said for done in both]
    assert verb.result(folder) == expected
    assert not left_over(folder)
    done = run(folder, *verb.arguments)
    assert done.code == 0 or (verb.refused and verb.refused in done.said), done.said
    assert verb.result(folder) == expected
