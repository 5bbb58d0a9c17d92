"""One small variant of every family of image classifiers of timm, torchvision and Hugging Face, with random weights."""

from typing import Any

import torch
from torch import nn

Size = tuple[int, int]

THIN = {"depth": 4, "embed_dim": 48, "num_heads": 3}  # a plain transformer made small
SWIN = {"depths": (1, 1, 2, 1), "embed_dim": 24}

THIN_MODELS = """
    beit_base_patch16_224 beitv2_base_patch16_224 cait_xxs24_224 deit_tiny_patch16_224 deit3_small_patch16_224
    deit_tiny_distilled_patch16_224 deepseek_vit_412m vit_tiny_patch16_dinov3_qkvb eva02_tiny_patch14_224
    eva_giant_patch14_224 eva02_base_patch16_clip_224 eva02_enormous_patch14_clip_224 vit_pe_core_tiny_patch16_384
    vit_medium_patch16_rope_reg1_gap_256 vit_small_patch16_rope_224 naflexvit_base_patch16_gap
    naflexvit_base_patch16_map naflexvit_base_patch16_par_gap qwen3_vit_88m qwen3_vit_88m_merge
    vit_medium_patch16_gap_240 vit_small_patch16_36x1_224 vit_small_patch16_18x2_224 vit_base_patch16_rpn_224
    vit_base_patch16_clip_224 vit_base_patch16_siglip_224 vit_small_patch14_reg4_dinov2
    vit_srelpos_small_patch16_224 aimv2_large_patch14_224 vit_wee_patch16_reg1_gap_256
    vit_pwee_patch16_reg1_gap_256 vit_dwee_patch16_reg1_gap_256 vit_dpwee_patch16_reg1_gap_256
    vit_huge_patch14_xp_224 vit_tiny_r_s16_p8_224 vit_relpos_small_patch16_rpn_224
    vit_relpos_base_patch16_cls_224 vit_relpos_base_patch16_clsgap_224 samvit_base_patch16
    samvit_base_patch16_224
"""
SWIN_MODELS = """
    swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224
    swinv2_cr_tiny_ns_224
"""
OTHER_MODELS = """
    botnet26t_256 lambda_resnet26rpt_256 halonet26t test_byobnet repvgg_a0 gernet_s mobileone_s0 coat_tiny
    coat_lite_tiny test_convnext test_convnext2 test_convnext3 convmixer_768_32 cpubone_nano crossvit_tiny_240
    crossvit_9_dagger_240 csatv2 cs3darknet_focus_s cspresnext50 darknet17 cspnext_tiny dla46x_c dla34 dpn48b
    edgenext_xx_small efficientformer_l1 efficientformerv2_s0 test_efficientnet test_efficientnet_gn mobilenetv2_035
    mnasnet_small tinynet_e mixnet_s efficientvim_m1 efficientvim_m1_dist efficientvit_b0 efficientvit_m0
    fasternet_t0 fastvit_t8 fastvit_mci0 focalnet_tiny_srf focalnet_tiny_lrf gcvit_xxtiny ghostnet_050
    ghostnetv2_100 ghostnetv3_050 hardcorenas_b hgnetv2_b0 hgnet_tiny hrnet_w18_small iformer_t inception_next_atto
    inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s levit_256d levit_conv_128s lowformer_b0
    test_mambaout test_maxvit test_coatnet maxxvit_rmlp_nano_rw_256 coatnext_nano_rw_224 poolformer_s12
    poolformerv2_s12 caformer_s18 convformer_s18 mixer_s32_224 gmixer_12_224 resmlp_12_224 gmlp_ti16_224
    mobilenetv3_small_050 lcnet_035 fbnetv3_b mobilenetv4_conv_small_035 mobilenetv4_hybrid_medium mobilenetv5_base
    mobilevit_xxs mobilevitv2_050 mvitv2_tiny mvitv2_small_cls nest_tiny nextvit_small test_nfnet nf_regnet_b0
    nf_resnet26 nasnetalarge pnasnet5large pit_ti_224 pit_ti_distilled_224 pvt_v2_b0 pvt_v2_b2_li rdnet_tiny
    regnetx_002 regnety_002 regnetz_005 repghostnet_050 repvit_m1 repvit_m0_9 res2net50_14w_8s resnest14d
    test_resnet resnet18 resnetv2_18 resnetv2_50x1_bit rexnet_100 rexnetr_100 selecsls42 legacy_seresnet18
    sequencer2d_s shvit_s1 shvit_s4 skresnet18 starnet_s050 swiftformer_xs tiny_vit_5m_224
    tnt_s_legacy_patch16_224 tnt_s_patch16_224 tresnet_m twins_svt_small twins_pcpvt_small vgg11 visformer_tiny
    test_vit test_vit2 test_vit3 test_vit4 test_vit_relpos vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw
    legacy_xception xception41 xception41p
"""

# Models of timm by name, with options that make them small; every module of timm has one at least.
TIMM: dict[str, dict[str, Any]] = {
    **dict.fromkeys(THIN_MODELS.split(), THIN),
    **dict.fromkeys(SWIN_MODELS.split(), SWIN),
    **{name: {} for name in OTHER_MODELS.split()},
    "convit_tiny": {"depth": 4, "local_up_to_layer": 2, "embed_dim": 12},
    "davit_tiny": {"depths": (1, 1, 1, 1), "embed_dims": (24, 48, 96, 192), "num_heads": (1, 2, 4, 8)},
    "densenet121": {"block_config": (2, 2, 2, 2)},
    "efficientvit_l1": {"depths": (1, 1, 1, 1, 1)},
    "gemma4_vit_167m": THIN | {"head_dim": 16, "intermediate_size": 64},
    "hiera_tiny_224": {"embed_dim": 24},
    "hiera_base_abswin_256": {"embed_dim": 24},
    "hieradet_small": {"embed_dim": 24, "num_heads": 1},
    "sam2_hiera_tiny": {"embed_dim": 24, "num_heads": 1},
    "vit_base_mci_224": {"depth": 4},
    "xcit_nano_12_p16_224": {"depth": 4},
    "xcit_nano_12_p8_224": {"depth": 4},
}

# A wide field of view, or stride 64: places of a random network differ on larger images only.
LARGE = (
    "cspnext", "efficientvim", "efficientvit", "fbnet", "ghostnet", "inception_v", "levit", "mixnet", "mobilenetv4_h",
    "nasnet", "pnasnet", "regnetz", "repghost", "repvit", "selecsls", "shvit", "tiny_vit", "xception",
)  # fmt: skip

TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_16", "wide_resnet50_2",
)  # fmt: skip

PLAIN = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 96, "patch_size": 8}
WIDTHS = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}
PYRAMID = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 2], "num_attention_heads": [1, 2, 2, 2]}
WINDOWS = {"embed_dim": 16, "depths": [1, 1, 2], "num_heads": [1, 2, 4], "window_size": 4, "patch_size": 4}
TOWER = {"vision_config": {**PLAIN, "image_size": 64}}
STEPS = [["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 2, 4, 2, 2]]

# Hugging Face's classes `<name>ForImageClassification`: a small configuration, and (H, W) of the image.
HUGGING_FACE: dict[str, tuple[dict[str, Any], Size]] = {
    "Beit": (PLAIN | {"image_size": 64}, (64, 96)),
    "Bit": ({"embedding_size": 8, "hidden_sizes": [32, 64, 96, 128], "depths": [1] * 4, "num_groups": 4}, (128, 192)),
    "CLIP": (TOWER, (64, 64)),
    "ConvNext": (WIDTHS, (128, 192)),
    "ConvNextV2": (WIDTHS, (128, 192)),
    "Cvt": ({"embed_dim": [16, 32, 64], "num_heads": [1, 1, 2], "depth": [1, 2, 4]}, (128, 192)),
    "Data2VecVision": (PLAIN | {"image_size": 64}, (64, 96)),
    "DeiT": (PLAIN | {"image_size": (64, 96)}, (64, 96)),
    "Dinov2": (PLAIN | {"image_size": 64}, (64, 96)),
    "Dinov2WithRegisters": (PLAIN | {"image_size": 64}, (64, 96)),
    "DonutSwin": (WINDOWS | {"image_size": 64}, (64, 96)),
    "EfficientNet": (
        {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "initializer_range": 0.3},
        (256, 384),
    ),
    "FocalNet": ({"embed_dim": 16, "depths": [1] * 3, "focal_levels": [1] * 3, "focal_windows": [3] * 3}, (64, 96)),
    "HGNetV2": ({}, (128, 192)),
    "Hiera": ({"image_size": [128, 192], "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}, (128, 192)),
    "IJepa": (PLAIN | {"image_size": 64}, (64, 64)),
    "Levit": (
        {"image_size": 256, "hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 2, 2], "depths": [1, 1, 1],
         "key_dim": [8, 8, 8], "down_ops": STEPS},
        (256, 256),
    ),
    "MetaClip2": (TOWER, (64, 64)),
    "MobileNetV1": ({"depth_multiplier": 0.25}, (128, 192)),
    "MobileNetV2": ({"depth_multiplier": 0.25}, (128, 192)),
    "MobileViT": (
        {"hidden_sizes": [16, 20, 24], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32], "num_attention_heads": 2,
         "initializer_range": 0.3},
        (256, 384),
    ),
    "MobileViTV2": ({"width_multiplier": 0.25}, (128, 192)),
    "PoolFormer": (WIDTHS, (128, 192)),
    "Pvt": (PYRAMID | {"image_size": 128}, (128, 128)),
    "PvtV2": (PYRAMID | {"image_size": 64}, (128, 192)),
    "RegNet": (WIDTHS | {"embedding_size": 8, "groups_width": 8}, (128, 192)),
    "ResNet": (WIDTHS | {"embedding_size": 8, "layer_type": "basic"}, (128, 192)),
    "Segformer": (PYRAMID, (128, 192)),
    "Siglip": (TOWER, (64, 64)),
    "SwiftFormer": ({"embed_dims": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}, (128, 192)),
    "Swin": (WINDOWS | {"image_size": 64}, (64, 96)),
    "Swinv2": (WINDOWS | {"image_size": 64}, (64, 96)),
    "TextNet": ({}, (128, 192)),
    "TimmWrapper": ({"architecture": "test_vit", "do_pooling": True}, (128, 192)),
    "ViT": (PLAIN | {"image_size": (64, 96)}, (64, 96)),
    "ViTMSN": (PLAIN | {"image_size": 64}, (64, 64)),
}  # fmt: skip


def timm_model(name: str) -> tuple[nn.Module, Size]:
    """Return a model of timm for an image that is not square, or for one of its own size if it takes no other."""
    import timm

    size = (256, 384) if name.startswith(LARGE) else (128, 192)
    own = tuple(timm.get_pretrained_cfg(name).input_size[1:])
    attempts: list[tuple[dict[str, Any], Size]] = [
        ({"img_size": size}, size),
        ({}, size),
        ({"img_size": own}, own),
        ({}, own),
    ]
    if name.startswith("crossvit"):  # takes any size, and scales the image to a square of its own
        attempts = attempts[3:]
    for options, side in attempts:
        try:
            model = timm.create_model(name, num_classes=7, **TIMM[name], **options).eval()
            with torch.no_grad():
                model(torch.randn(1, 3, *side))
        except Exception as error:  # each family refuses a size in its own way
            refusal = error
        else:
            return model, side
    raise refusal


def torchvision_model(name: str) -> tuple[nn.Module, Size]:
    """Return a model of torchvision for an image that is not square, or for one of 224 px."""
    import torchvision

    size = (128, 192)
    if name.startswith(("efficientnet", "inception", "mnasnet", "mobilenet", "shufflenet")):
        size = (256, 384)
    if name.startswith(("maxvit", "vit")):
        size = (224, 224)
    return torchvision.models.get_model(name, weights=None, num_classes=7).eval(), size


def hugging_face_model(name: str) -> tuple[nn.Module, Size]:
    """Return a classifier of Hugging Face."""
    import transformers

    options, size = HUGGING_FACE[name]
    config = getattr(transformers, f"{name}Config")(**options)
    config.num_labels = 7
    return getattr(transformers, f"{name}ForImageClassification")(config).eval(), size
