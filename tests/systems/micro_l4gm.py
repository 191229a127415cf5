"""Micro checkpoints of L4GM: the published files' layout (safetensors, the same key names) with tiny networks."""

from __future__ import annotations

from pathlib import Path

import torch
from micro_lgm import MICRO, fill_seeded

from bozzetto.systems.l4gm.network import L4GM


def write_micro_l4gm(folder: Path) -> dict[str, Path]:
    """``recon.safetensors`` and ``interp.safetensors`` in ``folder``: zoo entry name -> file."""
    from bozzetto.systems.lgm.checkpoint import save_lgm

    paths = {}
    for seed, name in enumerate(("recon", "interp")):
        model = L4GM(MICRO)
        fill_seeded(model, seed)
        paths[f"l4gm-{name}"] = Path(folder) / f"{name}.safetensors"
        save_lgm(model, paths[f"l4gm-{name}"], dtype=torch.float32)
    return paths
