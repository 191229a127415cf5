"""Stable Diffusion's network in MVDream's clothes: MVDream grew out of it, so with one view and no camera it is the same.

Published files name its parts in the diffusers way (``UNet2DConditionModel``); here they get the names of the authors' own
code, which are those of :class:`MultiViewUNet`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...nn.layout import for_inference
from ...zoo.libraries import find_weights, read_config
from ...zoo.loading import place_state, read_tensors
from ..mvdream.network import MultiViewUNet, UNetConfig

# What the class behind the published files could be asked for beside this; None: whatever its default is.
_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "addition_embed_type": (None,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "norm_eps": (1e-5,),
    "norm_num_groups": (32,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
}
_KINDS = {"CrossAttnDownBlock2D": True, "CrossAttnUpBlock2D": True, "DownBlock2D": False, "UpBlock2D": False}
_DEFAULT_DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def network_config(config: Mapping[str, Any]) -> UNetConfig:
    """The network's shape from a ``UNet2DConditionModel``'s ``config.json``; :class:`CheckpointError` for other kinds."""
    for key, values in _FIXED.items():
        if key in config and config[key] not in values:
            raise CheckpointError(f"unet/config.json asks for {key}={config[key]!r}; only {values[0]!r} is supported")
    widths = tuple(config.get("block_out_channels", (320, 640, 1280, 1280)))
    down = tuple(config.get("down_block_types", _DEFAULT_DOWN))
    up = tuple(config.get("up_block_types", [kind.replace("Down", "Up") for kind in reversed(down)]))
    if not set(down) | set(up) <= _KINDS.keys() or [_KINDS[k] for k in down] != [_KINDS[k] for k in reversed(up)]:
        raise CheckpointError(f"unet/config.json asks for blocks {down} and {up}, which are not Stable Diffusion's")
    # Its "attention_head_dim" is the number of heads, by an old mistake; 2.x has one number per level, 1.x one for all.
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    heads = (heads,) * len(widths) if isinstance(heads, int) else tuple(heads)
    width = widths[0]
    same_size = len({c // h for c, h in zip(widths, heads)}) == 1
    if len(set(heads)) > 1 and not same_size:
        raise CheckpointError(f"unet/config.json has attention heads {heads} for channels {widths}; not supported")
    if any(c % width for c in widths) or config.get("transformer_layers_per_block", 1) != 1:
        raise CheckpointError(
            "unet/config.json describes a network that is not Stable Diffusion's (SDXL is not supported)"
        )
    return UNetConfig(
        in_channels=int(config.get("in_channels", 4)),
        out_channels=int(config.get("out_channels", 4)),
        model_channels=width,
        num_res_blocks=int(config.get("layers_per_block", 2)),
        channel_mult=tuple(c // width for c in widths),
        attention_resolutions=tuple(2**i for i, kind in enumerate(down) if _KINDS[kind]),
        num_head_channels=widths[0] // heads[0] if same_size else -1,
        num_heads=-1 if same_size else heads[0],
        context_dim=int(config.get("cross_attention_dim", 1280)),
        camera_dim=0,
    )


def network_keys(state: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """``state`` under :class:`MultiViewUNet`'s names; 1x1 convolutions of transformers (1.x) become matrices."""
    attends = [2**level in config.attention_resolutions for level in range(len(config.channel_mult))]
    out = {}
    for key, tensor in state.items():
        new = _rename(key, config.num_res_blocks, attends)
        if tensor.dim() == 4 and re.search(r"\.proj_(in|out)\.weight$", new):
            tensor = tensor.flatten(1)
        out[new] = tensor
    return out


def _rename(key: str, layers: int, attends: Sequence[bool]) -> str:
    """``layers``: residual blocks of a level down; ``attends``: of each level, from the finest, whether it has transformers."""
    for old, new in _ENDS.items():
        if key.startswith(old + "."):
            return new + key[len(old) :]
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", key):
        kind, number, rest = match[1], int(match[2]), match[3]
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{_inside(kind, rest)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", key)
    if match is None:
        return key  # reported by the strict loader
    level, kind, number, rest = int(match[2]), match[3], int(match[4]), match[5]
    if match[1] == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{1 + level * (layers + 1) + number}.{int(kind == 'attentions')}.{_inside(kind, rest)}"
    block = level * (layers + 1)
    if kind == "upsamplers":
        return f"output_blocks.{block + layers}.{1 + attends[len(attends) - 1 - level]}.{rest}"
    return f"output_blocks.{block + number}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    """The rest of a name within a residual block or a transformer (whose inner names agree)."""
    if kind == "attentions":
        return rest
    part, end = rest.rsplit(".", 1)
    return f"{_RESNET.get(part, part)}.{end}"


def load_unet(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> MultiViewUNet:
    """Stable Diffusion's network from ``config.json`` and weights in ``folder`` (diffusers layout), ready for one view.

    Raises:
        CheckpointError: a missing file, weights that do not fit, or a network of another kind.
    """
    config = read_config(folder)
    if "model_channels" in config:
        raise CheckpointError(
            f"{folder.parent} is a multi-view diffusion model (MVDream, ImageDream), not Stable Diffusion; "
            "use it with --prior mvdream --weights mvdream=FOLDER"
        )
    shape = network_config(config)
    with torch.device("meta"):
        unet = MultiViewUNet(shape)
    path = find_weights(folder)
    state = network_keys(read_tensors(path, device), shape)
    return for_inference(place_state(unet, state, str(path), device=device, dtype=dtype))
