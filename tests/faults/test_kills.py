"""Every command that writes is killed, again and again, and then goes on: the result is that of a command never killed."""

import os
import random
import time

import pytest
from children import Fault, run
from verbs import VERBS, left_over

KILLS = int(os.environ.get("SIGHTLINE_KILLS", "20"))  # of each command
IN_A_ROW = 5  # before the command may end
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", VERBS)
def test_a_killed_command_resumes_to_the_same_result(name, work, undisturbed):
    """Half of the kills come before a file operation, half at a moment, both anywhere in the time that the command takes."""
    verb, draw = VERBS[name], random.Random(name)
    expected, operations, seconds = undisturbed(name)
    kills = 0
    while kills < KILLS:
        folder = work()
        for _ in range(IN_A_ROW):
            moment, operation = draw.uniform(0.01, seconds), draw.randrange(operations)
            fault = Fault(kill_at=operation) if kills % 2 == 0 else Fault(kill_after=moment)
            began = time.perf_counter()
            done = run(folder, *verb.arguments, fault=fault)
            if done.code == 0 or (verb.refused and verb.refused in done.said):
                seconds = min(seconds, time.perf_counter() - began)  # the first one may have met a busier machine
                break
            assert done.code in (99, -14), f"{fault}: {done.said}"
            kills += 1
        done = run(folder, *verb.arguments)
        assert done.code == 0 or (verb.refused and verb.refused in done.said), f"after {fault}: {done.said}"
        assert verb.result(folder) == expected, fault
        assert done.code != 0 or not left_over(folder), fault  # a refused export leaves what it finds
    print(f"{name}: {kills} kills")
