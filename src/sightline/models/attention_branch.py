"""The attention branch: features times one plus an attention map, which also classifies, inside an otherwise unchanged model.

Like an attention gate it is a child of the module whose output it changes, and a hook on that module applies it.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sightline.models.gates import attention_place, innermost
from sightline.network.branch import Branch
from sightline.network.execution import record_blank
from sightline.network.layers import LayerChoice, resolve_layers
from sightline.network.logits import returned_logits

NAME = "attention_branch"


class AttentionBranchModule(Branch):
    """From features to an attention map and to additional logits, by way of one map per class.

    Args:
        channels: of the features.
        classes: number of logits.
        dimension: where the channels are: 1, or -1 for features (B, h, w, C).

    Shape:
        features (B, C, h, w) to the attention (B, h, w) in (0, 1) and the branch's logits (B, classes).
    """

    def __init__(self, channels: int, classes: int, dimension: int = 1) -> None:
        super().__init__()
        self.dimension = dimension
        self.features = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.classes = nn.Conv2d(channels, classes, 1, bias=False)
        self.class_norm = nn.BatchNorm2d(classes)
        self.attention = nn.Conv2d(classes, 1, 3, padding=1, bias=False)
        self.attention_norm = nn.BatchNorm2d(1)
        self.head = nn.Conv2d(classes, classes, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention and the logits."""
        maps = F.relu(self.norm(self.features(features.movedim(self.dimension, 1))))
        maps = F.relu(self.class_norm(self.classes(maps)))  # (B, classes, h, w)
        return self.attention_norm(self.attention(maps))[:, 0].sigmoid(), self.head(maps).mean((2, 3))


def attach_attention_branch(model: nn.Module, layer: LayerChoice | None = None) -> AttentionBranchModule:
    """Put an attention branch behind a layer; one that exists already stays, and is returned.

    Args:
        model: changed in place.
        layer: None = the last stage whose output has a sixteenth of the input's side, or the nearest larger.

    Raises:
        SightlineError: the layer does not exist, or gives no feature map.
    """
    name, channels, dimension = attention_place(model, layer)
    existing = getattr(model.get_submodule(innermost(model, name)), NAME, None)
    if isinstance(existing, AttentionBranchModule):
        return existing
    classes = returned_logits(record_blank(model).output).shape[1]
    return _insert(model, name, channels, classes, dimension)


def restore_attention_branch(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put the branch where the model that a state dict comes from had it; its values are loaded with the rest."""
    for key, weight in state.items():
        owner, _, name = key.removesuffix(".classes.weight").rpartition(".")
        if name == NAME and key.endswith(".classes.weight") and owner in dict(model.named_modules()):
            last = resolve_layers(model, owner)[0].layout == "channels_last"
            _insert(model, owner, weight.shape[1], weight.shape[0], -1 if last else 1)


def attention_branch_of(model: nn.Module) -> AttentionBranchModule | None:
    """Return a model's attention branch, or None."""
    return next((module for module in model.modules() if isinstance(module, AttentionBranchModule)), None)


def _insert(model: nn.Module, name: str, channels: int, classes: int, dimension: int) -> AttentionBranchModule:
    module, like = model.get_submodule(innermost(model, name)), next(model.parameters())
    branch = AttentionBranchModule(channels, classes, dimension).to(like.device, like.dtype)
    module.add_module(NAME, branch)
    module.register_forward_hook(_apply)
    return branch


def _apply(module: nn.Module, args: Any, features: Tensor) -> Tensor:
    """Return the features times one plus the attention; it depends on its arguments alone, so a copy applies its own."""
    branch: AttentionBranchModule = module.get_submodule(NAME)  # type: ignore[assignment]
    attention, _ = branch(features)
    return features * (1 + attention.unsqueeze(branch.dimension))
