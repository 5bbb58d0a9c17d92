"""Do weights by explanation consistency find the images that a model judges by their background?

    sightline reproduce pets reweighting
    python benchmarks/weights_and_maps.py runs/reproduce/pets/reweighting

Of every finished run of a study whose guides keep weights: Spearman's correlation, over the training images, of the final
weights with two things of the finished model: the energy of Grad-CAM on the object, and the probability of the label. A
method that raises images whose map lies on the background has the first below 0. Runs with equal weights have none.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import spearmanr

from sightline.evaluation import evaluate_model
from sightline.experiments.outputs.unbiased_share import stored_weights
from sightline.models import load_model
from sightline.runs import Run, read_recipe
from sightline.training.build import build


def correlations(run: Run) -> tuple[float, float] | None:
    _, weights = stored_weights(run.resume_point)
    if len(weights) == 0 or weights.unique().numel() == 1:
        return None
    parts = build(read_recipe(run.path / "recipe.yaml"))
    recipe = parts.recipe
    model, spec = load_model(recipe.model.name, str(run.last), len(parts.splits.classes), recipe.image_size)
    found = evaluate_model(
        model, parts.plain_loader("train", 0, 1), ["gradcam"], ["energy_in_mask", "accuracy"],
        input_spec=spec, layer=recipe.model.layer, target="label",
    )  # fmt: skip
    order = weights[found.samples["index"]]
    energy, probability = found.samples["energy_in_mask@gradcam"], found.samples["probability"]
    right = probability.where(found.samples["correct"].bool(), 1 - probability)  # of three classes, about the label's
    return tuple(float(spearmanr(order, each, nan_policy="omit").statistic) for each in (energy, right))  # type: ignore[return-value]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    folders = sorted(path for path in (parser.parse_args().study / "runs").iterdir() if path.is_dir())
    arms = defaultdict(list)
    for folder in folders:
        if (found := correlations(Run(folder))) is not None:
            arms[folder.name.rpartition("-seed")[0]].append(found)
    print("| arm | seeds | with energy on the object | with the label's probability |\n| --- | --- | --- | --- |")
    for arm, values in arms.items():
        cells = [f"{mean(v):+.2f}" + (f" ± {stdev(v):.2f}" if len(v) > 1 else "") for v in zip(*values)]
        print(f"| {arm} | {len(values)} | {' | '.join(cells)} |")
