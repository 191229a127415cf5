"""Noise schedule and sampler: Heun's second-order steps of Karras et al. 2022 (arXiv 2206.00364, algorithm 1 without churn)
around a network that was trained to predict the clean latent on 1,024 discrete steps, with classifier-free guidance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from .network import LatentDiffusion

TIMESTEPS = 1024
SIGMA_MIN, SIGMA_MAX, RHO = 1e-3, 160.0, 7.0
MAX_BETA = 0.999

Denoiser = Callable[[Tensor, int], Tensor]  # (latents [B, D], step) -> clean latents [B, D]


def exp_betas(timesteps: int = TIMESTEPS) -> np.ndarray:
    """Noise added per step [timesteps] (float64), for the share of signal exp(-12 s), s = 0..1."""
    s = np.arange(timesteps + 1, dtype=np.float64) / timesteps
    signal = np.exp(-12.0 * s)
    return np.minimum(1 - signal[1:] / signal[:-1], MAX_BETA)


def alphas_cumprod(timesteps: int = TIMESTEPS) -> np.ndarray:
    """Share of signal (variance) left after each step [timesteps], float64."""
    return np.cumprod(1 - exp_betas(timesteps))


def karras_sigmas(steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO) -> Tensor:
    """Noise levels [steps + 1] (float32) from ``sigma_max`` down to ``sigma_min``, then 0 (equation 5 of the paper)."""
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    ramp = torch.linspace(0, 1, steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1)])


def times_of(sigmas: Tensor, table: np.ndarray | None = None) -> np.ndarray:
    """The discrete time (float64, not yet truncated) at which the network saw each noise level.

    Interpolated over the share of signal 1 / (sigma^2 + 1), which is taken in float32 as the published code does.
    """
    table = alphas_cumprod() if table is None else table
    signal = (1.0 / (sigmas.float().cpu() ** 2 + 1)).numpy().astype(np.float64)
    return np.interp(signal, table[::-1], np.arange(len(table), dtype=np.float64)[::-1])


def heun(
    denoise: Denoiser, sigmas: Tensor, noise: Tensor, progress: Callable[[Tensor, int], None] | None = None
) -> Tensor:
    """Integrate from ``noise`` [B, D] (unit variance) at ``sigmas[0]`` to 0; two evaluations a step, one in the last.

    Args:
        denoise: called as ``denoise(x, i)``: the clean latents that ``x`` at noise level ``sigmas[i]`` comes from.
        sigmas: [steps + 1], falling, ends in 0.
        progress: called after each step with the state and the step's index.
    """
    levels = sigmas.tolist()
    x = noise * levels[0]
    for i in range(len(levels) - 1):
        step = levels[i + 1] - levels[i]
        slope = (x - denoise(x, i)) / levels[i]
        guess = x + slope * step
        if levels[i + 1] == 0:
            x = guess
        else:
            second = (guess - denoise(guess, i + 1)) / levels[i + 1]
            x = x + (slope + second) / 2 * step
        if progress is not None:
            progress(x, i)
    return x


def guided(model: LatentDiffusion, condition: Tensor, guidance: float, sigmas: Tensor, dtype: torch.dtype) -> Denoiser:
    """The network as a denoiser with classifier-free guidance: u + guidance * (c - u), u from an all-zero condition.

    Each branch's prediction is clamped to -1..1 before they are combined. Guidance 1 evaluates the conditional branch only,
    0 the unconditional one only.
    """
    device = condition.device
    times = torch.as_tensor(np.trunc(times_of(sigmas)), dtype=torch.float32).to(device)
    scales = (1.0 / (sigmas.double() ** 2 + 1).sqrt()).tolist()
    both = guidance not in (0.0, 1.0)
    if guidance == 0.0:
        condition = torch.zeros_like(condition)
    elif both:
        condition = torch.cat([condition, torch.zeros_like(condition)])

    def denoise(x: Tensor, i: int) -> Tensor:
        scaled = x * scales[i]
        if both:
            scaled = torch.cat([scaled, scaled])
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            clean, _ = model(scaled, times[i].expand(len(scaled)), condition)
        # An overflow must not pass for a large value: made NaN, it survives the clamp and is reported at the end.
        clean = torch.where(clean.isinf(), torch.nan, clean.float()).clamp(-1, 1)
        if not both:
            return clean
        with_condition, without = clean.chunk(2)
        return without + guidance * (with_condition - without)

    return denoise


def draw_noise(seeds: Sequence[int] | torch.Generator, count: int, size: int) -> Tensor:
    """Unit normal noise [count, size] (float32, CPU), one seed per latent or one generator for all of them in turn."""
    if isinstance(seeds, torch.Generator):
        return torch.stack([torch.randn(size, generator=seeds) for _ in range(count)])
    if len(seeds) != count:
        raise ValueError(f"expected {count} seeds, got {len(seeds)}")
    return torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(s)) for s in seeds])


@torch.no_grad()
def sample(
    model: LatentDiffusion,
    condition: Tensor,
    noise: Tensor,
    *,
    guidance: float,
    steps: int = 64,
    dtype: torch.dtype | None = None,
    progress: Callable[[Tensor, int], None] | None = None,
) -> Tensor:
    """Latents [B, D] (float32, on the network's device).

    Args:
        condition: [B, E] (text) or [B, E, L] (image), as :class:`LatentDiffusion` takes it.
        noise: [B, D] unit normal.
        guidance: how much the condition is exaggerated; published 15 for text, 3 for images.
        dtype: arithmetic of the network; None is float16 on CUDA (as published) and float32 elsewhere.

    Raises:
        InputError: the numbers are out of range, or the network gave NaN or infinity.
    """
    device = next(model.parameters()).device
    if not (math.isfinite(guidance) and guidance >= 0):
        raise InputError(f"guidance must be a number of at least 0, got {guidance}")
    if dtype is None:
        dtype = torch.float16 if device.type == "cuda" else torch.float32
    if not bool(torch.isfinite(condition).all()):
        raise InputError("the condition holds NaN or infinity: CLIP's weights may be damaged; download them again")
    sigmas = karras_sigmas(steps)
    denoise = guided(model, condition.to(device, torch.float32), float(guidance), sigmas, dtype)
    x = heun(denoise, sigmas, noise.to(device, torch.float32), progress)
    if not bool(torch.isfinite(x).all()):
        raise InputError(
            "the diffusion model gave NaN or infinity; try another seed, or float32 arithmetic (run on the CPU), "
            "and check that the weights are undamaged"
        )
    return x
