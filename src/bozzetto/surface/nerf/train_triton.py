"""The field's training step in lists of samples of a fixed length, so that it can be recorded as a CUDA graph.

How many samples there are depends on the view and on which cells are full. The list is made half as long again as the longest
one of late; when that no longer fits, at the next change of the cells, the step is recorded anew.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...camera import Cameras
from .field import NerfField
from .march import Occupancy
from .march_triton import render_rays_within, sample_rays
from .recorded_step import RecordedStep

SPARE = 1.5
ROUNDED = 1 << 15
NEAREST = 1.5  # distance of the nearest cameras, which see the most samples


class RecordedTraining:
    """Training steps of a field.

    Args:
        spacing: between samples. size: side of the pictures in pixels.
        learn: called as ``learn(rgb, alpha, made rgb, made alpha, variation points)``; takes the optimiser's step.
    """

    def __init__(self, field: NerfField, spacing: float, size: int, learn: Callable[..., None]) -> None:
        self.field, self.spacing, self.size, self.learn = field, spacing, size, learn
        self.room = 0
        self.cells: tuple[Tensor, Tensor] | None = None

    def follow(self, occupancy: Occupancy) -> None:
        """Take over which cells are full; to be called after every change and before the first step."""
        device = occupancy.values.device
        box, full = torch.cat(occupancy.box()), occupancy.full.reshape(-1).to(torch.uint8)
        if self.cells is None:
            self.cells = (box, full)
            self.longest = torch.zeros((), dtype=torch.long, device=device)
            longest = self._first_guess(occupancy)
        else:  # in place: the recording reads these
            self.cells[0].copy_(box)
            self.cells[1].copy_(full)
            longest = int(self.longest)
        self.longest.zero_()
        if longest * 1.1 > self.room or longest * 4 * SPARE < self.room - ROUNDED:
            self.room = -(-int(longest * SPARE + 1) // ROUNDED) * ROUNDED
            self.step = RecordedStep(self._step, device)

    def _first_guess(self, occupancy: Occupancy) -> int:
        camera = Cameras.orbit([30.0], [20.0], NEAREST).to(device=occupancy.values.device, dtype=torch.float32)
        origins, directions = (x.reshape(-1, 3).contiguous() for x in camera.rays(self.size))
        return len(sample_rays(origins, directions, occupancy, self.spacing, torch.zeros_like(origins[:, 0]))[0])

    def _step(
        self, origins: Tensor, directions: Tensor, jitter: Tensor, rgb: Tensor, alpha: Tensor, points: Tensor
    ) -> None:
        made, made_alpha, wanted = render_rays_within(
            self.room, self.field.density, self.field.colour, origins, directions, self.cells, self.spacing, jitter
        )
        torch.maximum(self.longest, wanted, out=self.longest)
        self.learn(rgb, alpha, made, made_alpha, points)
