"""Evaluates all runs by sightline, and writes benchmarks/results/peers-cpu.json and the tables for the page."""

import json
import statistics
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

import efficientnet
import harness
import sightline as sl
from features import file_of, maps_of, rows_of
from images import read
from protocol import (
    BATCH,
    CLASSES,
    DRAWS,
    EPOCHS,
    HEAD_BATCH,
    HEAD_EPOCHS,
    METHODS,
    PLACE,
    ROOT,
    SEEDS,
    SETS,
    TINY,
    folder_of,
    run_folder,
)
from sightline.data.loader import create_loader
from sightline.data.registry import DATASETS
from sightline.evaluation.measuring import evaluate_model
from sightline.explainers import resize_maps
from sightline.metrics.localization import energy_in_mask
from sightline.runs import load_run

FIGURES = ("other", "worst group", "own", "energy")
PEERS = {
    "bnnr": ("bnnr", "grad-cam"),
    "spuco": ("spuco", "scikit-learn"),
    "guidance": ("captum",),
    "cleanlab": ("cleanlab", "cleanvision"),
    "peal": ("peal-xai",),
}
METRICS = ("accuracy", "worst_group_accuracy", "energy_in_mask")


@cache
def test_maps(name: str) -> tuple[Tensor, Tensor]:
    """Return the last feature maps (N, F, h, w) of the test images in another context, and their masks (N, H, W)."""
    return maps_of(name, "test_other").float(), read(ROOT / "sets" / name, "test_other").masks


def of_head(layer: nn.Module, name: str) -> dict[str, float]:
    """Return the figures of a last layer on the frozen network."""
    own, other = (rows_of(name, f"test_{which}") for which in ("own", "other"))
    right = {split: layer(rows.pooled).argmax(1) == rows.targets for split, rows in (("own", own), ("other", other))}
    groups = [right["other"][other.groups == group].double().mean().item() for group in other.groups.unique()]
    maps, masks = test_maps(name)
    energy = energy_in_mask(resize_maps(gradcam(layer, maps), (masks.shape[1], masks.shape[2])), masks)
    means = {split: values.double().mean().item() for split, values in right.items()}
    return means | {"worst group": min(groups), "energy": energy.nanmean().item()}


def gradcam(layer: nn.Module, maps: Tensor) -> Tensor:
    """Return the Grad-CAM (N, h, w) for the predicted class of a layer on the mean of each of the last feature maps."""
    classifier = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)
    return torch.cat([sl.explain(classifier, some, "gradcam", layer="0") for some in maps.split(100)])


def of_network(network: nn.Module, name: str, size: int) -> dict[str, float]:
    """Return the figures of a whole network."""
    path = str((ROOT / "sets" / name / "training.csv").resolve())
    data = DATASETS.create_source({"name": "csv", "path": path, "classes": list(CLASSES), "val": 0})
    spec = sl.InputSpec((0.5,) * 3, (0.5,) * 3, (size, size))
    found = {}
    for which in ("own", "other"):
        loader = create_loader(data[f"test_{which}"], size=size, batch_size=30, train=False)
        explainers = ("gradcam",) if which == "other" else ()
        result = evaluate_model(network, loader, explainers, METRICS if explainers else ("accuracy",), input_spec=spec)
        found[which] = {each.column: each.value for each in result.results}
    other = found["other"]
    return {
        "own": found["own"]["accuracy"],
        "other": other["accuracy"],
        "worst group": other["worst_group_accuracy"],
        "energy": other["energy_in_mask@gradcam"],
    }


def measured(name: str, key: str, seed: int, trial: int) -> dict[str, Any] | None:
    """Return the figures of a run; None = there is none yet. They are kept next to the run."""
    folder, method = run_folder(name, key, seed, trial), METHODS[key]
    if not (folder / "figures.json").exists():
        return None
    kept = folder / "measured.json"
    if not kept.exists():
        if (folder / "run").exists():
            found = of_network(load_run(folder / "run", "cpu").model, name, method.size)
        elif method.frozen:
            found = of_head(efficientnet.restored_head(folder / "network.safetensors"), name)
        else:
            found = of_network(efficientnet.restored(folder / "network.safetensors"), name, method.size)
        kept.write_text(json.dumps(found, indent=1))
    return {"seed": seed, **json.loads(kept.read_text()), **json.loads((folder / "figures.json").read_text())}


def collect() -> list[dict[str, Any]]:
    """Return a row for each method and set that has a run with the chosen options."""
    rows = []
    for name in SETS:
        for key, method in METHODS.items():
            chosen = folder_of(name, key) / "chosen.json"
            if name not in method.sets or not chosen.exists():
                continue
            told = json.loads(chosen.read_text())
            runs = [found for seed in SEEDS if (found := measured(name, key, seed, told["trial"]))]
            if runs:
                shown = {"set": name, "frozen": method.frozen, "method": method.label, "uses": method.uses}
                rows.append(shown | {"trials": method.trials, "validation": told["validation"], "runs": runs})
    return rows


def table(rows: list[dict[str, Any]], name: str, frozen: bool) -> str:
    """Return the table of a set, one row a method: means and standard deviations over the seeds; not all = it says which."""
    head = ["method", "annotation in training", *FIGURES, "seconds"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for row in rows:
        if (row["set"], row["frozen"]) == (name, frozen):
            values = {key: [run[key] for run in row["runs"]] for key in (*FIGURES, "seconds")}
            told = [_shown(values[key]) for key in FIGURES]
            seeds = [run["seed"] for run in row["runs"]]
            label = (
                row["method"] if len(seeds) == len(SEEDS) else f"{row['method']} (seed {', '.join(map(str, seeds))})"
            )
            lines.append(f"| {label} | {row['uses']} | {' | '.join(told)} | {statistics.mean(values['seconds']):.1f} |")
    return "\n".join(lines)


def _shown(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def peer_versions() -> dict[str, str]:
    """Return the versions of the peers, as their environments and sources have them."""
    found = {}
    for environment, packages in PEERS.items():
        python = PLACE / "environments" / environment / "bin" / "python"
        for package in packages if python.exists() else ():
            code = f"from importlib.metadata import version; print(version({package!r}))"
            text = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
            found[f"{package} ({environment})"] = text.strip()
    for source in sorted((PLACE / "sources").glob("*")):
        command = ["git", "-C", str(source), "rev-parse", "HEAD"]
        found[source.name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return found


def feature_seconds(name: str) -> float | None:
    """Return the processor seconds that the features of a set took."""
    if not Path(file_of(name)).exists():
        return None
    with safe_open(file_of(name), "pt") as file:
        return round(float(file.get_tensor("seconds")), 1)


def named_shortcuts() -> dict[str, Any]:
    """Return what our search and Datalab's check named on the made sets, where they have run."""
    files = {each: ROOT / "made" / f"{each}.json" for each in ("sightline-data", "sightline-network", "datalab")}
    return {each: json.loads(file.read_text()) for each, file in files.items() if file.exists()}


@torch.no_grad()
def main() -> None:
    rows = collect()
    told = {
        "command": "bash benchmarks/peers/run.sh",
        "peers": peer_versions(),
        "budget": {
            "whole network": {"epochs": EPOCHS, "batch": BATCH},
            "last layer": {"draws": DRAWS, "epochs over all draws": HEAD_EPOCHS, "batch": HEAD_BATCH},
        },
        "processor seconds of the features": {name: feature_seconds(name) for name in SETS},
        "rows": rows,
        "shortcuts named": named_shortcuts(),
    }
    if not TINY:
        harness.write("peers-cpu", told, packages=("timm",))
    for name in SETS:
        for frozen in (True, False):
            print(f"\n{name}, {'last layer on the frozen network' if frozen else 'whole network'}\n")
            print(table(rows, name, frozen))


if __name__ == "__main__":
    main()
