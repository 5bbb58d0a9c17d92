"""What is known of each family of models: the layer that maps are taken from, and how layers return their output.

All names are relative to the model of the family, which may be inside a wrapper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sightline.network.layout import Layout


@dataclass(frozen=True)
class Rule:
    """What is known of a family.

    Args:
        default: names of the layer that maps are taken from, best first; the first that the model has and that is not
            `nn.Identity` is taken. A negative part counts children from the end, so `"blocks.-1.norm1"` is the
            norm of the last block. None = told by what the model runs.
        layout: how layers return their output, except those whose type tells.
        prefix: for tokens, how many of them at the start stand for no place.
        parts: layouts of parts of the model that differ from `layout`, by name.
        shuffled: names of parts whose tokens are in another order than the places of the image.
    """

    default: tuple[str, ...] | str | None = None
    layout: Layout = "channels_first"
    prefix: int = 0
    parts: Mapping[str, Layout] = field(default_factory=dict)
    shuffled: tuple[str, ...] = ()


def before_attention(model: Any, prefix: int | None = None) -> Rule:
    """Return the rule of a plain transformer of timm: the norm before the last block's attention.

    After the last attention, the gradients of a class-token model are zero at every other token. Where no norm comes before
    the attention (residual post-norm, parallel attentions), it is the output of the block before.
    """
    prefix = model.num_prefix_tokens if prefix is None else prefix
    path = "blocks" if hasattr(model, "blocks") else "encoder.blocks"
    blocks = getattr(model, "blocks", None) or getattr(getattr(model, "encoder", None), "blocks", None)
    if not blocks:
        return Rule(None, "tokens", prefix)
    first = next((child for child, _ in blocks[-1].named_children()), "")
    return Rule(f"{path}.-1.{first}" if "norm" in first else f"{path}.-2", "tokens", prefix)


def _hiera(model: Any) -> Rule:
    """Return the rule of timm's Hiera, which keeps the tokens of a window together until they are pooled to one."""
    pooled = model.stage_ends[-2] + 1  # the first block of the last stage: it pools inside
    inside = [f"blocks.{pooled}.{child}" for child, _ in model.blocks[pooled].named_children()]
    return Rule("blocks.-1", "tokens", shuffled=(*(f"blocks.{i}" for i in range(pooled)), *inside))


def _hugging_face_hiera(model: Any) -> Rule:
    """Return the rule of Hugging Face's Hiera, as `_hiera`."""
    last = len(model.encoder.stages) - 1
    stages = tuple(f"encoder.stages.{i}" for i in range(last))
    return Rule("encoder.stages.-1", "tokens", shuffled=(*stages, f"encoder.stages.{last}.layers.0.layernorm_before"))


# How Hugging Face's versions name the norm before the last block's attention.
NORM = (
    "layers.-1.layernorm_before",
    "encoder.layer.-1.layernorm_before",
    "encoder.layer.-1.norm1",
    "model.layer.-1.norm1",
    "layer.-1.norm1",
    "encoder.layers.-1.layer_norm1",
    "vision_model.encoder.layers.-1.layer_norm1",
)

# By library and class; a subclass that is not listed goes by its nearest listed base. A function returns the rule of a model.
# Models of timm that are not listed describe themselves.
#
# Plain transformers: the norm before the last block's attention. Hierarchical ones and CNNs: the last stage, with the
# convolution that follows it before the pooling. Models for segmentation: the last stage of the backbone, since the output is
# one linear layer behind what follows.
RULES: dict[str, Rule | Callable[[Any], Rule]] = {
    "open_clip.VisionTransformer": Rule("transformer.resblocks.-1.ln_1", "tokens", prefix=1),
    "timm.Cait": lambda model: before_attention(model, 0),  # the class token joins after the blocks, here and in XCiT
    "timm.CoaT": Rule(("parallel_blocks.-1.norm14", "serial_blocks4.-1.norm1"), "tokens", prefix=1),
    "timm.CrossVit": Rule("blocks.-1.blocks.-1.-1.norm1", "tokens", prefix=1),
    "timm.EfficientFormer": Rule("stages.-1", parts={"stages.3": "tokens", "norm": "tokens"}),
    "timm.EfficientNet": Rule("bn2"),
    "timm.EfficientViM": Rule("norm.-1"),
    "timm.FastVit": Rule(("final_conv", "stages.-1")),
    "timm.Gemma4VitClassifier": Rule("encoder.blocks.-1.norm1", "tokens"),
    "timm.GhostNet": Rule("blocks"),
    "timm.Hiera": _hiera,
    "timm.HighResolutionNet": Rule("final_layer"),
    "timm.Levit": lambda model: Rule("stages.-1", parts={} if model.use_conv else {"stages": "tokens"}),
    "timm.MlpMixer": lambda model: before_attention(model, 0),
    "timm.MobileNetV5": Rule(("msfa", "blocks.-1")),
    "timm.MultiScaleVit": lambda model: Rule("stages.-1.blocks.-1.norm1", "tokens", model.num_prefix_tokens),
    "timm.PoolingVisionTransformer": lambda model: Rule(
        "transformers.-1.blocks.-1.norm1", parts={"transformers": "tokens"}, prefix=model.cls_token.shape[1]
    ),
    "timm.RegNet": Rule(("final_conv", "s4")),
    "timm.RepGhostNet": Rule("blocks"),
    "timm.RexNet": Rule("features"),
    "timm.TNT": Rule("blocks.-1.norm_out", "tokens", prefix=1),
    "timm.Twins": Rule("blocks.-1.-1", "tokens"),
    "timm.VGG": Rule("features.-2"),
    "timm.VOLO": Rule("network.-1", parts={"network": "channels_last"}),
    "timm.VisionTransformerSAM": Rule(("neck", "blocks.-1"), parts={"blocks": "channels_last"}),
    "timm.Xcit": lambda model: before_attention(model, 0),
    "torchvision.AlexNet": Rule("features.-2"),  # before the last pooling, here and in VGG
    "torchvision.ConvNeXt": Rule("features"),
    "torchvision.DeepLabV3": Rule("backbone.-1"),
    "torchvision.DenseNet": Rule("features"),
    "torchvision.EfficientNet": Rule("features"),
    "torchvision.FCN": Rule("backbone.-1"),
    "torchvision.GoogLeNet": Rule("inception5b"),
    "torchvision.Inception3": Rule("Mixed_7c"),
    "torchvision.LRASPP": Rule("backbone.-1"),
    "torchvision.MNASNet": Rule("layers"),
    "torchvision.MaxVit": Rule("blocks.-1"),
    "torchvision.MobileNetV2": Rule("features"),
    "torchvision.MobileNetV3": Rule("features"),
    "torchvision.RegNet": Rule("trunk_output"),
    "torchvision.ResNet": Rule("layer4"),
    "torchvision.ShuffleNetV2": Rule("conv5"),
    "torchvision.SqueezeNet": Rule("features"),
    "torchvision.SwinTransformer": Rule("features.-1", "channels_last"),
    "torchvision.VGG": Rule("features.-2"),
    "torchvision.VisionTransformer": Rule("encoder.layers.-1.ln_1", "tokens", prefix=1),
    "transformers.BeitModel": Rule(NORM, "tokens", prefix=1),
    "transformers.BitModel": Rule("encoder.stages.-1"),
    "transformers.CLIPVisionModel": Rule(NORM, "tokens", prefix=1),
    "transformers.ConvNextModel": Rule("encoder.stages.-1"),
    "transformers.ConvNextV2Model": Rule("encoder.stages.-1"),
    "transformers.CvtModel": Rule("encoder.stages.-1.layers.-1.layernorm_before", "tokens", prefix=1),
    "transformers.Data2VecVisionModel": Rule(NORM, "tokens", prefix=1),
    "transformers.DINOv3ConvNextModel": Rule(("model.stages.-1", "stages.-1")),
    "transformers.DINOv3ViTModel": lambda model: Rule(NORM, "tokens", 1 + model.config.num_register_tokens),
    "transformers.DeiTModel": Rule(NORM, "tokens", prefix=2),
    "transformers.Dinov2Model": Rule(NORM, "tokens", prefix=1),
    "transformers.Dinov2WithRegistersModel": lambda model: Rule(NORM, "tokens", 1 + model.config.num_register_tokens),
    "transformers.DonutSwinModel": Rule("encoder.layers.-1", "tokens"),
    "transformers.EfficientNetModel": Rule("encoder.top_activation"),
    "transformers.FocalNetModel": Rule("encoder.stages.-1", "tokens"),
    "transformers.HGNetV2ForImageClassification": Rule("encoder.stages.-1"),
    "transformers.HieraModel": _hugging_face_hiera,
    "transformers.IJepaModel": Rule(NORM, "tokens"),
    "transformers.LevitModel": Rule("encoder.stages.-1", "tokens"),
    "transformers.MetaClip2VisionModel": Rule(NORM, "tokens", prefix=1),
    "transformers.MobileNetV1Model": Rule("layer.-1"),
    "transformers.MobileNetV2Model": Rule("conv_1x1"),
    "transformers.MobileViTModel": Rule(("conv_1x1_exp", "encoder.layer.-1")),
    "transformers.MobileViTV2Model": Rule("encoder.layer.-1"),
    "transformers.PoolFormerModel": Rule("encoder.block.-1.-1"),
    "transformers.PvtModel": Rule("encoder.block.-1.-1.layer_norm_1", "tokens", prefix=1),
    "transformers.PvtV2Model": Rule("encoder.layers.-1.layer_norm", "tokens"),
    "transformers.RegNetModel": Rule("encoder.stages.-1"),
    "transformers.ResNetModel": Rule("encoder.stages.-1"),
    "transformers.SegformerModel": Rule(("stages.-1.layer_norm", "encoder.layer_norm.-1"), "tokens"),
    "transformers.SiglipVisionModel": Rule(NORM, "tokens"),
    "transformers.SwiftFormerModel": Rule("encoder.network.-1"),
    "transformers.SwinModel": Rule("encoder.layers.-1", "tokens"),
    "transformers.Swinv2Model": Rule("encoder.layers.-1", "tokens"),
    "transformers.TextNetModel": Rule("encoder.stages.-1"),
    "transformers.ViTMSNModel": Rule(NORM, "tokens", prefix=1),
    "transformers.ViTModel": Rule(NORM, "tokens", prefix=1),
}

# A backbone of a larger model has the parts of the model without a head.
BACKBONES = (
    "ConvNext", "ConvNextV2", "DINOv3ConvNext", "DINOv3ViT", "Dinov2", "Dinov2WithRegisters", "Hiera", "ResNet",
)  # fmt: skip
RULES |= {f"transformers.{name}Backbone": RULES[f"transformers.{name}Model"] for name in BACKBONES}
RULES["transformers.SwinBackbone"] = Rule(
    "swin.encoder.layers.-1.blocks.-1", "tokens"
)  # a stage copies what it gives on
RULES["transformers.Swinv2Backbone"] = Rule("encoder.layers.-1.blocks.-1", "tokens")
RULES["transformers.HGNetV2Backbone"] = RULES["transformers.HGNetV2ForImageClassification"]
