"""From a frozen diffusion model to a gradient for the latents of rendered pictures.

* SDS, score distillation sampling: Poole et al. 2022 (DreamFusion), eq. 3.
* SJC, score Jacobian chaining: Wang et al. 2022, eq. 12 in the variance-reduced form of the authors' code.
* Perp-neg: Armandpour et al. 2023.

An ``Epsilon`` is the noise that the model sees in noisy latents: ``epsilon(x [M, C, h, w], t [M], context [M, L, D])``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .prompts import PerpNegTexts

Epsilon = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GuidanceSchedule:
    """Which noise levels are used, and how far the gradient is clamped, at every step.

    Timesteps are shares of the model's own number of them. After ``switch`` the upper limit drops at once (published: a
    hard switch after step 500). The clamp rises linearly.
    """

    low: float = 0.02
    high: float = 0.98
    high_after: float = 0.55
    switch: int = 500
    clamp_start: float = 1.5
    clamp_end: float = 2.0
    clamp_steps: int = 1000

    def timesteps(self, step: int, total: int) -> tuple[int, int]:
        """Lowest and highest timestep at optimisation step ``step`` (from 0), both inclusive."""
        return int(total * self.low), int(total * (self.high_after if step > self.switch else self.high))

    def clamp(self, step: int) -> float:
        """Largest absolute entry of the gradient at a step."""
        share = min(max(step / self.clamp_steps, 0.0), 1.0)
        return self.clamp_start + (self.clamp_end - self.clamp_start) * share


def add_noise(latents: Tensor, noise: Tensor, t: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """sqrt(a_t) x + sqrt(1 - a_t) n for latents [B, C, h, w] and timesteps [B]."""
    a = alphas_cumprod[t][:, None, None, None]
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def guided_epsilon(
    epsilon: Epsilon, noisy: Tensor, t: Tensor, text: Tensor, negative: Tensor, scale: float, form: str = "published"
) -> Tensor:
    """Classifier-free guidance; one call of the model with the batch (text, negative).

    Args:
        noisy: [B, C, h, w]. t: [B]. text, negative: [B, L, D].
        form: "published" is text + scale (text - negative), as in GaussianDreamer; it equals the "usual" form
            negative + s (text - negative) at s = scale + 1.
    """
    both = epsilon(torch.cat([noisy, noisy]), torch.cat([t, t]), torch.cat([text, negative]))
    of_text, of_negative = both.float().chunk(2)
    start = of_text if form == "published" else of_negative
    return start + scale * (of_text - of_negative)


def perp_neg_epsilon(
    epsilon: Epsilon, noisy: Tensor, t: Tensor, texts: PerpNegTexts, scale: float, compat: bool = False
) -> Tensor:
    """Guidance away from what the view is not: e_u + scale (e_pos + sum_i w_i perp(e_neg_i)), one call of the model.

    ``perp`` removes from a negative direction its part along the positive one.

    Args:
        noisy: [B, C, h, w]. t: [B].
        compat: repeat the published error in pairing: the 2 B negatives lie item by item, their latents batch by batch,
            so negative j is evaluated on item j mod B instead of its own, floor(j / 2).
    """
    b = noisy.shape[0]
    owner = torch.arange(2 * b, device=noisy.device)
    owner = owner % b if compat else owner // 2
    context = torch.cat([texts.positive, texts.unconditional, texts.negatives.flatten(0, 1)])  # [4 B, L, D]
    out = epsilon(torch.cat([noisy, noisy, noisy[owner]]), torch.cat([t, t, t[owner]]), context).float()
    e_pos, e_u, e_neg = out[:b], out[b : 2 * b], out[2 * b :].unflatten(0, (b, 2))  # [B, 2, C, h, w]
    e_pos = e_pos - e_u
    e_neg = e_neg - e_u[:, None]
    along = (e_neg * e_pos[:, None]).sum((2, 3, 4), keepdim=True)
    length = (e_pos * e_pos).sum((1, 2, 3), keepdim=True)[:, None].clamp_min(1e-6)
    perpendicular = e_neg - along / length * e_pos[:, None]
    return e_u + scale * (e_pos + (texts.weights[:, :, None, None, None] * perpendicular).sum(1))


def sds_gradient(estimate: Tensor, noise: Tensor, t: Tensor, alphas_cumprod: Tensor, weighting: str = "sds") -> Tensor:
    """w(t) (estimate - noise), [B, C, h, w]. w is 1 - a_t ("sds"), 1 ("uniform") or sqrt(a_t) (1 - a_t) ("fantasia3d")."""
    a = alphas_cumprod[t][:, None, None, None]
    weight = {"sds": 1 - a, "uniform": torch.ones_like(a), "fantasia3d": a.sqrt() * (1 - a)}[weighting]
    return weight * (estimate - noise)


def sjc_gradient(latents: Tensor, estimate: Tensor, noise: Tensor, t: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """(x - D(x + sigma n)) / sigma: the negative score of the blurred data at the latents, times sigma.

    D is the denoised picture; sigma = sqrt((1 - a_t) / a_t), the noise level where the picture keeps its size. For a model
    that predicts noise this equals SDS with w = 1.
    """
    a = alphas_cumprod[t][:, None, None, None]
    sigma = ((1 - a) / a).sqrt()
    denoised = latents + sigma * noise - sigma * estimate
    return (latents - denoised) / sigma


def limit_gradient(gradient: Tensor, clamp: float | None) -> tuple[Tensor, Tensor]:
    """(the gradient with NaN as 0, clamped to +-``clamp``; how many entries were not finite, as a 0-d tensor)."""
    bad = (~torch.isfinite(gradient)).sum()
    gradient = torch.nan_to_num(gradient)  # infinity becomes the largest number, which the clamp cuts
    return (gradient if clamp is None else gradient.clamp(-clamp, clamp)), bad


def distillation_loss(latents: Tensor, gradient: Tensor) -> Tensor:
    """A loss whose gradient in the latents is ``gradient`` / B: half the squared distance to latents - gradient, over B."""
    target = (latents - gradient).detach()
    return 0.5 * ((latents - target) ** 2).sum() / latents.shape[0]
