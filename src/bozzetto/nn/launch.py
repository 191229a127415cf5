"""Launches of Triton kernels from small networks, where the host's time for a launch is longer than the kernel's.

Triton works out at every launch which compiled form of a kernel fits the arguments. Here that is remembered by what can
change it (dtypes, alignment, divisibility of sizes), and the compiled kernel is launched directly, as Triton's own tutorials do.
"""

from __future__ import annotations

from typing import Any


def cdiv(a: int, b: int) -> int:
    """Rounded up. (Triton's own takes longer than a launch.)"""
    return -(-a // b)


_compiled: dict[tuple, Any] = {}


def launch(kernel: Any, grid: tuple[int, int, int], args: tuple, constants: tuple, warps: int, stages: int = 3) -> None:
    """Run ``kernel`` (a ``triton.jit`` function) on the current stream.

    Args:
        args: its ordinary arguments: tensors, and numbers.
        constants: its ``constexpr`` arguments, which come last.
    """
    parts: list = [id(kernel), constants, warps, stages, args[0].device]
    address = 0
    for value in args:
        kind = type(value)
        if kind is int:
            parts.append((value == 1) + 2 * (value % 16 == 0) + 4 * (value >= 1 << 31))
        elif kind is not float:
            parts.append(value.dtype)
            address |= value.data_ptr()
    key = tuple(parts) if address % 16 == 0 else None
    made = _compiled.get(key)
    if made is not None:
        made[grid](*args, *constants)
        return
    made = kernel[grid](*args, *constants, num_warps=warps, num_stages=stages)
    if made is not None and key is not None:  # the interpreter makes nothing
        _compiled[key] = made
