"""What every benchmark shares: interleaved timing, and a result that says where it comes from."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleave(cases: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of every case in every round, A B C A B C ..., after one round that is not counted.

    Interleaving lets a machine whose speed drifts drift for all of them; compare by `ratio`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for each in range(rounds + 1):
        for name, run in cases.items():
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            if each:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def ratio(seconds: Mapping[str, list[float]], name: str, to: str) -> float:
    """The median over rounds of one case's time by another's in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to]))


def write(name: str, result: Mapping[str, Any], packages: tuple[str, ...] = (), device: str = "cpu") -> None:
    """Print a result, and write it with versions, hardware and date to `benchmarks/results/<name>.json`."""
    versions = {"python": platform.python_version()}
    for package in ("sightline-xai", "torch", "torchvision", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else None
    report = {
        "date": date.today().isoformat(),
        "hardware": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": versions,
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(report, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
