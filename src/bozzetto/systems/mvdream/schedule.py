"""Noise schedules and samplers, small and pure, so that score distillation can use them too.

Notation of the field: ``x_t = alpha_t x_0 + sigma_t eps``, ``alpha_t^2 = alphas_cumprod[t]``, ``sigma_t^2 = 1 - alpha_t^2``.
A solver is a frozen object with the list of its ``timesteps`` and a function ``step(index, x, eps, memory)`` that returns the
next ``x`` and what the next step must remember; nothing is kept inside, so one solver may serve many samples.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, InputError


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Stable Diffusion's "scaled linear" schedule: the square roots of the betas are equally spaced.

    Attributes:
        betas, alphas_cumprod: float32 tensors [num_train_timesteps] on the CPU.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_train_timesteps: int = 1000
    steps_offset: int = 1  # added to every timestep of DDIM's spacing
    final_alpha_one: bool = False  # alpha_bar "before" timestep 0: 1, or (published) that of timestep 0
    betas: Tensor = field(init=False, repr=False)
    alphas_cumprod: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        roots = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_train_timesteps, dtype=torch.float32)
        object.__setattr__(self, "betas", roots**2)
        object.__setattr__(self, "alphas_cumprod", torch.cumprod(1.0 - self.betas, dim=0))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """From a diffusers ``scheduler_config.json``; raises :class:`CheckpointError` for kinds of schedule that differ."""
        for key, wanted in (("beta_schedule", "scaled_linear"), ("prediction_type", "epsilon"), ("clip_sample", False)):
            if config.get(key, wanted) != wanted:
                raise CheckpointError(
                    f"scheduler_config.json asks for {key}={config[key]!r}; only {wanted!r} is supported"
                )
        return cls(
            float(config.get("beta_start", 0.00085)),
            float(config.get("beta_end", 0.012)),
            int(config.get("num_train_timesteps", 1000)),
            int(config.get("steps_offset", 1)),
            bool(config.get("set_alpha_to_one", False)),
        )

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``x_t`` from clean ``x0`` [B, ...], ``noise`` (same shape) and integer ``timesteps`` [B]."""
        alphas_cumprod = self.alphas_cumprod.to(x0.device)[timesteps.to(x0.device)]
        shape = (-1,) + (1,) * (x0.dim() - 1)
        alpha, sigma = alphas_cumprod.sqrt().view(shape), (1 - alphas_cumprod).sqrt().view(shape)
        return alpha.to(x0.dtype) * x0 + sigma.to(x0.dtype) * noise


def predict_x0(x: Tensor, eps: Tensor, alpha_cumprod: float) -> Tensor:
    """The clean sample that ``x`` would come from if its noise were ``eps``."""
    return (x - math.sqrt(1 - alpha_cumprod) * eps) / math.sqrt(alpha_cumprod)


def ddim_update(x: Tensor, eps: Tensor, alpha_cumprod: float, alpha_cumprod_next: float) -> Tensor:
    """One deterministic step (eta 0) of DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12)."""
    x0 = predict_x0(x, eps, alpha_cumprod)
    return math.sqrt(alpha_cumprod_next) * x0 + math.sqrt(1 - alpha_cumprod_next) * eps


def _check_steps(steps: int, schedule: NoiseSchedule) -> None:
    most = schedule.num_train_timesteps - schedule.steps_offset
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= most:
        raise InputError(f"steps must be a whole number from 1 to {most}, got {steps!r}")


@dataclass(frozen=True)
class DDIM:
    """DDIM with eta 0 and the published "leading" spacing: equal strides from the schedule's start, moved by ``steps_offset``."""

    schedule: NoiseSchedule
    steps: int

    def __post_init__(self) -> None:
        _check_steps(self.steps, self.schedule)

    @property
    def stride(self) -> int:
        return self.schedule.num_train_timesteps // self.steps

    @property
    def timesteps(self) -> list[int]:
        """From noisy to clean; e.g. 958, 925, ..., 1 for 30 steps."""
        return [i * self.stride + self.schedule.steps_offset for i in reversed(range(self.steps))]

    def step(self, index: int, x: Tensor, eps: Tensor, memory: None = None) -> tuple[Tensor, None]:
        """``x`` at ``timesteps[index]`` -> ``x`` one stride earlier (published: by stride, not by the list's next entry)."""
        now = self.timesteps[index]
        before = now - self.stride
        table = self.schedule.alphas_cumprod
        first = 1.0 if self.schedule.final_alpha_one else table[0].item()
        return ddim_update(x, eps, table[now].item(), table[before].item() if before >= 0 else first), None


# Ten timesteps (and the clean end) found optimal for Stable Diffusion 1.5, whose schedule this is: Sabour et al. 2024,
# "Align Your Steps" (arXiv 2404.14507). Other numbers of steps interpolate lambda between them, as the paper does.
_ALIGNED = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0)


def _interpolate(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Piecewise linear through (xs, ys), xs ascending."""
    i = min(max(bisect.bisect_right(xs, x) - 1, 0), len(xs) - 2)
    return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i])


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++(2M): second order in the clean sample, one network call a step; good from about 10 steps on.

    Source: Lu et al. 2022, "DPM-Solver++" (arXiv 2211.01095), algorithm 2. The last step goes to zero noise and is of first
    order, as is the first, which has no past.
    """

    schedule: NoiseSchedule
    steps: int
    timesteps: list[int] = field(init=False)  # from noisy to clean, strictly falling

    def __post_init__(self) -> None:
        _check_steps(self.steps, self.schedule)
        squared = self.schedule.alphas_cumprod.double()
        lambdas = ((squared / (1 - squared)).log() / 2).flip(0).tolist()  # ascending: from the noisiest timestep
        last = len(lambdas) - 1
        stations = [lambdas[last - round(t * last / 999)] for t in _ALIGNED]
        timesteps = []
        for i in range(self.steps):
            wanted = _interpolate(10 * i / self.steps, range(11), stations)
            timesteps.append(round(last - _interpolate(wanted, lambdas, range(last + 1))))
        for i in reversed(range(self.steps - 1)):
            timesteps[i] = max(timesteps[i], timesteps[i + 1] + 1)
        object.__setattr__(self, "timesteps", timesteps)

    def _alpha_sigma_lambda(self, index: int) -> tuple[float, float, float]:
        """At ``timesteps[index]``; lambda is half the log signal-to-noise ratio."""
        squared = self.schedule.alphas_cumprod[self.timesteps[index]].item()
        alpha, sigma = math.sqrt(squared), math.sqrt(1 - squared)
        return alpha, sigma, math.log(alpha / sigma)

    def step(self, index: int, x: Tensor, eps: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x`` at ``timesteps[index]`` -> ``x`` at the next one; ``memory`` is the clean sample predicted one step before."""
        alpha, sigma, lam = self._alpha_sigma_lambda(index)
        x0 = (x - sigma * eps) / alpha
        if index == self.steps - 1:
            return x0, x0
        alpha_next, sigma_next, lam_next = self._alpha_sigma_lambda(index + 1)
        h = lam_next - lam
        data = x0
        if index > 0 and memory is not None:
            r = (lam - self._alpha_sigma_lambda(index - 1)[2]) / h
            data = x0 + (x0 - memory) / (2 * r)
        return sigma_next / sigma * x - alpha_next * math.expm1(-h) * data, x0


SOLVERS = {"ddim": DDIM, "dpm++": DPMSolver}


def make_solver(name: str, schedule: NoiseSchedule, steps: int) -> DDIM | DPMSolver:
    """The solver called ``name`` ("ddim" or "dpm++") with ``steps`` steps; raises :class:`InputError` for other names."""
    if name not in SOLVERS:
        raise InputError(f"unknown solver {name!r}; choose one of {', '.join(SOLVERS)}")
    return SOLVERS[name](schedule, steps)


def linear_steps(solver: DDIM | DPMSolver) -> Tensor:
    """All steps of a solver as numbers, float64 [steps, 6]: each is linear in ``x``, ``eps`` and ``memory``.

    With a row (a, b, c, d, e, f) the next ``x`` is ``a x + b eps + c memory`` and the next memory ``d x + e eps + f memory``,
    where a solver that remembers nothing has 0. The first step's memory counts 0.
    """
    rows = []
    x, eps, memory = torch.eye(3, dtype=torch.float64)
    for index in range(solver.steps):
        after, past = solver.step(index, x, eps, memory if index else None)
        rows.append(torch.cat([after, torch.zeros(3, dtype=torch.float64) if past is None else past]))
    return torch.stack(rows)
