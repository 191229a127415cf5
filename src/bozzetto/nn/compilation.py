"""All kernels that a network will need, compiled side by side before its first call, instead of one after another in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from . import backend

THREADS = 8
_done: set[tuple] = set()


def compile_kernels(
    device: torch.device,
    dtype: torch.dtype,
    narrow_attention: bool = False,
    more: Callable[[torch.device, torch.dtype], list[Callable[[], object]]] | None = None,
) -> None:
    """Compile what inference in half precision uses, or read it from Triton's cache; the second call does nothing.

    Where that fails (Triton wants a C compiler, for its launchers), a warning and ``backend.failure`` say why, and plain PyTorch
    runs from then on.

    Args:
        narrow_attention: also attention with 32 channels a head.
        more: (device, dtype) -> launches of other kernels that the network uses.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or backend.kernels() is None:
        return
    if ((device, dtype, narrow_attention) in _done and more is None) or backend.failure is not None:
        return

    def run(task: Callable[[], object]) -> None:
        with torch.cuda.device(device), torch.no_grad():  # threads have their own
            task()

    try:
        with torch.cuda.device(device), torch.no_grad():
            narrow = narrow_attention and torch.cuda.get_device_capability(device) >= (9, 0)
            tasks = first_launches(device, dtype, narrow) + ([] if more is None else more(device, dtype))
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(run, tasks))
        torch.cuda.synchronize(device)
    except Exception as error:  # whatever the compiler, its cache or the driver may raise
        backend.failure = f"Triton's kernels are not used: {type(error).__name__}: {error}"
        warnings.warn(f"networks run without the fast kernels, slower. {backend.failure}", stacklevel=2)
    _done.add((device, dtype, narrow_attention))


def first_launches(device: torch.device, dtype: torch.dtype, narrow_attention: bool) -> list[Callable[[], object]]:
    """One launch of each kernel that the U-Nets have in common, on small zeros."""
    norm, _, residual, upsample = backend.kernels()

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)

    x, few, large, z = zeros(1, 64, 3, 3), zeros(1, 14, 3, 3), zeros(1, 16, 256, 512), zeros(1, 256, 3, 3)
    bias = x[0, :, 0, 0]
    inputs = torch.zeros((1, 9, 16, 16), device=device, dtype=dtype)
    tasks: list[Callable[[], object]] = norm.first_launches(device, dtype)
    tasks += [
        lambda: residual.add_scaled(x, x, bias, 64, 1.0),
        lambda: residual.add_scaled(large, large, bias[:16], 16, 1.0, moments=True),
        lambda: residual.add_bias(x, bias),
        lambda: residual.add_bias(few, few[0, :, 0, 0]),
        lambda: residual.add_bias(large, bias[:16], moments=True),
        lambda: upsample.interleave(z, bias),
        lambda: backend.pad_kernel().pad(inputs, 16),
        lambda: backend.pad_kernel().pad(inputs.contiguous(memory_format=torch.channels_last), 16),
    ]
    if narrow_attention:
        qkv = torch.zeros((1, 128, 3, 16, 32), device=device, dtype=dtype)
        tasks.append(lambda: backend.attention_kernel().attention(qkv))
    return tasks
