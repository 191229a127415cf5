"""Processes that train together decide together: when to stop, and what the clock says."""

from __future__ import annotations

import torch
import torch.distributed as dist


class Agreement:
    """One answer for all processes, from what each said at the call before: no host waits until its device is idle.

    All processes must call it at the same steps. A single process hears what it has just said.

    Args:
        elapsed: what the clock of all processes says at first.
    """

    def __init__(self, world: int, device: torch.device, elapsed: float) -> None:
        self.world, self.device, self._heard = world, device, (False, elapsed)
        self._asked = torch.zeros(2, dtype=torch.float64, pin_memory=device.type == "cuda")
        self._event: torch.cuda.Event | None = None

    def __call__(self, stop: bool, elapsed: float) -> tuple[bool, float]:
        """Whether any process wanted to stop, and the latest of their clocks."""
        if self.world == 1:
            return stop, elapsed
        if self._event is not None:
            self._event.synchronize()
        heard = self._heard if self._asked[1] == 0 else (bool(self._asked[0]), float(self._asked[1]))
        value = torch.tensor([float(stop), max(elapsed, 1e-9)], dtype=torch.float64)
        if self.device.type == "cuda":
            value = value.pin_memory().to(self.device, non_blocking=True)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        self._asked.copy_(value, non_blocking=True)
        if self.device.type == "cuda":
            self._event = torch.cuda.Event()
            self._event.record()
        return heard
