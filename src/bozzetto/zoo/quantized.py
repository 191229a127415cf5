"""Weights as 8-bit integers in a ``.safetensors`` file: half the size of fp16, at about the same quality.

A large weight is stored under its own name as int8, and beside it, under its name and ``.int8_scale``, one float32 for each
index of its first axis (each output channel of a convolution or a linear layer): their product is the weight. All other
tensors are stored as they are. The file's metadata say ``quantization: int8-per-channel``. Only files are quantised: who
loads one gets floating-point tensors of the usual names and shapes, so a network computes with them as with any others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import CheckpointError

MARK = "quantization"  # key of the metadata
LAYOUT = "int8-per-channel"
SUFFIX = ".int8_scale"

_LEAST_ELEMENTS = 4096  # smaller tensors would save next to nothing
_LEAST_CHANNELS = 8  # of fewer (a learnt table of positions has one) a scale would have to serve too many numbers
_CLIP_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)  # of a channel's largest magnitude, what becomes 127
_SHOWN = 8

Value = TypeVar("Value")


def is_large(tensor: Tensor) -> bool:
    """Whether a tensor is stored as int8: floating point, two or more axes, 4096 or more elements, 8 or more channels."""
    return (
        tensor.is_floating_point()
        and tensor.ndim >= 2
        and tensor.numel() >= _LEAST_ELEMENTS
        and len(tensor) >= _LEAST_CHANNELS
    )


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 numbers of a weight's shape and a float32 scale [C] for each index of its first axis.

    Of each channel, the scale has the least squared error that several clips of its largest magnitudes give, each refined
    once by least squares for the integers it leads to. A channel with NaN or infinity gets a scale that is not finite, so that
    the loader sees the damage.
    """
    rows = weight.detach().float().flatten(1)  # [C, N]
    largest = rows.abs().amax(1, keepdim=True)  # [C, 1]
    scale, least = largest / 127, torch.full_like(largest, float("inf"))
    for ratio in _CLIP_RATIOS:
        integers = _round(rows, largest * (ratio / 127))
        # The scale for which these integers come nearest: their product with the weights over their own square.
        fit = (rows * integers).sum(1, keepdim=True) / integers.square().sum(1, keepdim=True).clamp_min(1)
        error = (rows - fit * _round(rows, fit)).square().sum(1, keepdim=True)
        better = error < least  # never for NaN
        scale, least = torch.where(better, fit, scale), torch.where(better, error, least)
    return _round(rows, scale).nan_to_num(0).to(torch.int8).view(weight.shape), scale.flatten()


def _round(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows / torch.where(scale == 0, 1.0, scale)).round_().clamp_(-127, 127)


def without_scales(stored: Mapping[str, Value]) -> dict[str, Value]:
    """What is stored under the names of a network's tensors: all but the scales that stand beside a weight."""
    return {k: v for k, v in stored.items() if not (k.endswith(SUFFIX) and k.removesuffix(SUFFIX) in stored)}


def dequantised(
    stored: Mapping[str, Tensor], metadata: Mapping[str, str], source: str, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A file's tensors with the quantised ones as floating point; any other file's are returned as they are.

    Args:
        stored, metadata: of the file; each weight is multiplied where its integers are.
        source: what to call the file in messages.
        dtype: of the weights that were quantised; None is float32. Their products are made in float32.

    Raises:
        CheckpointError: the file is quantised in a way that is not known here, or a weight or its scales are not there or do
            not belong together.
    """
    layout = metadata.get(MARK)
    scaled = [k.removesuffix(SUFFIX) for k in stored if k.endswith(SUFFIX)]
    if layout is None and not scaled:
        return dict(stored)
    if layout not in (None, LAYOUT):
        raise CheckpointError(f"{source} is quantised as {layout!r}, which this version cannot read; update bozzetto")
    integers = [k for k, v in stored.items() if v.dtype == torch.int8]
    lost = sorted(set(integers) - set(scaled))
    alone = sorted(set(scaled) - set(integers))
    wrong = [
        f"{k} {tuple(stored[k + SUFFIX].shape)} of {tuple(stored[k].shape)}"
        for k in sorted(set(integers) & set(scaled))
        if stored[k + SUFFIX].shape != stored[k].shape[:1] or not stored[k + SUFFIX].is_floating_point()
    ]
    problems = [
        text
        for text in (
            _listed("weights without their scales", lost),
            _listed("scales without their int8 weights", alone),
            _listed("scales that do not fit their weights", wrong),
        )
        if text
    ]
    if problems:
        raise CheckpointError(
            f"{source} is a damaged or half file of 8-bit weights; {'; '.join(problems)}; get it again"
        )
    out = without_scales(stored)
    for name in scaled:
        weight = stored[name].float()
        scale = stored[name + SUFFIX].float()
        out[name] = weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1))).to(dtype or torch.float32)
    return out


def _listed(what: str, names: Iterable[str]) -> str:
    """ "2 scales without their int8 weights: a, b", or nothing where there are none."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}" if names else ""
