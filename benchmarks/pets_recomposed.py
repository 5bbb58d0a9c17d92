"""SO-Loss on photographs whose background gives the class away: the five arms of Table I, and a baseline without maps.

    python benchmarks/pets_recomposed.py select [--shard 0/2]    # candidates on validation alone
    python benchmarks/pets_recomposed.py study [--shard 0/2]     # every arm, three seeds, on the test splits
    python benchmarks/pets_recomposed.py table                   # what has finished, as JSON and Markdown

SIGHTLINE_DATA names the folder with `pets/`, `imagenet1k-sample/` and `weights/`. Runs are kept in `runs/pets`, and one
that was killed goes on; shards are for processes that work beside each other. Selection trains on four of the six scenes of a
breed and validates on held-out photographs on the two others; the study trains on all six.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

import torch

import harness
import sightline as sl
from sightline.evaluation import evaluate

RUNS = Path("runs/pets")
SEEDS = {"select": (0, 1), "study": (0, 1, 2)}


def so_loss(**options: object) -> str:
    return "guide=" + json.dumps({"name": "segment_overlap", "explainer": "gradcam", **options})


ARMS = {
    "cross-entropy": ["guide=null"],
    "SO-Loss": [so_loss(beta=0.0, blur=0)],
    "CE + SO-Loss": [so_loss(beta=0.5, blur=0)],
    "SO-Loss-Blur": [so_loss(beta=0.0)],
    "CE + SO-Loss-Blur": [so_loss(beta=0.5)],
    "CE + SO-Loss-Blur, beta 0.02": [so_loss(beta=0.02)],
    "the same, layer blocks.5": [so_loss(beta=0.02), "model.layer=blocks.5"],
    "random backgrounds": ["guide=random_background"],
}
ONE_SEED = ("the same, layer blocks.5",)  # of no help with the first seed
CANDIDATES = {
    "beta 0.5": [so_loss(beta=0.5)],
    "beta 0.1": [so_loss(beta=0.1)],
    "beta 0.02": [so_loss(beta=0.02)],
    "beta 0.02, layer blocks.5": [so_loss(beta=0.02), "model.layer=blocks.5"],
    "beta 0, no blur": [so_loss(beta=0.0, blur=0)],
    "beta 0.02, 4 views": [so_loss(beta=0.02, views=4)],
}


def folder(kind: str, arm: str, seed: int) -> Path:
    return RUNS / kind / f"{arm.replace(', ', '-').replace(' ', '_')}-seed{seed}"


def jobs(kind: str) -> list[tuple[str, int]]:
    arms = ARMS if kind == "study" else CANDIDATES
    return [(arm, seed) for seed in SEEDS[kind] for arm in arms if seed == 0 or arm not in ONE_SEED]


def run(kind: str, arm: str, seed: int) -> None:
    overrides = [f"name={folder(kind, arm, seed).name.rpartition('-seed')[0]}", f"seed={seed}"]
    overrides += (ARMS if kind == "study" else CANDIDATES)[arm]
    if kind == "select":
        overrides += ["data.val_scenes=2", "val_interval=15"]
        overrides += ["evaluation.splits=[val, val_shifted]", "evaluation.explainers=[gradcam]"]
        overrides += ["evaluation.metrics=[accuracy, worst_group_accuracy, miou, energy_in_mask]"]
    path = folder(kind, arm, seed)
    last = "test_iid" if kind == "study" else "val_shifted"
    if (path / "evaluation" / last / "summary.json").exists():
        return
    evaluate(sl.train("pets-recomposed", overrides, output=path, resume=True))


def figures(kind: str) -> dict[str, dict[str, list[float]]]:
    """For every arm, `split/metric@explainer` -> its values over the seeds that have finished."""
    found: dict[str, dict[str, list[float]]] = {}
    for arm, seed in jobs(kind):
        for summary in sorted(folder(kind, arm, seed).glob("evaluation/*/summary.json")):
            report = json.loads(summary.read_text())
            for each in report["results"]:
                name = each["metric"] if each["explainer"] is None else f"{each['metric']}@{each['explainer']}"
                found.setdefault(arm, {}).setdefault(f"{report['split']}/{name}", []).append(each["value"])
    return found


def cell(values: list[float] | None) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table(kind: str) -> str:
    columns = {
        "select": [
            "val/accuracy",
            "val_shifted/accuracy",
            "val_shifted/miou@gradcam",
            "val_shifted/energy_in_mask@gradcam",
        ],
        "study": [
            "test_shifted/accuracy",
            "test_shifted/worst_group_accuracy",
            "test_iid/accuracy",
            "test_shifted/miou@gradcam",
            "test_shifted/energy_in_mask@gradcam",
            "test_shifted/miou@eigencam",
            "test_shifted/energy_in_mask@eigencam",
        ],
    }[kind]
    rows = [["arm", "seeds", *columns]]
    for arm, values in figures(kind).items():
        rows.append([arm, str(len(values[columns[0]])), *(cell(values.get(column)) for column in columns)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def losses(kind: str) -> dict[str, list[float]]:
    """The last epoch's training loss of every arm and seed: did it converge?"""
    last: dict[str, list[float]] = {}
    for arm, seed in jobs(kind):
        path = folder(kind, arm, seed) / "metrics.csv"
        if path.exists():
            with path.open() as file:
                last.setdefault(arm, []).append(float(list(csv.DictReader(file))[-1]["train/task"]))
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["select", "study", "table"])
    parser.add_argument("--shard", default="0/1", help="K/N: do every N-th job, from the K-th on")
    args = parser.parse_args()
    if args.what == "table":
        for kind in ("select", "study"):
            if figures(kind):
                print(f"\n{kind}\n\n{table(kind)}\n")
        result = {
            "command": "python benchmarks/pets_recomposed.py study; ... table",
            "n": "90 training and 298 test photographs; seeds 0 1 2 (study), 0 1 (select, 180 validation photographs)",
            **{kind: {"figures": figures(kind), "train/task": losses(kind)} for kind in ("select", "study")},
        }
        harness.write("pets-recomposed", result, packages=("timm", "lightning-fabric"))
        return
    shard, shards = map(int, args.shard.split("/"))
    if shards > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // shards))
    for arm, seed in jobs(args.what)[shard::shards]:
        run(args.what, arm, seed)


if __name__ == "__main__":
    main()
