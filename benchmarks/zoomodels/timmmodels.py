"""Architectures of timm: (name, family, size of the image, what to pass to make it small).

"class" names a class of timm.models that is built in the place of the registered model.
"""

import functools
from typing import Any

from torch import nn
from zoomodels.spec import Architecture, Built, tensor
from zoomodels.torchvisionfix import import_torchvision

_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8}
_RESNET = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32), "stem_width": 8}
_SWIN = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "img_size": 32, "window_size": 4}

CONVOLUTIONAL: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("test_resnet", "ResNet", 32, {}),
    ("resnet26d", "ResNet", 32, _RESNET),
    ("seresnet18", "SE-ResNet", 32, _RESNET),
    ("ecaresnet26t", "ECA-ResNet", 32, _RESNET),
    ("resnetblur18", "ResNet with blur pooling", 32, _RESNET),
    ("resnext26ts", "ResNeXt", 32, {}),
    ("res2net50_14w_8s", "Res2Net", 32, {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32), "stem_width": 8, "base_width": 16, "cardinality": 1, "block_args": {"scale": 4}}),
    ("resnest14d", "ResNeSt", 32, _RESNET),
    ("skresnet18", "SKNet", 32, _RESNET),
    ("resnetv2_18", "ResNetV2", 32, {"layers": (1, 1, 1, 1), "channels": (16, 32, 48, 64), "stem_chs": 16}),
    ("test_byobnet", "ByobNet", 32, {}),
    ("repvgg_a0", "RepVGG", 32, {}),
    ("mobileone_s0", "MobileOne", 32, {}),
    ("test_efficientnet", "EfficientNet", 32, {}),
    ("test_efficientnet_gn", "EfficientNet", 32, {}),
    ("test_efficientnet_ln", "EfficientNet", 32, {}),
    ("test_efficientnet_evos", "EfficientNet with EvoNorm", 32, {}),
    ("efficientnet_lite0", "EfficientNet", 32, {}),
    ("mobilenetv2_035", "MobileNetV2", 32, {}),
    ("mobilenetv3_small_050", "MobileNetV3", 32, {}),
    ("mobilenetv4_conv_small_035", "MobileNetV4", 32, {}),
    ("mnasnet_small", "MnasNet", 32, {}),
    ("lcnet_035", "LCNet", 32, {}),
    ("tinynet_e", "TinyNet", 32, {}),
    ("fbnetc_100", "FBNet", 32, {}),
    ("mixnet_s", "MixNet", 32, {}),
    ("ghostnet_050", "GhostNet", 32, {}),
    ("ghostnetv2_100", "GhostNetV2", 64, {}),
    ("hardcorenas_a", "HardCoRe-NAS", 32, {}),
    ("repghostnet_050", "RepGhostNet", 32, {}),
    ("rexnet_100", "ReXNet", 32, {}),
    ("regnetx_002", "RegNetX", 32, {}),
    ("regnety_002", "RegNetY", 32, {}),
    ("test_convnext", "ConvNeXt", 32, {}),
    ("test_convnext2", "ConvNeXtV2", 32, {}),
    ("test_convnext3", "ConvNeXt", 32, {}),
    ("inception_next_atto", "InceptionNeXt", 32, {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 40)}),
    ("test_nfnet", "NFNet", 32, {}),
    ("test_mambaout", "MambaOut", 32, {}),
    ("convmixer_768_32", "ConvMixer", 28, {"class": "convmixer.ConvMixer", "dim": 24, "depth": 2, "kernel_size": 5, "patch_size": 7}),
    ("densenet121", "DenseNet", 32, {"growth_rate": 6, "block_config": (2, 2, 2)}),
    ("rdnet_tiny", "RDNet", 32, {"growth_rates": (8, 8, 8), "num_blocks_list": (2, 2, 2), "is_downsample_block": (None, True, True), "num_init_features": 16}),
    ("dpn48b", "DPN", 32, {"k_sec": (1, 1, 1, 1), "inc_sec": (4, 4, 4, 8), "k_r": 16, "groups": 8}),
    ("dla34", "DLA", 32, {"levels": (1, 1, 1, 2, 1, 1), "channels": (4, 8, 8, 16, 16, 24)}),
    ("dla46x_c", "DLA", 32, {}),
    ("ese_vovnet19b_slim_dw", "VoVNet", 32, {}),
    ("hgnetv2_b0", "HGNetV2", 32, {}),
    ("fasternet_t0", "FasterNet", 32, {"embed_dim": 16, "depths": (1, 1, 1, 1), "feature_dim": 48}),
    ("starnet_s050", "StarNet", 32, {}),
    ("repvit_m0_9", "RepViT", 32, {"embed_dim": (8, 16, 24, 32), "depth": (1, 1, 1, 1)}),
    ("lcnetv2_small", "LCNetV2", 32, {}),
    ("cspnext_s", "CSPNeXt", 32, {}),
    ("inception_v3", "Inception", 96, {}),
    ("tresnet_m", "TResNet", 64, {"layers": (1, 1, 1, 1), "width_factor": 0.25}),
    ("legacy_seresnet18", "SENet", 32, {"layers": (1, 1, 1, 1)}),
    ("vgg_small", "VGG", 32, {"class": "vgg.VGG", "cfg": [8, "M", 16, "M", 24, "M", 24, "M", 32, "M"], "num_classes": 10, "mlp_ratio": 0.02}),
)  # fmt: skip

TRANSFORMERS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("test_vit", "ViT", 32, {"img_size": 32}),
    ("test_vit2", "ViT", 32, {"img_size": 32}),
    ("test_vit3", "ViT", 32, {"img_size": 32}),
    ("test_vit4", "ViT", 32, {"img_size": 32}),
    ("vit_tiny_patch16_224", "ViT", 32, _VIT),
    ("vit_small_patch16_18x2_224", "ViT with parallel blocks", 32, _VIT),
    ("test_vit_relpos", "ViT with relative positions", 32, {"img_size": 32}),
    ("vit_relpos_base_patch16_cls_224", "ViT with relative positions", 32, _VIT),
    ("vit_srelpos_small_patch16_224", "ViT with relative positions", 32, _VIT),
    ("deit_tiny_distilled_patch16_224", "DeiT", 32, _VIT),
    ("deit3_small_patch16_224", "DeiT III", 32, _VIT),
    ("beit_base_patch16_224", "BEiT", 32, _VIT),
    ("beitv2_base_patch16_224", "BEiT", 32, _VIT),
    ("cait_xxs24_224", "CaiT", 32, _VIT),
    ("convit_tiny", "ConViT", 32, {"embed_dim": 8, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8}),
    ("crossvit_9_240", "CrossViT", 48, {"class": "crossvit.CrossVit", "img_size": 48, "img_scale": (1.0, 1.0), "patch_size": (12, 16), "embed_dim": (16, 24), "depth": ((1, 1, 0), (1, 1, 0)), "num_heads": (2, 2), "mlp_ratio": (2, 2, 1)}),
    ("eva02_tiny_patch14_224", "EVA-02", 28, {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 28}),
    ("vit_medium_patch16_rope_reg1_gap_256", "ViT with rotary positions", 32, _VIT),
    ("vit_wee_patch16_reg1_gap_256", "ViT with registers", 32, _VIT),
    ("vit_small_patch14_dinov2", "DINOv2", 28, {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 28}),
    ("vit_small_patch16_dinov3", "DINOv3", 32, {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32}),
    ("vit_base_patch16_siglip_224", "SigLIP", 32, _VIT),
    ("flexivit_small", "FlexiViT", 32, {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 32}),
    ("naflexvit_base_patch16_gap", "NaFlexViT", 32, {"embed_dim": 32, "depth": 2, "num_heads": 4}),
    ("swin_tiny_patch4_window7_224", "Swin", 32, _SWIN),
    ("swinv2_tiny_window8_256", "Swin V2", 32, _SWIN),
    ("swinv2_cr_tiny_224", "Swin V2", 32, _SWIN),
    ("test_maxvit", "MaxViT", 64, {"img_size": 64}),
    ("test_coatnet", "CoAtNet", 64, {"img_size": 64}),
    ("davit_tiny", "DaViT", 32, {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (2, 2, 2, 2)}),
    ("edgenext_xx_small", "EdgeNeXt", 64, {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 40), "heads": (2, 2, 2, 2)}),
    ("efficientformer_l1", "EfficientFormer", 224, {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32)}),
    ("efficientformerv2_s0", "EfficientFormerV2", 64, {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32)}),
    ("efficientvim_m1", "EfficientViM", 64, {}),
    ("efficientvit_b0", "EfficientViT (MIT)", 64, {"widths": (8, 16, 24, 32, 40), "depths": (1, 1, 1, 1, 1), "head_dim": 8}),
    ("efficientvit_m0", "EfficientViT (MSRA)", 64, {"img_size": 64}),
    ("focalnet_tiny_srf", "FocalNet", 32, {"class": "focalnet.FocalNet", "embed_dim": 16, "depths": (1, 1, 1, 1)}),
    ("gcvit_xxtiny", "GCViT", 64, {"class": "gcvit.GlobalContextVit", "img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": 16, "num_heads": (2, 2, 2, 2), "window_size": (2, 2, 2, 2)}),
    ("hiera_tiny_224", "Hiera", 64, {"img_size": (64, 64), "embed_dim": 16, "stages": (1, 1, 1, 1)}),
    ("levit_128s", "LeViT", 64, {"embed_dim": (16, 24, 32), "depth": (1, 1, 1), "num_heads": (2, 2, 2), "key_dim": 8, "img_size": 64}),
    ("mixer_s32_224", "MLP-Mixer", 32, {"class": "mlp_mixer.MlpMixer", "block_layer": "mlp_mixer.MixerBlock", "img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32}),
    ("mobilevit_xxs", "MobileViT", 64, {}),
    ("mobilevitv2_050", "MobileViTV2", 64, {}),
    ("mvitv2_tiny", "MViTv2", 64, {"class": "mvitv2.MultiScaleVit", "cfg": "mvitv2.MultiScaleVitCfg", "cfg_options": {"depths": (1, 1, 1, 1), "embed_dim": (16, 32, 64, 128), "num_heads": (1, 2, 4, 8)}, "img_size": 64}),
    ("nest_tiny", "NesT", 64, {"class": "nest.Nest", "img_size": 64, "embed_dims": (16, 24, 32), "num_heads": (2, 2, 2), "depths": (1, 1, 1)}),
    ("pit_ti_224", "PiT", 32, {"img_size": 32, "patch_size": 8, "stride": 4, "base_dims": (8, 8, 8), "depth": (1, 1, 1), "heads": (2, 2, 2)}),
    ("poolformer_s12", "PoolFormer", 32, {"class": "metaformer.MetaFormer", "depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "token_mixers": "metaformer.Pooling"}),
    ("convformer_s18", "MetaFormer", 32, {"class": "metaformer.MetaFormer", "depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "token_mixers": "metaformer.SepConv"}),
    ("pvt_v2_b0", "PVT v2", 32, {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 2, 4)}),
    ("sequencer2d_s", "Sequencer", 28, {"img_size": 28, "layers": (1, 1, 1, 1), "embed_dims": (16, 24, 24, 24), "hidden_sizes": (4, 8, 8, 8)}),
    ("shvit_s1", "SHViT", 64, {"embed_dim": (16, 24, 32), "depth": (1, 1, 1), "partial_dim": (8, 8, 8), "types": ("i", "s", "s")}),
    ("swiftformer_xs", "SwiftFormer", 64, {"layers": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32)}),
    ("tiny_vit_5m_224", "TinyViT", 64, {"embed_dims": (16, 32, 32, 64), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2), "window_sizes": (4, 4, 4, 2)}),
    ("tnt_s_patch16_224", "TNT", 32, {"img_size": 32, "embed_dim": 32, "inner_dim": 8, "depth": 2, "num_heads_inner": 2, "num_heads_outer": 4}),
    ("twins_pcpvt_small", "Twins", 32, {"img_size": 32, "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 2, 2), "depths": (1, 1, 1, 1)}),
    ("twins_svt_small", "Twins", 32, {"img_size": 32, "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 2, 2), "depths": (1, 1, 1, 1)}),
    ("visformer_tiny", "Visformer", 64, {"img_size": 64, "embed_dim": 32, "depth": (1, 1, 1), "num_heads": 2, "init_channels": 8}),
    ("volo_d1_224", "VOLO", 64, {"class": "volo.VOLO", "img_size": 64, "layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (2, 2, 2, 2)}),
    ("xcit_nano_12_p16_224", "XCiT", 32, {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 4}),
    ("samvit_base_patch16", "SAM", 64, {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 4, "window_size": 2, "global_attn_indexes": (1,), "neck_chans": 16}),
    ("botnet26t_256", "BoTNet", 64, {"img_size": 64}),
    ("halonet26t", "HaloNet", 256, {}),
    ("lambda_resnet26t", "LambdaNet", 64, {"img_size": 64}),
    ("vit_tiny_r_s16_p8_224", "Hybrid ViT", 32, {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 4}),
    ("resmlp_12_224", "ResMLP", 32, {"class": "mlp_mixer.MlpMixer", "block_layer": "mlp_mixer.ResBlock", "mlp_ratio": 4, "norm_layer": "mlp_mixer.Affine", "img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32}),
    ("gmlp_ti16_224", "gMLP", 32, {"class": "mlp_mixer.MlpMixer", "block_layer": "mlp_mixer.SpatialGatingBlock", "mlp_ratio": 6, "mlp_layer": "mlp_mixer.GatedMlp", "img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32}),
    ("fastvit_t8", "FastViT", 64, {"layers": (1, 1, 1, 1)}),
)  # fmt: skip


def _resolved(value: Any) -> Any:
    """A class or function of timm in the place of its name, also within tuples."""
    import timm

    if isinstance(value, tuple):
        return tuple(_resolved(part) for part in value)
    if not isinstance(value, str) or "." not in value:
        return value
    module, name = value.split(".")
    return getattr(getattr(timm.models, module), name)


def _made(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    given = {key: _resolved(value) for key, value in options.items()}
    if "cfg_options" in given:
        given["cfg"] = given["cfg"](**given.pop("cfg_options"))
    if "class" in given:
        return given.pop("class")(**{"num_classes": 10, **given})
    return timm.create_model(name, pretrained=False, num_classes=10, **given)


def _build(name: str, size: int, options: dict[str, Any]) -> Built:
    import_torchvision()
    return Built(module=_made(name, options), args=(tensor(1, 3, size, size),))


def architectures() -> list[Architecture]:
    """All of them."""
    return [
        Architecture(
            name=name,
            family=family,
            source="timm",
            group=group,
            build=functools.partial(_build, name, size, options),
        )
        for group, table in (("convolutional", CONVOLUTIONAL), ("vision transformers", TRANSFORMERS))
        for name, family, size, options in table
    ]
