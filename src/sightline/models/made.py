"""What each source of models gives: a model with what is known of it."""

from dataclasses import dataclass, field

from torch import nn

from sightline.network.execution import stated_shapes
from sightline.network.families import known_models
from sightline.network.input_spec import InputSpec

MEAN, STD, SIDE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224  # of ImageNet, which most models were trained with


@dataclass
class Made:
    """A model as its source made it.

    Attributes:
        model: in training mode, on the CPU.
        spec: the input that it expects.
        classes: the name of each class; None = the source does not say.
        notes: what was assumed, unwrapped, renamed or left out, in words.
    """

    model: nn.Module
    spec: InputSpec
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def spec_of(model: nn.Module, size: int | None = None) -> tuple[InputSpec, list[str]]:
    """Return the input that a model from elsewhere says it expects, and a note on what had to be assumed.

    Args:
        model: any module; timm's know their input.
        size: side in pixels; None = what the model says, else 224.
    """
    side = size or next((shape[-1] for shape in stated_shapes(model)), SIDE)
    for name in known_models(model):
        known = getattr(model.get_submodule(name), "pretrained_cfg", None) or {}
        if "mean" in known and "std" in known:
            return InputSpec(tuple(known["mean"]), tuple(known["std"]), (side, side)), []
    channels = next((each.in_channels for each in model.modules() if isinstance(each, nn.Conv2d)), 3)
    mean, std = (MEAN, STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    whose = "that of ImageNet" if channels == 3 else "0.5"
    note = (
        f"nothing says how {type(model).__name__} was trained to see images; the normalization is assumed to be {whose}"
    )
    return InputSpec(mean, std, (side, side)), [f"{note}; give mean and std if it was another"]
