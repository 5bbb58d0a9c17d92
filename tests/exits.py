"""Runs a command on two processes, again and again, and says how each process ended.

python exits.py RUNS ARGUMENTS... : `{}` in an argument is the number of the run.

The processes are forked from one that has imported all they need, and end as any Python does: through its finalizers. The last
line that is printed is a JSON list of the exit codes; a negative one is the signal that ended a process.
"""

import json
import os
import socket
import sys

import lightning_fabric  # noqa: F401
import torch

import sightline.explainers.maps
import sightline.training.loop  # noqa: F401
import tiny  # noqa: F401
from sightline.cli import main

WORLD = 2


def begin(rank: int, port: int, arguments: list[str]) -> int:
    """Return the process of a rank; in that process, run the command."""
    if process := os.fork():
        return process
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "LOCAL_WORLD_SIZE": str(WORLD),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "exits",
    }
    sys.argv = ["sightline", *arguments, "--devices", str(WORLD)]
    try:
        main()
    finally:
        assert not torch.distributed.is_initialized()
    raise SystemExit(0)


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    codes = []
    for number in range(int(sys.argv[1])):
        port = free_port()
        both = [begin(rank, port, [each.format(number) for each in sys.argv[2:]]) for rank in range(WORLD)]
        codes.append([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in both])
    print(json.dumps(codes))
