"""The optimisation: render four views, ask the diffusion model, move the Gaussians; 1200 times.

Everything random in a step is a function of (seed, step), so a run that was stopped repeats an undisturbed one; on a CPU
bit for bit. A step reads nothing back from the GPU; the count of steps with gradients that are not finite is looked at
every :data:`CHECK_EVERY` steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ...camera import Cameras
from ...errors import BozzettoError
from ...gaussians import Gaussians
from ...nn.graphs import Captured
from ...raster import rasterize
from .cameras import NEAR, ViewRange, Views, sample_ring, sample_views
from .densify import DensificationStats, densify_and_prune, screen_gradient, screen_radii
from .diffusion_prior import Prior
from .guidance import (
    GuidanceSchedule,
    add_noise,
    distillation_loss,
    guided_epsilon,
    limit_gradient,
    perp_neg_epsilon,
    sds_gradient,
    sjc_gradient,
)
from .losses import opaque_loss, sparsity_loss
from .options import TextOptions
from .parameters import GaussianParameters
from .prompts import PerpNegTexts, ViewTexts

MAX_BAD_STEPS = 20  # so many bad steps in a row end the run
BAD_SHARE = 0.01  # a step is bad when more of the score, or of the parameters' gradients, is not finite
CHECK_EVERY = 10

# MVDream was trained on views from 0 to 30 degrees above that the object fills.
MVDREAM_VIEWS = ViewRange(elevation=(0.0, 30.0), distance=(1.2, 1.5), fov=(15.0, 60.0), relative=True)


@dataclass(frozen=True)
class DensifySchedule:
    """When Gaussians are cloned, split and pruned; published values. Steps count from 0."""

    until: int = 900  # statistics are gathered before this step
    after: int = 300
    every: int = 100
    size_rule_after: int = 500  # oversized ones are pruned in later steps only

    def due(self, step: int) -> bool:
        """Whether ``step`` densifies: 400, 500, 600, 700, 800."""
        return self.after < step < self.until and step % self.every == 0


@dataclass
class RunState:
    """Everything that changes from step to step.

    Attributes:
        parameters, stats: the Gaussians with their Adam, and what densification has seen of them.
        step: the next step. bad_steps: bad steps (:data:`BAD_SHARE`) in a row; worst_streak: the most so far; bad_entries:
            all entries of gradients that were not finite, which count as 0 (0-d tensors on the device).
    """

    parameters: GaussianParameters
    stats: DensificationStats
    step: int = 0
    bad_steps: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    worst_streak: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    bad_entries: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))

    @classmethod
    def begin(cls, gaussians: Gaussians, device: torch.device | str) -> RunState:
        """At step 0, on ``device``."""
        state = cls(
            GaussianParameters.from_gaussians(gaussians.to(device)), DensificationStats.zeros(len(gaussians), device)
        )
        return state.to(device)

    def to(self, device: torch.device | str) -> RunState:
        """The counters on ``device`` (parameters and statistics are made there)."""
        for name in ("bad_steps", "worst_streak", "bad_entries"):
            setattr(self, name, getattr(self, name).to(device))
        return self


class Optimiser:
    """One run: what stays the same during it, and its steps."""

    def __init__(
        self,
        prior: Prior,
        texts: ViewTexts,
        options: TextOptions,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        views: ViewRange | None = None,
        guidance_schedule: GuidanceSchedule | None = None,
        densify_schedule: DensifySchedule | None = None,
    ) -> None:
        self.prior, self.texts, self.options, self.seed = prior, texts, options, seed
        self.device = torch.device(device)
        self.views = views or (ViewRange() if prior.together == 1 else MVDREAM_VIEWS)
        self.guidance_schedule = guidance_schedule or GuidanceSchedule()
        self.densify_schedule = densify_schedule or DensifySchedule()
        self._statistics = Captured(self._seen, limit=1)  # recorded anew whenever the number of Gaussians changes

    def generator(self, step: int) -> torch.Generator:
        """The random stream of a step (CPU)."""
        return torch.Generator().manual_seed((self.seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03) % 2**63)

    def step(self, state: RunState) -> Tensor:
        """One step in place; returns the loss (0-d, on the device)."""
        random = self.generator(state.step)
        parameters = state.parameters
        parameters.set_learning_rate(state.step)
        views = self._draw_views(random)
        cameras = views.cameras().to(self.device, non_blocking=True)
        # What comes from the host comes before the renderer, where the host waits for the device.
        noise, texts = self._draw_noise(state.step, random), self._texts_of(views)

        # Every view gets its own copy of the Gaussians, so that gradients can be told apart by view.
        gaussians = parameters.gaussians()
        copies = Gaussians(*(t.expand(len(cameras), *t.shape) for t in gaussians.tensors()))
        copies.means.retain_grad()
        drawn = rasterize(copies, cameras[:, None], self.options.size, near=NEAR)
        rgb = drawn.rgb[:, 0].movedim(-1, 1)  # [B, 3, H, W], on black
        gradient_latents, latents, bad = self._distil(rgb, cameras, texts, noise, state.step)
        loss = distillation_loss(latents, gradient_latents)
        if self.options.lambda_sparsity:
            loss = loss + self.options.lambda_sparsity * sparsity_loss(drawn.alpha)
        if self.options.lambda_opaque:
            loss = loss + self.options.lambda_opaque * opaque_loss(drawn.alpha)
        loss.backward()

        also_bad, entries = parameters.clean_gradients()
        state.bad_entries = state.bad_entries + bad + also_bad
        # One splat that went wrong must not end the run.
        is_bad = (bad > BAD_SHARE * gradient_latents.numel()) | (also_bad > BAD_SHARE * entries)
        state.bad_steps = torch.where(is_bad, state.bad_steps + 1, 0)
        state.worst_streak = torch.maximum(state.worst_streak, state.bad_steps)
        if state.step < self.densify_schedule.until:
            self._densify(state, gaussians.detach(), copies.means.grad, cameras, random)
        parameters.step()
        state.step += 1
        return loss.detach()

    def _draw_views(self, random: torch.Generator) -> Views:
        if self.prior.together == 1:
            return sample_views(self.options.batch, self.views, random)
        return sample_ring(self.options.batch, self.views, random, self.prior.together)

    def _draw_noise(self, step: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Unit noise of the encoder's posterior and of the latents [B, C, h, w], timesteps [B]; on the device."""
        shape, together = self.prior.latent_shape(self.options.batch), self.prior.together
        posterior, noise = (torch.randn(shape, generator=random) for _ in range(2))
        low, high = self.guidance_schedule.timesteps(step, len(self.prior.alphas_cumprod))
        t = torch.randint(low, high + 1, (shape[0] // together,), generator=random).repeat_interleave(together)
        return tuple(x.to(self.device, non_blocking=True) for x in (posterior, noise, t))

    def _texts_of(self, views: Views) -> PerpNegTexts | tuple[Tensor, Tensor]:
        """The perp-neg mixture for the views, or (text, negative) where that is off."""
        choose = self.texts.select if self.options.perp_neg == "off" else self.texts.perp_neg
        return choose(views.elevation, views.azimuth)

    def _distil(
        self,
        rgb: Tensor,
        cameras: Cameras,
        texts: PerpNegTexts | tuple[Tensor, Tensor],
        drawn: tuple[Tensor, Tensor, Tensor],
        step: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(gradient for the latents, latents, number of entries that were not finite) for pictures [B, 3, H, W].

        ``texts``: of :meth:`_texts_of`. ``drawn``: of :meth:`_draw_noise`.
        """
        o = self.options
        posterior, noise, t = drawn
        if rgb.shape[-2:] != (self.prior.size, self.prior.size):
            rgb = F.interpolate(rgb, (self.prior.size, self.prior.size), mode="bilinear", align_corners=False)
        latents = self.prior.encode(rgb, posterior)
        table = self.prior.alphas_cumprod
        with torch.no_grad():
            noisy = add_noise(latents, noise, t, table)
            epsilon = self.prior.epsilon(cameras)
            if isinstance(texts, PerpNegTexts):
                estimate = perp_neg_epsilon(epsilon, noisy, t, texts, o.guidance, o.perp_neg == "compat")
            else:
                estimate = guided_epsilon(epsilon, noisy, t, *texts, o.guidance, o.guidance_form)
            if o.method == "sjc":
                gradient = sjc_gradient(latents, estimate, noise, t, table)
            else:
                gradient = sds_gradient(estimate, noise, t, table, o.weighting)
            gradient, bad = limit_gradient(gradient, self.guidance_schedule.clamp(step))
        return gradient, latents, bad

    def _seen(
        self, means: Tensor, scales: Tensor, quats: Tensor, gradient: Tensor, pose: Tensor, intrinsics: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Screen-space gradients [N, 2] summed over the views, and the largest radii [N] in pixels.

        ``gradient`` [V, N, 3]: of the positions as seen from each view, which ``pose`` and ``intrinsics`` describe.
        """
        cameras = Cameras(pose, intrinsics)
        shapes = Gaussians(means, scales, quats, means[:, 0], means[:, None])  # opacity and colour change no radius
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        return screen_gradient(means, gradient, cameras).sum(0), screen_radii(shapes, cameras, self.options.size).amax(
            0
        )

    @torch.no_grad()
    def _densify(
        self, state: RunState, gaussians: Gaussians, gradient: Tensor, cameras: Cameras, random: torch.Generator
    ) -> None:
        """Statistics of this step, and the surgery when it is due."""
        o, schedule = self.options, self.densify_schedule
        on_screen, radii = self._statistics(
            *(t.contiguous() for t in gaussians.tensors()[:3]), gradient, cameras.camera_to_world, cameras.intrinsics
        )
        state.stats.add(on_screen * o.grad_scale, radii > 0, radii)
        if schedule.due(state.step):
            late = state.step > schedule.size_rule_after
            densify_and_prune(
                state.parameters,
                state.stats,
                max_gradient=o.densify_threshold,
                size_rule=late,
                max_radius=o.max_radius if late and o.max_radius > 0 else None,
                max_count=o.max_gaussians,
                generator=random,
            )

    def run(
        self,
        state: RunState,
        *,
        progress: Callable[[str, float], None] | None = None,
        preview: Callable[[RunState], None] | None = None,
        save: Callable[[RunState], None] | None = None,
    ) -> RunState:
        """All steps that are left. ``preview`` and ``save`` are called every ``preview_every`` and ``save_every`` steps and
        after the last one.

        Raises:
            BozzettoError: no Gaussians are left, or the gradients stayed NaN or infinite.
        """
        o, begin = self.options, state.step
        went_on = f" from step {begin}" if begin else ""
        for step in range(begin, o.steps):
            if progress is not None:
                progress(f"optimising{went_on}, {len(state.parameters):,} splats", step / o.steps)
            self.step(state)
            last = state.step == o.steps
            if last or state.step % CHECK_EVERY == 0 or len(state.parameters) == 0:
                self._check(state)
            for call, every in ((preview, o.preview_every), (save, o.save_every)):
                if call is not None and every and (last or state.step % every == 0):
                    call(state)
        return state

    def _check(self, state: RunState) -> None:
        if len(state.parameters) == 0:
            raise BozzettoError(
                f"no splats are left after step {state.step}: all became transparent; try another seed, a lower "
                "--guidance, or --start with a file"
            )
        if int(state.worst_streak) >= MAX_BAD_STEPS:
            raise BozzettoError(
                f"{int(state.worst_streak)} steps in a row gave gradients that are NaN or infinite (step {state.step}); "
                "the diffusion model's weights are damaged or half precision overflows: try --device cpu, or a lower "
                "--guidance"
            )
