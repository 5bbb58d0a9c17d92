"""Datalab's check for correlations of image properties with the label, on the test images of the made sets."""

import csv
import json

from cleanlab import Datalab

from datasets import Dataset, Image
from protocol import ROOT


def main() -> None:
    rows = []
    for table in sorted((ROOT / "made").glob("*/test.csv")):
        with table.open(newline="", encoding="utf-8") as file:
            listed = list(csv.DictReader(file))
        files = [str(table.parent / row["path"]) for row in listed]
        data = Dataset.from_dict({"image": files, "label": [row["label"] for row in listed]})
        lab = Datalab(data.cast_column("image", Image()), label_name="label", image_key="image", verbosity=0)
        lab.find_issues()
        told = lab.get_info("spurious_correlations")
        scores = {
            row.property.removesuffix("_score"): round(row.score, 3) for row in told["correlations_df"].itertuples()
        }
        named = sorted(key for key, score in scores.items() if score < told["threshold"])
        kind, _, seed = table.parent.name.rpartition("-")
        rows.append({"set": kind.replace("-", " "), "seed": int(seed), "named": named, "scores": scores})
        print(rows[-1], flush=True)
    (ROOT / "made" / "datalab.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
