"""The network that every method begins with, and plain training for methods whose code has none for it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from images import Augmented, Images
from protocol import CLASSES, MODEL, WEIGHTS, augment_of

DATA = Path(os.environ.get("SIGHTLINE_DATA", "../shared/data"))


def pretrained(seed: int) -> nn.Module:
    """Return the ImageNet network with a new head for the classes."""
    torch.manual_seed(seed)
    network = timm.create_model(MODEL.partition("/")[2], num_classes=len(CLASSES))
    kept = {key: value for key, value in load_file(DATA / WEIGHTS).items() if not key.startswith("classifier")}
    missing = network.load_state_dict(kept, strict=False).missing_keys
    assert missing == ["classifier.weight", "classifier.bias"], missing
    return network.to(memory_format=torch.channels_last)


def restored(file: Path) -> nn.Module:
    """Return a trained network."""
    network = timm.create_model(MODEL.partition("/")[2], num_classes=len(CLASSES))
    network.load_state_dict(load_file(file))
    return network.to(memory_format=torch.channels_last).eval()


def augmented(images: Images, name: str, size: int, masks: bool = False) -> Augmented:
    """Return the training images of a set as every method augments them."""
    return Augmented(images, size, masks=masks, **augment_of(name, size))


def fit(
    network: nn.Module, data: Dataset[Any], rate: float, loss: Callable[..., Tensor], seed: int, batch: int, epochs: int
) -> nn.Module:
    """Train by Adam on a loss of (network, *batch of data)."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    network.train()
    for _ in range(epochs):
        for some in DataLoader(data, batch, shuffle=True):
            optimizer.zero_grad()
            loss(network, *some).backward()
            optimizer.step()
    return network.eval()


def cross_entropy(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of a batch."""
    return nn.functional.cross_entropy(network(images), labels)


@torch.no_grad()
def accuracy(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Return the share of inputs whose label a network predicts."""
    network.eval()
    predicted = torch.cat([network(some).argmax(1) for some in inputs.split(30)])
    return (predicted == labels).double().mean().item()


def new_head(seed: int) -> nn.Linear:
    """Return the new last layer of the network."""
    return pretrained(seed).classifier


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a last layer with these values."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def corrected(layers: list[nn.Linear]) -> nn.Module:
    """Return a last layer with corrections of the features before it: linear layers with a ReLU after all but the last."""
    *before, last = layers
    return nn.Sequential(*(part for each in before for part in (each, nn.ReLU())), last)


def restored_head(file: Path) -> nn.Module:
    """Return a trained last layer, with its corrections if it has some."""
    state = load_file(file)
    if "weight" in state:
        return linear(state["weight"], state["bias"])
    places = sorted({int(key.partition(".")[0]) for key in state})
    return corrected([linear(state[f"{n}.weight"], state[f"{n}.bias"]) for n in places])


def unscaled(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last layer on features f that equals one (K, F), (K,) on (f - mean) / scale."""
    return weight / scale, bias - (weight / scale) @ mean
