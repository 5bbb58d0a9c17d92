"""What a forward pass costs where glibc keeps the memory of freed tensors, as every command of sightline asks it to.

OMP_NUM_THREADS=1 python benchmarks/allocator.py [--rounds 5]
"""

import argparse
import statistics
import subprocess
import sys

import harness

WORK = """
import sys, time
import torch, torchvision
from sightline._core.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory(), "glibc is not the allocator here"
name, images = sys.argv[2], torch.rand(16, 3, 224, 224)
model = getattr(torchvision.models, name)().eval()
with torch.inference_mode():
    model(images)
    start = time.perf_counter()
    for _ in range(3):
        model(images)
print((time.perf_counter() - start) / 3)
"""
MODELS = ("resnet18", "resnet50", "efficientnet_b0", "convnext_tiny")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found = {}
    for name in MODELS:
        pairs = [(seconds("left", name), seconds("kept", name)) for _ in range(rounds)]
        left, kept = (statistics.median(each) for each in zip(*pairs))
        ratio = statistics.median(a / b for a, b in pairs)
        found[name] = {"left": round(left, 2), "kept": round(kept, 2), "times faster": round(ratio, 2)}
    harness.write("allocator", {"rounds": rounds, "images": 16, "forward passes": found})


def seconds(how: str, name: str) -> float:
    done = subprocess.run([sys.executable, "-c", WORK, how, name], check=True, capture_output=True, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
