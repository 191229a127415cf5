"""Launching kernels with little work on the host.

Triton looks at every argument of every launch to find the binary that fits. A rasterizer of ten short kernels spends more
time there than on the device, so a :class:`Launcher` keeps the binary of its first launch and hands it the arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from .triton_memory import Piece

VERSION = tuple(int(part) for part in re.findall(r"\d+", triton.__version__)[:2])
ALIGNMENT = 16  # bytes; what binaries assume of every pointer


class Launcher:
    """One kernel with fixed compile-time constants, to be called as ``launcher(programs, *arguments)``.

    A binary fits every launch whose arguments have the same types, so there is one launcher for each combination of
    dtypes. Tensors may be pieces of memory (:class:`.triton_memory.Piece`); those that are must be so in every launch. They must
    begin at multiples of 16 bytes (:func:`aligned`), integers must fit 32 bits, and the kernel must not specialise on them.

    Args:
        kernel: a ``triton.jit`` function; in its signature the constants come last.
        constants: values of those, in the order of the signature.
        options: num_warps and the like.
    """

    def __init__(self, kernel: Any, constants: dict[str, int], **options: int | None) -> None:
        self.kernel, self.constants = kernel, constants
        self.options = {name: value for name, value in options.items() if value is not None}
        self.trailing = tuple(constants.values()) if VERSION >= (3, 3) else ()  # since 3.3 launches name constants too
        # By device: what launches, and what it gets before the arguments.
        self.binaries: dict[int, tuple[Callable, tuple]] = {}
        self.pieces: tuple[int, ...] = ()  # which arguments they are
        self.tensors: tuple[int, ...] = ()
        self.interpreted = not isinstance(kernel, triton.JITFunction)
        names = getattr(kernel, "arg_names", [])
        if names[len(names) - len(constants) :] != list(constants):
            raise ValueError(f"{kernel} must end with the constants {', '.join(constants)}")

    def __call__(self, programs: int, *arguments: Any) -> None:
        """Launch on the current device and stream. Nothing is launched for 0 programs."""
        if programs == 0:
            return
        if self.interpreted:
            self.kernel[(programs,)](*map(_tensor, arguments), **self.constants)
            return
        device = torch._C._cuda_getDevice()
        binary = self.binaries.get(device)
        if binary is None:
            compiled = self.kernel[(programs,)](*map(_tensor, arguments), **self.constants, **self.options)
            if all(hasattr(compiled, name) for name in ("run", "function", "packed_metadata")):
                self.pieces = tuple(i for i, a in enumerate(arguments) if isinstance(a, Piece))
                self.tensors = tuple(i for i, a in enumerate(arguments) if isinstance(a, Tensor))
                self.binaries[device] = _ready(compiled)
            return
        run, head = binary
        numbers = list(arguments)
        for i in self.pieces:
            numbers[i] = numbers[i].address
        for i in self.tensors:
            numbers[i] = numbers[i].data_ptr()
        stream = torch._C._cuda_getCurrentRawStream(device)
        run(programs, 1, 1, stream, *head, *numbers, *self.trailing)


def _ready(compiled: Any) -> tuple[Callable, tuple]:
    """What launches a compiled kernel, called with the grid, the stream, what comes second here, and the kernel's arguments."""
    run, hooks = compiled.run, (compiled.packed_metadata, None, None, None)
    if (
        VERSION == (3, 6)
        and type(run).__name__ == "CudaLauncher"
        and not (run.global_scratch_size or run.profile_scratch_size)
    ):  # Triton's Python around it would only find that there is no scratch memory to be had
        return run.launch, (compiled.function, run.launch_cooperative_grid, run.launch_pdl, None, None, *hooks)
    return run, (compiled.function, *hooks)


def _tensor(argument: Any) -> Any:
    return argument.tensor() if type(argument) is Piece else argument


def aligned(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy if it does not begin at a multiple of 16 bytes."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()
