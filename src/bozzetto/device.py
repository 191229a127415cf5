"""Which device to compute on, by the name a user gives."""

from __future__ import annotations

import torch

from .errors import InputError


def pick_device(device: str) -> torch.device:
    """ "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N"; raises :class:`InputError` for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda") and not device.startswith("cuda:"):
        raise InputError(f"device must be auto, cpu or cuda, got {device!r}")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this torch sees no CUDA device; use --device cpu (or auto)")
    return chosen
