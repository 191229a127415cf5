"""The networks by name: LGM's published presets, and lgm-mini."""

from __future__ import annotations

from dataclasses import replace

from ...errors import UnknownModelError
from .inputs import PICTURE
from .network import LGMConfig
from .plane_sweep import sweep_planes

BIG = LGMConfig(
    up_channels=(1024, 1024, 512, 256, 128),
    up_attention=(True, True, True, False, False),
    splat_size=128,
    output_size=512,
)
SMALL = LGMConfig()
TINY = LGMConfig(
    down_channels=(32, 64, 128, 256, 512),
    down_attention=(False, False, False, False, True),
    up_channels=(512, 256, 128),
    up_attention=(True, False, False),
)
# 10.5 M parameters, 144 GFLOP for four views. Pixels are folded 4x4 into channels because convolutions at full resolution
# took most of the arithmetic for little; detail reaches the Gaussians directly, through the ray head's input colours.
MINI = LGMConfig(
    in_channels=11,  # rgb 3, alpha 1, known 1, rays 6
    patch=4,
    unpatch=2,
    down_channels=(128, 192, 192),
    down_attention=(False, True, True),
    up_channels=(192, 192, 128),
    up_attention=(True, True, False),
    layers_per_block=1,
    num_heads=None,
    splat_size=128,
    head="ray",
)
# The same at other points of the trade, all below 12 M parameters: finer features (one more level above), four times as many
# splats, a quarter of them.
MINI_FINE = replace(MINI, patch=2, down_channels=(64, 128, 192, 192), down_attention=(False, False, True, True))
MINI_DENSE = replace(MINI, unpatch=4, splat_size=256)
MINI_COARSE = replace(MINI, unpatch=1, splat_size=64)
# A plain transformer of the same size, nearly all of its arithmetic in matrix products: a token for 8 x 8 or 16 x 16 pixels.
MINI_TOKENS = replace(MINI, trunk="tokens", patch=8, unpatch=4, token_width=320, token_layers=8, num_heads=5)
MINI_TOKENS16 = replace(MINI_TOKENS, patch=16, unpatch=8)
# Told what the pictures say about depth along each ray: 32 candidates in four further input channels.
SWEPT = {"candidates": 32, "in_channels": 15}
MINI_SWEEP = replace(MINI, **SWEPT)
MINI_SWEEP_TOKENS = replace(MINI_TOKENS, **SWEPT)
MINI_SWEEP_TOKENS16 = replace(MINI_TOKENS16, **SWEPT)
# Imagines the view from above, too; one more layer in each block.
MINI_DEEP = replace(MINI_SWEEP, slots=5, layers_per_block=2)
# A branch as fine as the Gaussians and a depth on each ray for every 2.4 pixels of a neighbouring picture: outlines.
FINE = {"candidates": 128, "in_channels": PICTURE + sweep_planes(128)}
MINI_DETAIL = replace(MINI_DEEP, slots=4, detail=64, **FINE)
# Told, besides, what the other pictures show 0.08 world units around the depth that the U-Net gives each Gaussian, and whether
# the other slots' surfaces pass there.
MINI_CASCADE = replace(MINI_DETAIL, cascade=16)
# For tests: the same wiring, seconds on a CPU.
DEBUG = replace(
    MINI,
    input_size=32,
    down_channels=(32, 64),
    down_attention=(False, True),
    up_channels=(64, 32),
    up_attention=(True, False),
    splat_size=16,
    output_size=32,
)

DEBUG_TOKENS = replace(DEBUG, trunk="tokens", patch=8, unpatch=4, token_width=64, token_layers=2, num_heads=2)

DEBUG_SWEEP = replace(DEBUG, **SWEPT)

DEBUG_DETAIL = replace(DEBUG_SWEEP, detail=32, **FINE)

DEBUG_CASCADE = replace(DEBUG_DETAIL, cascade=8)

PRESETS: dict[str, LGMConfig] = {
    "big": BIG,
    "small": SMALL,
    "tiny": TINY,
    "mini": MINI,
    "mini-fine": MINI_FINE,
    "mini-dense": MINI_DENSE,
    "mini-coarse": MINI_COARSE,
    "mini-tokens": MINI_TOKENS,
    "mini-tokens16": MINI_TOKENS16,
    "mini-sweep": MINI_SWEEP,
    "mini-sweep-tokens": MINI_SWEEP_TOKENS,
    "mini-sweep-tokens16": MINI_SWEEP_TOKENS16,
    "mini-deep": MINI_DEEP,
    "mini-detail": MINI_DETAIL,
    "mini-cascade": MINI_CASCADE,
    "debug": DEBUG,
    "debug-tokens": DEBUG_TOKENS,
    "debug-sweep": DEBUG_SWEEP,
    "debug-detail": DEBUG_DETAIL,
    "debug-cascade": DEBUG_CASCADE,
}


def preset(name: str) -> LGMConfig:
    """The configuration called ``name``; raises :class:`UnknownModelError` listing the known ones."""
    if name not in PRESETS:
        raise UnknownModelError(f"unknown LGM preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
