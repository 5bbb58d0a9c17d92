"""How long imports and the command's help take, in processes of their own, compared with `import torch`.

OMP_NUM_THREADS=1 python benchmarks/import_time.py [--rounds 5]
"""

import argparse
import statistics
import subprocess
import sys

import harness

CASES = {
    "import torch": "import torch",
    "import sightline": "import torch, sightline",
    "import sightline.explainers": "import torch, sightline.explainers",
    "import sightline.guides": "import torch, sightline.guides",
    "import sightline.metrics": "import torch, sightline.metrics",
    "sightline --help": "import sys; sys.argv = ['sightline', '--help']; from sightline.cli import main; main()",
}
REFERENCE = "import torch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds = harness.interleave({name: lambda code=code: run(code) for name, code in CASES.items()}, rounds)
    found = {
        name: {
            "seconds": round(statistics.median(seconds[name]), 2),
            "by import torch": round(harness.ratio(seconds, name, REFERENCE), 2),
        }
        for name in CASES
    }
    harness.write("import-time", {"rounds": rounds, "imports": found})


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
