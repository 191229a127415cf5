"""Which device to compute on, by the name a user gives; and CUDA's libraries made ready while weights are read."""

from __future__ import annotations

import contextlib
import threading

import torch
import torch.nn.functional as F

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


_warming: dict[torch.device, threading.Thread] = {}
_starting = threading.Lock()


def begin_warm_up(device: torch.device) -> None:
    """Have the libraries for products, convolutions and attention loaded by another thread, once a process and device.

    On a GPU their first use takes half a second together; reading weights leaves the host the time for it.
    """
    if device.type != "cuda":
        return
    with _starting:
        if device not in _warming:
            other = threading.Thread(target=_first_uses, args=(device,), name="bozzetto-warm-up")
            other.start()
            _warming[device] = other  # started: who finds it here may wait for it


def end_warm_up(device: torch.device) -> None:
    """Wait for what :func:`begin_warm_up` began: from here on nothing runs on the device that the caller did not ask for."""
    if device in _warming:
        _warming[device].join()


def _first_uses(device: torch.device) -> None:
    # A device that fails here fails again where it is used, and there it is reported.
    with contextlib.suppress(Exception), torch.inference_mode():
        x = torch.zeros(1, 64, 64, 64, device=device, dtype=torch.float16).to(memory_format=torch.channels_last)
        weight = torch.zeros(64, 64, 3, 3, device=device, dtype=torch.float16).to(memory_format=torch.channels_last)
        F.conv2d(x, weight, padding=1)
        x[0, 0] @ x[0, 0]
        heads = x.contiguous()
        F.scaled_dot_product_attention(heads, heads, heads)
        torch.cuda.synchronize(device)
