"""One update of the weights: clipped gradients, optimiser, moving average; the host never waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Update:
    """Call it when a step's gradients are complete.

    A batch whose gradients are not finite leaves weights and moments as they are: the optimiser is told so by a number on
    the device, which the host need not read.

    Args:
        model: whose parameters ``optimizer``, a fused one, changes.
        averaged: of the same class; its parameters follow those of ``model``.
        clip: largest norm of all gradients together.

    Attributes:
        skipped: updates that were left out, as a number on the device.
    """

    def __init__(self, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> None:
        if not all(group.get("fused") for group in optimizer.param_groups):
            raise ValueError("the optimiser must be a fused one: only those can leave out an update on the device")
        self.parameters, self.averaged = list(model.parameters()), list(averaged.parameters())
        self.optimizer, self.clip = optimizer, clip
        self.skipped = torch.zeros((), device=self.parameters[0].device)

    def __call__(self, average: float | Tensor, gradients: Tensor | None = None) -> Tensor:
        """Norm of the gradients before clipping; they are gone afterwards.

        Args:
            average: share of the old weights in the moving average, 0..1; may be a number on the device.
            gradients: the vector that all gradients are views of, if there is one; they then stay where they are, clipped.
        """
        if gradients is None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        else:
            norm = gradients.norm()
            gradients *= (self.clip / (norm + 1e-6)).clamp_max(1)
        bad = (~torch.isfinite(norm)).float()
        self.optimizer.found_inf = bad  # what torch.amp.GradScaler tells fused optimisers
        self.optimizer.step()
        self.skipped += bad
        with torch.no_grad():
            if isinstance(average, Tensor):
                ahead = torch._foreach_sub(self.parameters, self.averaged)
                torch._foreach_mul_(ahead, 1 - average)
                torch._foreach_add_(self.averaged, ahead)
            else:
                torch._foreach_lerp_(self.averaged, self.parameters, 1 - average)
        if gradients is None:
            self.optimizer.zero_grad(set_to_none=True)
        return norm
