"""Moments of maps per channel, for chunks of pixels: made by the kernel that writes a map, used by the group norm that reads it.

They travel with the map, as an attribute of the tensor object; such a map must not be changed in place.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 128  # pixels
LARGE = 1024  # pixels of a map from which a norm gains by them (1,024 channels of 16 x 16: 50 us with, 49 without)


class Moments(NamedTuple):
    """Means, and sums of squared distances from them, of chunks of :data:`CHUNK` pixels: [N, chunks, C] each, float32."""

    means: Tensor
    m2s: Tensor

    @classmethod
    def empty(cls, x: Tensor) -> Moments:
        """For a map [N, C, H, W], H * W a multiple of :data:`CHUNK`."""
        n, c, h, w = x.shape
        return cls(*torch.empty((2, n, h * w // CHUNK, c), dtype=torch.float32, device=x.device).unbind(0))


def remember(x: Tensor, moments: Moments | None) -> Tensor:
    """Let ``moments`` travel with the map ``x``, which is returned."""
    if moments is not None:
        x._moments = moments
    return x


def recall(x: Tensor) -> Moments | None:
    """What :func:`remember` gave to this very tensor."""
    return getattr(x, "_moments", None)
