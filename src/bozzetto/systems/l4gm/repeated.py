"""Views that are the same picture in every frame: what a network does to a picture alone is done to them once.

A reconstruction sees its video from one side; what stands beside and behind is the same in all frames of a chunk. Before the
first attention no picture sees another, and most of the pixels are there: of 16 frames with 4 views, 19 pictures are distinct,
not 64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...nn.moments import Moments, recall, remember


class Repeated(NamedTuple):
    """Clips of ``frames`` frames, each with ``moving`` views of its own and then ``same`` views that all frames share.

    Distinct pictures are ordered: those that move (batch, frame, view), then those that do not (batch, view).
    """

    batch: int
    frames: int
    moving: int
    same: int

    def distinct(self, pictures: Tensor) -> Tensor:
        """[B, T, V, ...] -> the distinct ones [B*T*moving + B*same, ...]; of the others, the first frame's count."""
        return torch.cat([pictures[:, :, : self.moving].flatten(0, 2), pictures[:, 0, self.moving :].flatten(0, 1)])

    def everywhere(self, x: Tensor) -> Tensor:
        """Distinct maps [B*T*moving + B*same, C, H, W] -> all maps [B*T*V, C, H, W], (batch, frame, view), in the same layout.

        Maps that are all there already come back as they are.
        """
        b, t, m, s = self
        if len(x) == b * t * (m + s):
            return x
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            moments = recall(x)
            if moments is not None:
                moments = Moments(*(self.everywhere(part) for part in moments))
            return remember(self.everywhere(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), moments)
        own = x[: b * t * m].reshape(b, t, m, *x.shape[1:])
        shared = x[b * t * m :].reshape(b, 1, s, *x.shape[1:]).expand(b, t, s, *x.shape[1:])
        return torch.cat([own, shared], dim=2).flatten(0, 2)
