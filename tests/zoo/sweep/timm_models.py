"""Models of timm: one or two of a family, the smallest of it, chosen for the operations they add."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo.sweep.subject import CLASSES, Subject, images

SIZE = 64
SIZES = {
    "bat_resnext26ts": 256,
    "efficientformer_l1": 224,
    "halonet26t": 256,
    "haloregnetz_b": 224,
    "inception_v4": 96,
}
"""Where 64 pixels are too few."""
HEADS = {
    "crossvit_tiny_240": ["head.0", "head.1"],
    "deit_tiny_distilled_patch16_224": ["head", "head_dist"],
    "efficientformer_l1": ["head", "head_dist"],
    "efficientformerv2_s0": ["head", "head_dist"],
    "levit_conv_128s": ["head", "head_dist"],
    "repvit_m0_9": ["head.head", "head.head_dist"],
    "swiftformer_xs": ["head", "head_dist"],
    "volo_d1_224": ["head", "aux_head"],
}
"""Models whose logits are the mean of two heads': a sum cannot be told from one of features, so the heads are named."""
LARGE = ("inception_v4",)

CONVOLUTIONS = """
    resnet10t resnetv2_18 resnetv2_50x1_bit legacy_seresnet18 gcresnet33ts skresnet18 resnest14d res2net50_14w_8s
    tresnet_m selecsls42 cspresnet50 cs3darknet_s dla34 dpn48b densenetblur121d rdnet_tiny ese_vovnet19b_slim
    hrnet_w18_small hgnetv2_b0 xception41 inception_v4 regnety_002 regnetz_b16 gernet_s repvgg_a0 mobileone_s0
    nfnet_l0 nf_resnet26
"""
MOBILE = """
    efficientnet_lite0 efficientnet_b0_gn tf_efficientnetv2_b0 mixnet_s mobilenetv4_conv_small
    mobilenetv4_hybrid_medium tf_mobilenetv3_small_075 lcnet_035 ghostnet_050 ghostnetv2_100 ghostnetv3_050
    repghostnet_050 rexnet_100 starnet_s050 fasternet_t0 shvit_s1 repvit_m0_9 fastvit_t8 csatv2
"""
PATCHES = """
    convnext_atto convnextv2_atto convnext_zepto_rms inception_next_atto convmixer_768_32 mambaout_femto mixer_s32_224
    gmixer_12_224 resmlp_12_224 gmlp_ti16_224 sequencer2d_s poolformer_s12 focalnet_tiny_srf
"""
ATTENTION = """
    vit_tiny_patch16_224 vit_tiny_r_s16_p8_224 vit_relpos_small_patch16_224 vit_small_patch16_rope_224
    deit_tiny_distilled_patch16_224 eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 crossvit_tiny_240
    convit_tiny tnt_s_legacy_patch16_224 volo_d1_224 pit_ti_224 levit_conv_128s visformer_tiny coat_lite_tiny
    coatnet_pico_rw_224 maxvit_rmlp_pico_rw_256 mvitv2_tiny hiera_tiny_224 swin_tiny_patch4_window7_224
    swinv2_cr_tiny_224 twins_svt_small pvt_v2_b0 nest_tiny nextvit_small davit_tiny gcvit_xxtiny tiny_vit_5m_224
    vitamin_small_224 edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientvit_b0 efficientvit_m0
    mobilevit_xxs mobilevitv2_050 swiftformer_xs botnet26t_256 halonet26t haloregnetz_b lambda_resnet26t
    bat_resnext26ts
"""


def subjects() -> Iterator[Subject]:
    """Yield one subject a name."""
    for name in (CONVOLUTIONS + MOBILE + PATCHES + ATTENTION).split():
        size = SIZES.get(name, SIZE)
        yield Subject(
            f"timm {name}",
            "timm",
            lambda name=name, size=size: _make(name, size),  # type: ignore[misc]  # mypy cannot infer such a lambda
            images(size),
            spec={"heads": {"names": HEADS[name]}} if name in HEADS else {},
            note="two heads, named" if name in HEADS else "",
            batch=2 if size > 100 else 4,
            rank=4e7 if name in LARGE else size * 1e4,
        )


def _make(name: str, size: int) -> nn.Module:
    """Build a model; those that tie their shape to the size of the images are told it, if that works."""
    import timm

    attempts: tuple[dict[str, Any], ...] = ({"img_size": size}, {})
    problems = []
    for options in attempts:
        try:
            model: nn.Module = timm.create_model(name, num_classes=CLASSES, **options)
            with torch.no_grad():
                model.eval()(torch.zeros(2, 3, size, size))
        except (TypeError, RuntimeError) as error:
            problems.append(str(error))
        else:
            return model
    raise ValueError(f"timm could not build '{name}': {problems}")
