"""The published files -> a TripoSR network. The published keys equal our module names."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import CheckpointError
from ...zoo.identify import refuse_other_system
from ...zoo.loading import place_state, read_tensors
from .config import TripoSRConfig, read_config
from .network import TripoSR

CONFIG, WEIGHTS = "config.yaml", "model.ckpt"


def load_triposr(path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> TripoSR:
    """Read TripoSR's folder (``config.yaml`` and ``model.ckpt``), or its weights file, in evaluation mode.

    Args:
        path: the folder or the weights file. Without a ``config.yaml`` beside it, the published configuration is taken.
        dtype: of the transformer. The decoder stays float32: its exponential would overflow half precision.

    Raises:
        CheckpointError: missing or unreadable files, an unsupported configuration, tensors that do not fit it.
    """
    path = Path(path)
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file():
        raise CheckpointError(f"no TripoSR weights at {weights}; the folder must hold {WEIGHTS} and {CONFIG}")
    config_file = weights.parent / CONFIG
    config = read_config(config_file) if config_file.is_file() else TripoSRConfig()
    tensors = read_tensors(weights, device)
    refuse_other_system(weights, tensors, "triposr")
    if "tokenizer.embeddings" not in tensors:
        raise CheckpointError(f"{weights} is no TripoSR checkpoint: it holds no triplane tokens (tokenizer.embeddings)")
    with torch.device("meta"):
        model = TripoSR(config)
    model = model.to(dtype)
    model.decoder.float()
    return place_state(model, tensors, str(weights), device=device)
