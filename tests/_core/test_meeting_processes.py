"""Where the first process keeps the store, the others meet it again when they come to a store that is about to end."""

import os
import socket
import subprocess
import sys

SCRIPT = """
import sys, time
from datetime import timedelta
from torch.distributed import rendezvous
from sightline._core.shared_work import several_processes

rank, pause = int(sys.argv[1]), float(sys.argv[2])
before = [next(rendezvous("env://", rank, 2, timeout=timedelta(seconds=60)))]
if rank == 0:
    time.sleep(pause)  # the other process is at the next meeting already
del before[:]
for number in range(2):
    with several_processes() as group:
        print(group.map(lambda item: item * 10 + number, [1, 2, 3]))
"""


def test_process_that_is_early_at_the_next_meeting_waits_for_the_first_one() -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    of_all = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), "2"],
            env={**of_all, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in both:
            output, errors = process.communicate(timeout=120)
            assert output.splitlines() == ["[10, 20, 30]", "[11, 21, 31]"], errors
            assert process.returncode == 0
    finally:
        for process in both:
            process.kill()
