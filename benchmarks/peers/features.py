"""What the frozen ImageNet network gives for the images of a set: computed once, and the same for every method.

For each seed, every training image is drawn `DRAWS` times with augmentation. Validation and test images are as they are.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import efficientnet
from images import Plain, read
from protocol import DRAWS, LARGE, ROOT, SEEDS, SETS


@dataclass(frozen=True)
class Rows(Dataset[tuple[Tensor, int]]):
    """Pooled features (N, F) with labels and contexts (N,): a data set of (features, label).

    `order` (N,) says which image of the split each row is of.
    """

    pooled: Tensor
    targets: Tensor
    contexts: Tensor
    order: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pooled[index], int(self.targets[index])

    @property
    def labels(self) -> list[int]:
        """The labels as a list."""
        return [int(label) for label in self.targets]

    @property
    def groups(self) -> Tensor:
        """The number (N,) of each row's pair of label and context."""
        return self.targets * 3 + self.contexts

    def take(self, rows: Tensor) -> "Rows":
        """Return some of the rows."""
        return Rows(self.pooled[rows], self.targets[rows], self.contexts[rows], self.order[rows])

    def joined(self, other: "Rows") -> "Rows":
        """Return these rows and others."""
        pairs = ((getattr(self, key), getattr(other, key)) for key in ("pooled", "targets", "contexts", "order"))
        return Rows(*(torch.cat(pair) for pair in pairs))

    def partition(self) -> dict[tuple[int, int], list[int]]:
        """Return the places of the rows of each (label, context)."""
        pairs = list(zip(self.targets.tolist(), self.contexts.tolist()))
        return {pair: [n for n, each in enumerate(pairs) if each == pair] for pair in sorted(set(pairs))}


def file_of(name: str) -> Path:
    """Return the file with the features of a set."""
    return ROOT / "features" / f"{name}.safetensors"


def rows_of(name: str, split: str) -> Rows:
    """Return the pooled features of a split: "train0" (by seed), "plain" (training images as they are), "val_own", ..."""
    with safe_open(file_of(name), "pt") as file:
        return Rows(*(file.get_tensor(f"{split}/{key}") for key in ("pooled", "labels", "contexts", "order")))


def maps_of(name: str, split: str) -> Tensor:
    """Return the last feature maps (N, F, h, w) of a test split or of the training draws of a seed."""
    with safe_open(file_of(name), "pt") as file:
        return file.get_tensor(f"{split}/maps")


def boxes_of(name: str, split: str) -> Tensor:
    """Return the box (left, top, right, bottom) of the object in each training draw (N, 4), ends exclusive; 0 = none."""
    with safe_open(file_of(name), "pt") as file:
        return file.get_tensor(f"{split}/boxes")


def last_maps(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return what the network gives before its pooling."""
    for child in ("conv_stem", "bn1", "blocks", "conv_head", "bn2"):
        inputs = network.get_submodule(child)(inputs)
    return inputs


def box_of(mask: Tensor) -> tuple[int, int, int, int] | None:
    """Return the box (left, top, right, bottom) of a mask (H, W), ends exclusive; None = the mask is empty."""
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else None


@torch.no_grad()
def compute(name: str) -> dict[str, Tensor]:
    """Compute all features of a set."""
    network = efficientnet.pretrained(0).eval()
    folder, found = ROOT / "sets" / name, {}
    for split in ("plain", "val_own", "val_other", "test_own", "test_other"):
        images = read(folder, "train" if split == "plain" else split)
        maps = torch.cat([last_maps(network, some) for some in Plain(images, LARGE).inputs.split(30)])
        found |= {f"{split}/labels": images.labels, f"{split}/contexts": images.contexts}
        found |= {f"{split}/pooled": maps.mean((2, 3)), f"{split}/order": torch.arange(len(images))}
        if split == "test_other":
            found[f"{split}/maps"] = maps.half().contiguous()
    images = read(folder, "train")
    data = efficientnet.augmented(images, name, LARGE, masks=True)
    for seed in SEEDS:
        torch.manual_seed(seed)
        parts = [batch for _ in range(DRAWS) for batch in DataLoader(data, 30)]
        maps = torch.cat([last_maps(network, inputs) for inputs, _, _ in parts])
        boxes = torch.tensor([box_of(mask) or (0, 0, 0, 0) for _, _, masks in parts for mask in masks])
        found |= {f"train{seed}/pooled": maps.mean((2, 3)), f"train{seed}/maps": maps.half().contiguous()}
        found |= {f"train{seed}/boxes": boxes, f"train{seed}/order": torch.arange(len(images)).repeat(DRAWS)}
        found |= {
            f"train{seed}/labels": images.labels.repeat(DRAWS),
            f"train{seed}/contexts": images.contexts.repeat(DRAWS),
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or SETS:
        if not file_of(name).exists():
            file_of(name).parent.mkdir(exist_ok=True)
            start = time.process_time()
            found = compute(name)
            seconds = torch.tensor(time.process_time() - start)
            save_file(
                {key: value.contiguous().clone() for key, value in found.items()} | {"seconds": seconds}, file_of(name)
            )
            print(name, f"features in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
