"""Muon: momentum whose matrices are made nearly orthogonal before they are added, so that every direction learns alike.

After Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; scaled as by Liu et al. 2025, "Muon is
scalable for LLM training" (arXiv 2502.16982): an update's root mean square is that of a usual AdamW step, so one learning
rate and one weight decay serve both. Matrices and kernels of inner layers take it; the first and the last layer, biases and
norms take AdamW.

Equal shapes are stacked and handled at once, and what AdamW takes lies in one vector. On a GPU the iteration takes matrices of
similar shapes together, padded by zeros, which stay zeros: its products are so small that their number counts more than their
size. Where all of it is recorded as a CUDA graph, the remaining groups are handled side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError

BRANCHES = 4  # of a recording, that run side by side
LEAST_SIDE = 32  # of a matrix worth making orthogonal
UPDATE_RMS = 0.2  # of a usual AdamW step before the learning rate
ROUNDS = 5
LAUNCHES = 1e10  # operations that a GPU does in the time of the launches of one more group
QUINTIC = (3.4445, -4.7750, 2.0315)  # brings singular values to about 0.7 .. 1.2 in ROUNDS rounds, steeply from near 0


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [..., m, n] with all singular values brought near 1 (0.7 to 1.2), by Newton and Schulz's iteration in bfloat16
    where there is a GPU.
    """
    return orthogonalised_together([matrices.reshape(-1, *matrices.shape[-2:])])[0].reshape(matrices.shape)


def orthogonalised_together(stacks: Sequence[Tensor]) -> list[Tensor]:
    """:func:`orthogonalised` of several stacks [k, m, n] as one, padded to the size of the largest."""
    a, b, c = QUINTIC
    wide = [s if s.shape[1] <= s.shape[2] else s.mT for s in stacks]
    counts = [len(s) for s in wide]
    dtype = torch.bfloat16 if stacks[0].is_cuda else torch.float32
    size = (sum(counts), max(s.shape[1] for s in wide), max(s.shape[2] for s in wide))
    x = torch.zeros(size, dtype=dtype, device=stacks[0].device)
    for part, s in zip(x.split(counts), wide):
        part[:, : s.shape[1], : s.shape[2]] = s
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.float32)
    x = x / (norm + 1e-7).to(dtype)
    for _ in range(ROUNDS):  # a x + (b g + c g g) x with g = x x^T, three launches
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    parts = [part[:, : s.shape[1], : s.shape[2]] for part, s in zip(x.split(counts), wide)]
    return [(p if w is s else p.mT).to(s.dtype) for p, w, s in zip(parts, wide, stacks)]


def taken_together(shapes: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """Which stacks [k, m, n] a GPU takes together: pairs are joined while that saves more launches than it costs operations."""
    sizes = [(k, min(m, n), max(m, n)) for k, m, n in shapes]
    groups = [[i] for i in range(len(sizes))]

    def operations(group: list[int]) -> int:
        chosen = [sizes[i] for i in group]
        m, n = max(s[1] for s in chosen), max(s[2] for s in chosen)
        return ROUNDS * sum(s[0] for s in chosen) * (4 * m * m * n + 2 * m**3)

    while len(groups) > 1:
        pairs = [(i, j) for j in range(len(groups)) for i in range(j)]
        more = [operations(groups[i] + groups[j]) - operations(groups[i]) - operations(groups[j]) for i, j in pairs]
        least = min(range(len(pairs)), key=more.__getitem__)
        if more[least] > LAUNCHES:
            break
        i, j = pairs[least]
        groups[i] += groups.pop(j)
    return groups


def as_rows(x: Tensor) -> Tensor:
    """A matrix as it is; a kernel [out, in, h, w] as [out, h, w, in], which for channels-last ones is how it lies in memory."""
    return x.permute(0, *range(2, x.ndim), 1) if x.ndim > 2 else x


@cache
def _branches() -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream() for _ in range(BRANCHES)]


class Muon(torch.optim.Optimizer):
    """The optimiser of the module's text.

    Like PyTorch's fused ones it heeds ``found_inf``: where that number on the device is 1, weights and moments stay.

    Args:
        model: whose parameters that need a gradient are optimised.
        edges: names of modules of ``model`` whose matrices AdamW takes.
        lr: learning rate of both. weight_decay: of matrices and kernels of both. betas: AdamW's. momentum: Muon's.
    """

    def __init__(
        self,
        model: nn.Module,
        edges: Sequence[str] = (),
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
    ) -> None:
        inner, outer, plain = [], [], []
        for name, p in model.named_parameters():
            if not p.requires_grad:
                continue
            small = p.ndim > 1 and min(len(p), p[0].numel()) < LEAST_SIDE
            at_edge = any(name.startswith(edge + ".") for edge in edges)
            (plain if p.ndim <= 1 else outer if small or at_edge else inner).append(p)
        groups = [
            {"params": inner, "weight_decay": weight_decay, "kind": "muon"},
            {"params": outer, "weight_decay": weight_decay, "kind": "adamw"},
            {"params": plain, "weight_decay": 0.0, "kind": "adamw"},
        ]
        groups = [g for g in groups if g["params"]]
        super().__init__(groups, {"lr": lr, "betas": betas, "momentum": momentum, "fused": True})
        self.found_inf: Tensor | None = None
        self._stacks: list[list[nn.Parameter]] = list(self._by_shape(inner))
        shapes = [(len(s), len(s[0]), s[0][0].numel()) for s in self._stacks]
        on_gpu = bool(inner) and inner[0].is_cuda
        self._groups = taken_together(shapes) if on_gpu else [[i] for i in range(len(shapes))]
        with torch.no_grad():
            self._momenta = [torch.zeros_like(torch.stack([as_rows(p).contiguous() for p in s])) for s in self._stacks]
            vectors = [torch.cat([as_rows(p).flatten() for p in g["params"]]) for g in self._adamw_groups()]
            self._first, self._second = [torch.zeros_like(v) for v in vectors], [torch.zeros_like(v) for v in vectors]
        self._steps = torch.zeros((), device=next(model.parameters()).device)

    def _adamw_groups(self) -> list[dict[str, Any]]:
        return [g for g in self.param_groups if g["kind"] == "adamw"]

    @staticmethod
    def _by_shape(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
        found: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for p in parameters:
            found.setdefault(tuple(p.shape), []).append(p)
        return list(found.values())

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update from the parameters' gradients, all of which must be there."""
        good = torch.ones_like(self._steps) if self.found_inf is None else 1 - self.found_inf
        self._steps += good
        for group in self.param_groups:
            if group["kind"] == "muon":
                self._muon(group, good)
        for group, first, second in zip(self._adamw_groups(), self._first, self._second):
            self._adamw(group, first, second, good)

    def _muon(self, group: dict[str, Any], good: Tensor) -> None:
        keep, lr = group["momentum"], group["lr"]
        share, step = (1 - keep) * good, -lr * good
        rows, changes = [], []
        recording = good.is_cuda and torch.cuda.is_current_stream_capturing()
        here, branches = (torch.cuda.current_stream(), _branches()) if recording else (None, [None])
        for branch in branches if recording else []:
            branch.wait_stream(here)
        for i, group_of_stacks in enumerate(self._groups):
            with torch.cuda.stream(branches[i % len(branches)]):  # None: where we are
                changes += self._changes(group_of_stacks, keep, share, step)
            rows += [as_rows(p) for number in group_of_stacks for p in self._stacks[number]]
        for branch in branches if recording else []:
            here.wait_stream(branch)
        torch._foreach_mul_(rows, 1 + group["weight_decay"] * step)
        torch._foreach_add_(rows, changes)

    def _changes(self, numbers: list[int], keep: float, share: Tensor, step: Tensor) -> list[Tensor]:
        """What is added to the parameters of these stacks, as rows; changes their momenta."""
        ahead = []
        for number in numbers:
            momentum = self._momenta[number]
            gradient = torch.stack([as_rows(p.grad) for p in self._stacks[number]])
            torch.nan_to_num_(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            momentum.lerp_(gradient, share)
            ahead.append(torch.lerp(gradient, momentum, keep).flatten(2))  # Nesterov's; [k, out, ... in]
        changes: list[Tensor] = []
        for number, made in zip(numbers, orthogonalised_together(ahead)):
            size = UPDATE_RMS * max(made.shape[1:]) ** 0.5
            changes += (made * (size * step)).view_as(self._momenta[number]).unbind()
        return changes

    def _adamw(self, group: dict[str, Any], first: Tensor, second: Tensor, good: Tensor) -> None:
        rows = [as_rows(p) for p in group["params"]]
        gradient = torch.cat([as_rows(p.grad).flatten() for p in group["params"]])
        torch.nan_to_num_(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        (beta1, beta2), lr = group["betas"], group["lr"]
        first.lerp_(gradient, (1 - beta1) * good)
        second.lerp_(gradient.square(), (1 - beta2) * good)
        count = self._steps.clamp_min(1)
        mean, spread = first / (1 - beta1**count), second / (1 - beta2**count)
        change = mean / (spread.sqrt() + 1e-8) * (-lr * good)
        parts = [c.view(r.shape) for c, r in zip(change.split([r.numel() for r in rows]), rows)]
        if group["weight_decay"]:
            torch._foreach_mul_(rows, 1 - lr * group["weight_decay"] * good)
        torch._foreach_add_(rows, parts)

    def moments(self) -> list[Tensor]:
        """All running means, and the number of steps."""
        return [*self._momenta, *self._first, *self._second, self._steps]

    def state_dict(self) -> dict[str, Any]:
        """Moments and settings; the order of parameters is the model's."""
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]
        moments = {"muon": self._momenta, "first": self._first, "second": self._second, "steps": self._steps}
        return {"param_groups": groups, "moments": moments}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What :meth:`state_dict` gave, into an optimiser of the same model; of another: :class:`CheckpointError`."""
        moments = state_dict.get("moments")
        own = {"muon": self._momenta, "first": self._first, "second": self._second, "steps": [self._steps]}
        if moments is None or any(k not in moments for k in own):
            raise CheckpointError(
                "the moments in this checkpoint are not Muon's; resume with the optimiser of the first start"
            )
        for name, targets in own.items():
            saved = [moments[name]] if name == "steps" else moments[name]
            if [x.shape for x in saved] != [x.shape for x in targets]:
                raise CheckpointError("the moments in this checkpoint belong to another network")
            for target, value in zip(targets, saved):
                target.copy_(value)
