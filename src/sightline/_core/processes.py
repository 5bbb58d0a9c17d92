"""Which of several processes this is."""

import os


def is_first_process() -> bool:
    """Return whether this process is the first one, by the variables that torchrun, SLURM and Fabric set."""
    rank = next((os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), "0")
    return rank == "0"
