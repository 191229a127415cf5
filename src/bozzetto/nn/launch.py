"""Launches of Triton kernels from small networks, where the host's time for a launch is longer than the kernel's.

Triton works out at every launch which compiled form of a kernel fits the arguments. Here that is remembered by what can
change it (dtypes, alignment, divisibility of sizes), and the compiled kernel's launcher is called directly.
"""

from __future__ import annotations

from typing import Any

import torch
import triton

# Since Triton 3.3, launchers are given the constants too.
_CONSTANTS = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 3)


def cdiv(a: int, b: int) -> int:
    """Rounded up. (Triton's own takes longer than a launch.)"""
    return -(-a // b)


_compiled: dict[tuple, tuple[Any, Any, Any]] = {}  # what can change the binary -> launcher, function, numbers for it


def launch(
    kernel: Any,
    grid: tuple[int, int, int],
    args: tuple,
    constants: tuple,
    warps: int,
    stages: int = 3,
    registers: int | None = None,
) -> None:
    """Run ``kernel`` (a ``triton.jit`` function) on the current stream.

    Args:
        args: its ordinary arguments: tensors, of which the first is on the current device, and numbers.
        constants: its ``constexpr`` arguments, which come last.
        registers: how many a thread may have; None leaves it to the compiler. Of one kernel, always the same.
    """
    device = args[0].device.index
    parts: list = [id(kernel), constants, warps, stages, device]
    address = 0
    for value in args:
        kind = type(value)
        if kind is int:
            parts.append((value == 1) + 2 * (value % 16 == 0) + 4 * (value >= 1 << 31))
        elif kind is not float:
            parts.append(value.dtype)
            address |= value.data_ptr()
    key = tuple(parts) if address % 16 == 0 and device is not None else None
    made = _compiled.get(key)
    if made is not None:
        run, function, numbers = made
        stream = torch._C._cuda_getCurrentRawStream(device)
        run(*grid, stream, function, numbers, None, None, None, *args, *(constants if _CONSTANTS else ()))
        return
    options = {} if registers is None else {"maxnreg": registers}
    compiled = kernel[grid](*args, *constants, num_warps=warps, num_stages=stages, **options)
    if compiled is not None and key is not None:  # the interpreter makes nothing
        _compiled[key] = (compiled.run, compiled.function, compiled.packed_metadata)
