"""BNNR's search for augmentations: half of the epochs train a baseline, the other half each candidate from there.

What is not given has BNNR's own default: a metric that chooses, and candidates that are given up early. Its default for maps is
Opti-CAM, which passes an image through the network 100 times. Grad-CAM, another option of BNNR, passes it once.
"""

import math

import torch
from bnnr import BNNRConfig, BNNRTrainer, IndexedDataset, Reporter, SimpleTorchAdapter, get_preset
from torch import nn
from torch.utils.data import DataLoader

import efficientnet
from images import Plain
from protocol import BATCH, EPOCHS
from task import Task


def train(task: Task, preset: str, saliency: str = "opticam") -> nn.Module:
    """Search among saliency-guided dropout (ICD, AICD) and the augmentations of a preset.

    The dropouts take their maps from the cache that the search fills once by the method `saliency`; reports use it too.
    """
    network = efficientnet.pretrained(task.seed)
    layers = [network.conv_head]
    adapter = SimpleTorchAdapter(
        network, nn.CrossEntropyLoss(), torch.optim.Adam(network.parameters(), task.rate), layers, "cpu", ["accuracy"]
    )
    config = BNNRConfig(
        m_epochs=math.ceil(EPOCHS / 2), max_iterations=1, seed=task.seed, device="cpu", metrics=["accuracy", "loss"],
        checkpoint_dir=task.folder / "checkpoints", report_dir=task.folder / "reports", event_log_enabled=False,
        verbose=False, denormalization_mean=[0.5] * 3, denormalization_std=[0.5] * 3,
        xai_cache_dir=task.folder / "maps", xai_method=saliency,
    )  # fmt: skip
    dropouts = get_preset("icd", random_state=task.seed, model=network, target_layers=layers)
    for each in dropouts:
        each.explainer = saliency  # of images that the cache lacks
    candidates = [*dropouts, *get_preset(preset, random_state=task.seed)]
    found = BNNRTrainer(
        adapter,
        DataLoader(IndexedDataset(task.data), BATCH, shuffle=True),
        DataLoader(IndexedDataset(Plain(task.held_out, task.size)), 2 * BATCH),
        candidates,
        config,
        Reporter(config.report_dir),
    ).run()
    print("selected:", found.best_path, found.best_metrics, flush=True)
    if not found.selected_augmentations:  # the model object then holds the last candidate
        saved = torch.load(config.checkpoint_dir / "iter_0_baseline.pt", weights_only=False)
        adapter.load_state_dict(saved["model_state"])
    return network.eval()
