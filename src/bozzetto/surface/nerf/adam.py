"""The optimiser Adam (Kingma and Ba 2015) without its package: ``torch.optim`` imports torch's compiler at its first use, which
takes longer than a whole stage of the route."""

from __future__ import annotations

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Adam:
    """Steps by the gradients of float32 tensors; may be recorded in a CUDA graph.

    Args:
        groups: tensors and their rate.
    """

    def __init__(self, *groups: tuple[list[Tensor], float]) -> None:
        self.groups = [(list(tensors), rate) for tensors, rate in groups]
        every = [t for tensors, _ in self.groups for t in tensors]
        self.means = {t: torch.zeros_like(t, requires_grad=False) for t in every}
        self.squares = {t: torch.zeros_like(t, requires_grad=False) for t in every}
        # On the device, so that a recorded step counts on.
        self.counts = {t: torch.zeros((), device=t.device) for t in every}

    def clear(self) -> None:
        """Forget the gradients."""
        for tensors, _ in self.groups:
            for tensor in tensors:
                tensor.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move all tensors that have a gradient."""
        for tensors, rate in self.groups:
            own = [t for t in tensors if t.grad is not None]
            if own:
                gradients = [t.grad for t in own]
                means, squares, counts = ([state[t] for t in own] for state in (self.means, self.squares, self.counts))
                torch._foreach_add_(counts, 1)
                kernel = torch._fused_adam_ if own[0].is_cuda and hasattr(torch, "_fused_adam_") else _plain
                kernel(
                    own, gradients, means, squares, [], counts, lr=rate, beta1=BETAS[0], beta2=BETAS[1],
                    weight_decay=0.0, eps=EPSILON, amsgrad=False, maximize=False,
                )  # fmt: skip


def _plain(
    tensors: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    _: list[Tensor],
    counts: list[Tensor],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    **fixed,
) -> None:
    """The same in PyTorch's functions."""
    for tensor, gradient, mean, square, count in zip(tensors, gradients, means, squares, counts, strict=True):
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = square.sqrt().div_((1 - beta2**count).sqrt()).add_(eps)
        tensor.sub_(lr / (1 - beta1**count) * mean / root)
