"""Noise into latents: the UNet in the loop of a solver, with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import BozzettoError
from ...nn.graphs import Captured
from .cameras import AZIMUTHS, diffusion_cameras
from .network import MultiViewUNet
from .schedule import NoiseSchedule, linear_steps, make_solver
from .transformer import KeysValues


@dataclass
class Condition:
    """What steers N samples: a row per sample, or one row for all.

    Attributes:
        text: text tokens [N or 1, L, C].
        image: the UNet's image tokens [N or 1, Q, C] (``unet.image_embed`` of CLIP features), None without image input.
        latent: the pictures' scaled VAE latents [N or 1, 4, h, w], None without image input.
    """

    text: Tensor
    image: Tensor | None = None
    latent: Tensor | None = None

    def part(self, rows: slice) -> Condition:
        """The rows of some of the samples."""

        def pick(value: Tensor | None) -> Tensor | None:
            return value if value is None or len(value) == 1 else value[rows]

        return Condition(pick(self.text), pick(self.image), pick(self.latent))


class Denoising:
    """The part of :class:`~.diffusion.MultiViewDiffusion` that runs once per step; attributes are its own."""

    unet: MultiViewUNet
    schedule: NoiseSchedule
    device: torch.device | str

    def record_steps(self) -> None:
        """To be called once: repeated steps become recorded graphs."""
        self._run = Captured(self._step, limit=2)

    @property
    def takes_image(self) -> bool:
        """Whether it needs a picture beside the prompt (ImageDream)."""
        return self.unet.config.ip_dim > 0

    @property
    def views(self) -> int:
        """Views in the network's batch: four, and the picture's own where there is one."""
        return len(AZIMUTHS) + self.takes_image

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.out[2].weight.dtype

    def _plan(
        self, condition: Condition, negative: Condition | None, samples: int, timesteps: list[int], cameras: Tensor
    ) -> tuple[Tensor, list[list[KeysValues]], Tensor | None]:
        """All that the network can work out before the first step, for ``samples`` samples with guidance.

        Returns:
            what noise levels and cameras mean to it, one row a step, as :meth:`_step` unpacks it; the keys and values of its
            cross-attentions, a row for each sample, the unconditional half first; the pictures' latents, so too, or None.
        """
        halves = [condition] if negative is None else [negative, condition]

        def rows(name: str) -> Tensor | None:  # [N or 1, ...] per half -> [halves * N, ...]
            parts = [getattr(half, name) for half in halves]
            if parts[0] is None:
                return None
            return torch.cat([p.expand(samples, *p.shape[1:]) for p in parts]).to(self.device, self.dtype)

        steps, views = len(timesteps), len(cameras)
        levels = torch.tensor(timesteps, device=self.device).repeat_interleave(views)
        copies = len(halves) * samples
        shifts = [
            shift.reshape(steps, views, -1).repeat(1, copies, 1).flatten(1)  # [steps, halves * N * F * C]
            for shift in self.unet.shifts(levels, cameras.repeat(steps, 1))
        ]
        return torch.cat(shifts, dim=1), self.unet.remember(rows("text"), rows("image")), rows("latent")

    def _step(
        self,
        x: Tensor,
        past: Tensor,
        shifts: Tensor,
        memory: list[list[KeysValues]],
        latent: Tensor | None,
        numbers: Tensor,
        guided: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of all samples without a wait for the device: it may be recorded as a graph.

        Args:
            x: [N, F, 4, h, w] float32. past: what the solver remembers, so too.
            shifts: a row of the table of :meth:`_plan`; ``memory``, ``latent``: its other results.
            numbers: float32, the solver's :func:`~.schedule.linear_steps` of this step, then the guidance.

        Returns:
            the next ``x`` and ``past``; whether the former is finite everywhere (0-d).
        """
        n, views = x.shape[:2]
        halves = 2 if guided else 1
        batch = halves * n * views
        widths = [batch * layer.out_layers[3].out_channels for layer in self.unet.residual_blocks()]
        eps = self.unet(
            x.to(self.dtype).repeat(halves, 1, 1, 1, 1).flatten(0, 1),  # [halves * N * F, 4, h, w]
            [part.view(batch, -1) for part in shifts.split(widths)],
            memory,
            views=views,
            ip_latent=latent,
        ).float()
        eps = eps.reshape(halves, n, views, *eps.shape[1:])
        a, b, c, d, e, f, guidance = numbers.unbind()
        eps = torch.lerp(eps[0], eps[1], guidance) if guided else eps[0]
        after = a * x + b * eps + c * past
        return after, d * x + e * eps + f * past, torch.isfinite(after).all()

    @torch.no_grad()
    def denoise(
        self,
        latents: Tensor,
        condition: Condition,
        negative: Condition | None,
        *,
        steps: int = 30,
        guidance: float = 5.0,
        elevation: float = 0.0,
        solver: str = "ddim",
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Noise [N, F, 4, h, w] -> clean latents of the same shape, float32; F counts the picture's own view.

        The network's outputs are combined in float32. On CUDA a step is recorded as a graph, which all later steps of such
        shapes replay.

        Args:
            negative: the unconditional half; ignored when ``guidance`` is 1 or less.
            on_step: called with (index of the step, latents after it).

        Raises:
            BozzettoError: the latents became NaN or infinite; names the step.
            InputError: an unknown solver, or an impossible number of steps.
        """
        method = make_solver(solver, self.schedule, steps)
        cameras = diffusion_cameras(elevation, self.takes_image).to(self.device)
        x = latents.to(self.device, torch.float32)
        guided = negative is not None and guidance > 1
        table, memory, latent = self._plan(condition, negative if guided else None, len(x), method.timesteps, cameras)
        numbers = F.pad(linear_steps(method), (0, 1), value=float(guidance)).to(self.device, torch.float32)
        past = torch.zeros_like(x)
        # Counted on the device and read once at the end: NaN never goes away again.
        sound = torch.zeros((), dtype=torch.int64, device=self.device)
        for index in range(steps):
            x, past, finite = self._run(x, past, table[index], memory, latent, numbers[index], guided)
            sound += finite
            if on_step is not None:
                on_step(index, x)
        finite = int(sound)
        if finite < steps:
            raise BozzettoError(
                f"the latents became NaN or infinite between steps {finite + 1} and {steps} (timesteps "
                f"{method.timesteps[finite]} to {method.timesteps[-1]}) in {str(self.dtype).removeprefix('torch.')}; "
                f"compute in float32 (dtype=torch.float32; --device cpu does), or use less guidance than {guidance:g} "
                "or another seed"
            )
        return x
