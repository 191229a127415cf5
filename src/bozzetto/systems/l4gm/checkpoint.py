"""Published checkpoint files -> L4GM networks. The reconstruction and the interpolation model have the same tensors."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import CheckpointError
from ...nn.layout import for_inference
from ...zoo.identify import refuse_other_system
from ...zoo.loading import place_state, read_tensors
from ..lgm.checkpoint import IGNORED_PREFIXES, config_from_shapes
from .network import L4GM


def load_l4gm(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> L4GM:
    """Read ``recon.safetensors`` or ``interp.safetensors`` into a network in evaluation mode, on CUDA in its fastest layout.

    The sizes of the network are read off the tensors' shapes.

    Raises:
        CheckpointError: unreadable file, another system's checkpoint, or missing, unexpected or misshapen tensors.
    """
    tensors = read_tensors(path, device)
    refuse_other_system(path, tensors, "l4gm")
    if not any(".t_attns." in key for key in tensors):
        what = "LGM's" if "unet.conv_in.weight" in tensors else "another network's"
        raise CheckpointError(f"{path} has no attention over time: it is {what} checkpoint, not one of L4GM")
    config = config_from_shapes({k: tuple(v.shape) for k, v in tensors.items()}, str(path))
    with torch.device("meta"):
        model = L4GM(config)
    model = place_state(model, tensors, str(path), IGNORED_PREFIXES, device=device, dtype=dtype)
    return for_inference(model) if torch.device(device).type == "cuda" else model
