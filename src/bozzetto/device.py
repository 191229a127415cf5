"""Which device to compute on, by the name a user gives."""

from __future__ import annotations

import torch

from .errors import InputError


def pick_device(device: str) -> torch.device:
    """ "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N"; raises :class:`InputError` for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda") and not (isinstance(device, str) and device.startswith("cuda:")):
        raise InputError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
    number = device.partition(":")[2]
    if ":" in device and not number.isdecimal():
        raise InputError(f"device must be cuda:N with a number N, got {device!r}")
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise InputError(f"--device {device}: this torch sees no CUDA device; use --device cpu (or auto)")
        if number and int(number) >= count:
            raise InputError(f"--device {device}: this torch sees {count} CUDA device(s), the first is cuda:0")
    return torch.device(device)
