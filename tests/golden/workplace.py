"""Where studies run, for the test and for the recorder alike: small data, one thread, and everything seeded."""

import os
import platform
import random
import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from unittest.mock import patch

import adapter
import cv2
import numpy as np
import torch
from folders import Values, read_folder
from overrides import TIMED_PARTS, overrides_of
from small_data import make_all
from torchvision.datasets import STL10

DATA = Path(__file__).parent / "data"


def golden_file(name: str) -> Path:
    """Where a study's results are recorded."""
    return DATA / f"{name}.json"


def machine() -> dict[str, str]:
    """What numbers depend on beside the code."""
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"torch": str(torch.__version__), "machine": f"{kind}, GPU" if torch.cuda.is_available() else kind}


@contextmanager
def workplace(root: Path) -> Iterator[None]:
    """Go to a folder with the small data sets, as the recipes name them, and with no other data in reach."""
    make_all(root)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    without = {key: value for key, value in os.environ.items() if key != "SIGHTLINE_DATA"}
    unchecked = patch.object(STL10, "_check_integrity", lambda self: True)  # torchvision knows the real files alone
    try:
        with chdir(root), patch.dict(os.environ, without, clear=True), unchecked:
            yield
    finally:
        torch.set_num_threads(threads)


def results_of(name: str) -> Values:
    """Run a study, `paper/item`, in the workplace, and read what it has written."""
    folder = _run(name)
    found = read_folder(folder, name in TIMED_PARTS)
    shutil.rmtree(folder)
    return found


def _run(name: str) -> Path:
    """The folder of results where other studies look for it; a finished study is not run again."""
    for seed in (torch.manual_seed, np.random.seed, random.seed, cv2.setRNGSeed):
        seed(0)
    paper, item = name.split("/")
    return adapter.run_study(paper, item, overrides_of(name), Path("runs", "reproduce", paper, item))
