"""What a stage trains of a model, and what it leaves unchanged."""

import torch
from torch.nn import Parameter

from sightline.finetuning.portion import modules_from
from sightline.network.head import head_parameters
from sightline.network.modes import batch_norms
from sightline.objectives.objective import Objective
from sightline.runs.stage import Stage


class Portion:
    """What a stage trains: all of the model, the head, or a layer and what runs after it; and what its guides add.

    Args:
        stage: says it.
        objective: the model with its guides, on its device.
        size: (height, width) of the images.

    Raises:
        SightlineError: the layer that the stage names cannot be trained from.
    """

    def __init__(self, stage: Stage, objective: Objective, size: tuple[int, int]) -> None:
        self._stage, self._objective = stage, objective
        model = objective.unwrap_model()
        self._modules = []
        if stage.first_layer is not None:
            like = next(model.parameters())
            channels = 3 if objective.input_spec is None else len(objective.input_spec.mean)
            blank = torch.zeros(1, channels, *size, dtype=like.dtype, device=like.device)
            self._modules = modules_from(model, stage.first_layer, blank)
        if stage.trainable == "all":
            self._trained = set(model.parameters())
        elif stage.trainable == "head":
            self._trained = set(head_parameters(model))
        else:
            self._trained = {parameter for module in self._modules for parameter in module.parameters()}

    def release(self, parameters: list[Parameter]) -> None:
        """Let gradients reach what the stage trains among some parameters of the model, and what its guides add."""
        for parameter in parameters:
            parameter.requires_grad_(parameter in self._trained)
        if self._stage.batch_norm == "frozen":
            for norm in batch_norms(self._objective.unwrap_model()):
                norm.requires_grad_(False)
        for parameter in self._objective.guides.parameters():  # in the model too, where a guide attaches a module
            parameter.requires_grad_(True)

    def train(self) -> None:
        """Training mode for what is trained; BatchNorm and dropout of the rest act as in evaluation, and frozen BatchNorm."""
        self._objective.train()
        if self._stage.trainable != "all":
            self._objective.model.eval()
        for module in self._modules:
            module.train()
        if self._stage.batch_norm == "frozen":
            for norm in batch_norms(self._objective.unwrap_model()):
                norm.eval()
