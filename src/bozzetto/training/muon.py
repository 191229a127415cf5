"""Muon: momentum whose matrices are made orthogonal before they are applied.

Jordan et al. 2024 ("Muon: an optimizer for hidden layers in neural networks"), with the update scaled to AdamW's usual
size as in Liu et al. 2025 ("Muon is scalable for LLM training", section 2.2), so that both share one learning rate.
Convolution kernels [out, in, kh, kw] are matrices [out, in * kh * kw]. Biases, norms and the first and last layers, for
which it is not meant, take AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz iteration: singular values of the result lie in about 0.7 to 1.2 after five steps.
_A, _B, _C = 3.4445, -4.7750, 2.0315
STEPS = 5
UPDATE_RMS = 0.2  # typical size of an AdamW update, in units of the learning rate


def orthogonalize(matrices: Tensor, steps: int = STEPS) -> Tensor:
    """Nearest (semi-)orthogonal matrices, roughly, of a stack [n, rows, columns]; bf16 on CUDA."""
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups with ``muon=True``, AdamW for the others; one learning rate and schedule for both.

    Args:
        groups: parameter groups as of ``torch.optim``; ``muon`` (bool) and ``weight_decay`` are read per group.
        lr: learning rate.
        betas: of AdamW.
        momentum: of Muon (Nesterov).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "momentum": momentum, "eps": eps, "weight_decay": 0.0})
        for group in self.param_groups:
            group.setdefault("muon", False)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                (self._muon if group["muon"] else self._adamw)(parameters, group)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"], state["mean"], state["square"] = 0, torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
        grads = [p.grad for p in parameters]
        means, squares = ([self.state[p][k] for p in parameters] for k in ("mean", "square"))
        step = self.state[parameters[0]]["step"]
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        size = torch._foreach_sqrt(torch._foreach_div(squares, 1 - beta2**step))
        torch._foreach_add_(size, group["eps"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(parameters, means, size, -group["lr"] / (1 - beta1**step))

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        grads, momenta = [p.grad for p in parameters], [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, momenta, group["momentum"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[torch.Size, list[int]] = {}
        for i, p in enumerate(parameters):
            by_shape.setdefault(p.shape, []).append(i)
        for shape, members in by_shape.items():
            rows, columns = shape[0], shape[1:].numel()
            stack = torch.stack([updates[i].reshape(rows, columns) for i in members])
            scaled = orthogonalize(stack) * (UPDATE_RMS * max(rows, columns) ** 0.5)
            for i, update in zip(members, scaled):
                parameters[i].add_(update.view(shape), alpha=-group["lr"])


def muon_groups(
    model: nn.Module, weight_decay: float, outer: tuple[str, ...] = ("conv_in", "conv_out", "conv.")
) -> list[dict]:
    """Hidden matrices and kernels for Muon; biases, norms and layers whose name contains one of ``outer`` for AdamW."""
    hidden, edges, plain = [], [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            edge = any(f".{o}" in f".{name}" for o in outer)
            (plain if p.ndim <= 1 else edges if edge else hidden).append(p)
    return [
        {"params": hidden, "weight_decay": weight_decay, "muon": True},
        {"params": edges, "weight_decay": weight_decay, "muon": False},
        {"params": plain, "weight_decay": 0.0, "muon": False},
    ]
