"""Which of several processes this is."""

import os


def is_first_process() -> bool:
    """Return whether this process is the first one, by the variables that torchrun, SLURM and Fabric set."""
    rank = next((rank for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if (rank := os.environ.get(name))), "0")
    return rank == "0"
