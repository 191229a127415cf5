"""Pictures of several frames and views, in either order."""

from __future__ import annotations

import torch
from torch import Tensor

AS_THEY_ARE = (1, 1)


def turn_pictures(x: Tensor, turn: tuple[int, int]) -> Tensor:
    """Pictures [N, ...] ordered (batch, T, V) -> ordered (batch, V, T), for ``turn`` (T, V); channels-last maps stay so."""
    if 1 in turn:
        return x
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return (
            turn_pictures(x.permute(0, 2, 3, 1).flatten(1), turn)
            .unflatten(1, x.shape[2:] + x.shape[1:2])
            .permute(0, 3, 1, 2)
        )
    return x.unflatten(0, (-1, *turn)).transpose(1, 2).flatten(0, 2)  # [batch, T, V, ...] -> [batch, V, T, ...]
