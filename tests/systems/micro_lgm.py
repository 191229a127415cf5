"""A micro checkpoint of LGM: the published file's layout (fp16 safetensors, the same key names) with a tiny network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bozzetto.systems.lgm.network import LGM, LGMConfig

# 256 pixels in, as published; every size can be read off the tensors' shapes.
MICRO = LGMConfig(
    down_channels=(32, 32, 32, 32, 32, 64),
    down_attention=(False, False, False, False, False, True),
    up_channels=(64, 32, 32),
    up_attention=(True, False, False),
    layers_per_block=1,
    splat_size=32,
    output_size=256,
)


def fill_seeded(module: nn.Module, seed: int) -> None:
    """Random weights that make small, mostly opaque Gaussians all over the place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            values = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim >= 2:
                tensor.copy_(values / max(tensor[0].numel(), 1) ** 0.5)
            else:
                tensor.copy_(1 + 0.1 * values if name.endswith("weight") else 0.05 * values)
        module.conv.weight.mul_(0.3)
        module.conv.bias[3] += 2.0  # opacity
        module.conv.bias[4:7] -= 3.0  # scale
        module.conv.bias[7] += 2.0  # w of the quaternion


def write_micro_lgm(folder: Path) -> dict[str, Path]:
    """``model_fp16_fixrot.safetensors`` in ``folder``: zoo entry name -> file."""
    from bozzetto.systems.lgm.checkpoint import save_lgm

    model = LGM(MICRO)
    fill_seeded(model, 0)
    path = Path(folder) / "model_fp16_fixrot.safetensors"
    save_lgm(model, path)
    return {"lgm-big": path}
