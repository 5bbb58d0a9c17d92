"""Where the features of a model of no known family end, told by its modules."""

from torch import nn

from sightline.errors import SightlineError
from sightline.network.branch import own_modules


def last_convolutional_stage(model: nn.Module) -> str:
    """Return the widest module that ends in the model's last convolution: nothing in it pools to a point or classifies.

    Raises:
        SightlineError: there is no convolution; the message lists candidate layers.
    """
    names = [name for name, module in own_modules(model).items() if isinstance(module, nn.Conv2d)]
    if not names:
        raise cannot_tell(model)
    stage = names[-1]
    while (parent := stage.rpartition(".")[0]) and not _ends_the_features(
        model.get_submodule(parent), names[-1], parent
    ):
        stage = parent
    parent = stage.rpartition(".")[0]
    container = model.get_submodule(parent)
    if isinstance(container, nn.Sequential):  # in a plain sequence, the norm and activation that follow belong to it
        children = list(container.named_children())
        position = [name for name, _ in children].index(stage.rpartition(".")[2])
        for name, child in children[position + 1 :]:
            if not isinstance(
                child, nn.BatchNorm2d | nn.GroupNorm | nn.ReLU | nn.GELU | nn.SiLU | nn.LeakyReLU | nn.Hardswish
            ):
                break
            stage = f"{parent}.{name}" if parent else name
    return stage


def cannot_tell(model: nn.Module) -> SightlineError:
    """Return the error for a model whose target layer is unknown, with candidates."""
    norms = [n for n, m in model.named_modules() if "norm" in type(m).__name__.lower() and n]
    candidates = norms[-6:] or [name for name, _ in model.named_modules() if name][-6:]
    named = ", ".join(map(repr, candidates))
    return SightlineError(
        f"cannot tell the target layer of {type(model).__name__}; give layer=, a name such as {named} "
        "(for tokens or channels-last outputs: sightline.Layer(name, layout=..., prefix=...))"
    )


def _ends_the_features(module: nn.Module, convolution: str, name: str) -> bool:
    """Return whether a module goes on, after its last convolution, to pool to a point or to classify."""
    seen = False
    for child, part in module.named_modules(prefix=name):
        seen = seen or child == convolution
        if seen and isinstance(part, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.Linear | nn.Flatten):
            return True
    return False
