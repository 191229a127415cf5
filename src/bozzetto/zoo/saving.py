"""A network's weights -> a ``.safetensors`` file in a precision of choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..files.atomic import atomic_path
from .quantized import LAYOUT, MARK, SUFFIX, is_large, quantise

PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32, "int8": torch.int8}  # by the names that users give
_SHOWN = 8


def save_weights(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    metadata: Mapping[str, object] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a state dict as ``.safetensors``, atomically.

    Args:
        metadata: anything that JSON can say, by name; what is no text is written as JSON.
        dtype: of the floating-point tensors. ``torch.int8`` stores the large ones as 8-bit integers with scales
            (``quantized.py``), half the size of fp16, and the others as fp16. Tensors of whole numbers stay as they are.

    Raises:
        InputError: a number is too large for fp16.
        ValueError: another dtype than fp16, bf16, fp32 or int8.
    """
    from safetensors.torch import save_file

    if dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.int8):
        raise ValueError(f"weights are saved as float16, bfloat16, float32 or int8, got {dtype}")
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    text.pop(MARK, None)  # of the file that they were read from
    if dtype == torch.int8:
        text[MARK] = LAYOUT
    small = torch.float16 if dtype == torch.int8 else dtype
    stored, overflowing = {}, []
    for name, tensor in tensors.items():
        if dtype == torch.int8 and is_large(tensor):
            stored[name], stored[name + SUFFIX] = (t.cpu() for t in quantise(tensor))
            continue
        wanted = small if tensor.is_floating_point() else tensor.dtype
        stored[name] = tensor.detach().to("cpu", wanted, copy=True).contiguous()
        if stored[name].isinf().any() and not tensor.isinf().any():
            overflowing.append(name)
    if overflowing:
        more = f" and {len(overflowing) - _SHOWN} more" if len(overflowing) > _SHOWN else ""
        raise InputError(
            f"{path} cannot hold these weights as {str(small).removeprefix('torch.')}: too large are numbers of "
            f"{', '.join(overflowing[:_SHOWN])}{more}; use fp32"
        )
    with atomic_path(Path(path)) as temporary:
        temporary.touch()  # with the permissions of any new file; safetensors' own are private to the user
        mode = temporary.stat().st_mode
        save_file(stored, temporary, metadata=text)
        temporary.chmod(mode)
