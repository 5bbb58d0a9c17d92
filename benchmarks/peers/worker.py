"""Runs the trials and seeds of the methods of one environment on all sets: worker.py ENVIRONMENT [METHOD ...].

What is done already is kept, so that a run that was ended goes on. Trials run with seed 0; the one with the best accuracy on
the validation images, half of which are in the context of another class, is then run with the other seeds.
"""

import importlib
import json
import os
import shutil
import sys
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import efficientnet
from images import Plain
from protocol import METHODS, SEEDS, SETS, Method, folder_of, run_folder
from task import Task


def run(method: Method, key: str, name: str, seed: int, trial: int) -> float:
    """Train once, and return the accuracy on validation."""
    folder = run_folder(name, key, seed, trial)
    if (folder / "figures.json").exists():
        return float(json.loads((folder / "figures.json").read_text())["validation"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = {**method.fixed, **method.trials[trial]}
    task = Task(name, seed, method.frozen, folder)
    train = importlib.import_module(method.module).train
    for each in (task.data, task.plain, task.held_out_rows if method.frozen else task.held_out):
        assert len(each)  # read before the clock starts
    start = processor_seconds()
    network = train(task, **options)
    seconds = processor_seconds() - start
    if not (folder / "run").exists():  # sightline's runs are kept whole
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "network.safetensors")
    validation = efficientnet.accuracy(network, *_held_out(network, task))
    figures = {"options": options, "seconds": seconds, "validation": validation}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1))
    print(
        name, key, f"seed {seed}", method.trials[trial], f"{seconds:.1f} s", f"validation {validation:.3f}", flush=True
    )
    return validation


def _held_out(network: nn.Module, task: Task) -> tuple[Tensor, Tensor]:
    """Return the inputs and labels of the validation images: features for a last layer, else images."""
    if task.frozen and not (task.folder / "run").exists():
        return task.held_out_rows.pooled, task.held_out_rows.targets
    return Plain(task.held_out, task.size).inputs, task.held_out.labels


def processor_seconds() -> float:
    """Return the time that this process and its ended children have had of a processor, whatever else the machine did."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system


def run_all(method: Method, key: str, name: str) -> None:
    """Try the options, and run the best ones with every seed."""
    found = [run(method, key, name, SEEDS[0], trial) for trial in range(len(method.trials))]
    best = found.index(max(found))
    told: dict[str, Any] = {"trial": best, "options": {**method.fixed, **method.trials[best]}, "validation": found}
    (folder_of(name, key) / "chosen.json").write_text(json.dumps(told, indent=1))
    for seed in SEEDS[1:]:
        run(method, key, name, seed, best)


def main() -> None:
    environment, *only = sys.argv[1:]
    for name in SETS:
        for key, method in METHODS.items():
            if method.environment == environment and name in method.sets and (key in only or not only):
                run_all(method, key, name)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
