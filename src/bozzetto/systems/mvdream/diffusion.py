"""MVDream and ImageDream as one object: prompts (and pictures) -> four views of each object.

The UNet is that of ``network.py``, the autoencoder that of ``vae.py``, CLIP comes from a library; the loop here is DDIM or
DPM-Solver++ (``schedule.py``) with classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import BozzettoError, InputError
from ...nn.graphs import Captured
from ...zoo.libraries import tokenize
from .cameras import AZIMUTHS, diffusion_cameras
from .checks import check_numbers, check_pictures, check_prompts, check_size
from .network import MultiViewUNet
from .pictures import ClipPreprocess, decode_latents, latent_moments
from .schedule import NoiseSchedule, linear_steps, make_solver
from .transformer import KeysValues
from .vae import VAE


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


@dataclass
class MultiViewDiffusion:
    """A loaded multi-view diffusion model (``checkpoint.load_mvdream``).

    Attributes:
        unet, vae, text_encoder: networks in evaluation mode. tokenizer: CLIP's.
        schedule: the noise schedule it was trained with.
        image_encoder, preprocess: CLIP's image tower and its preprocessing; None for MVDream, which has no image input.
        device: where everything runs. offload: keep encoders and VAE in main memory while they are not in use.
    """

    unet: MultiViewUNet
    vae: VAE
    text_encoder: nn.Module
    tokenizer: Any
    schedule: NoiseSchedule
    image_encoder: nn.Module | None = None
    preprocess: ClipPreprocess | None = None
    device: torch.device | str = "cpu"
    offload: bool = False

    def __post_init__(self) -> None:
        self._run = Captured(self._step, limit=2)
        self._latent_moments = self._repeated(lambda image, size: latent_moments(self.vae, image, size))
        self._decode = self._repeated(lambda latents, chunk: decode_latents(self.vae, latents, chunk))

    def _repeated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, recorded as a graph when it is called again; not where its network moves in between."""
        return function if self.offload else Captured(function, limit=2)

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

    @contextmanager
    def _here(self, module: nn.Module) -> Iterator[None]:
        """``module`` on the device for as long as it is used."""
        if self.offload:
            module.to(self.device)
        try:
            yield
        finally:
            if self.offload:
                module.to("cpu")

    @torch.no_grad()
    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] -> text tokens [B, L, C] (last hidden state after the final normalisation)."""
        with self._here(self.text_encoder):
            return self.text_encoder(input_ids=ids.to(self.device)).last_hidden_state

    def encode_text(self, prompts: str | Iterable[str]) -> Tensor:
        """Prompts -> text tokens [B, 77, C]; longer prompts are cut with a warning.

        Raises:
            InputError: a prompt that is not text or has more than 10,000 characters.
        """
        length = self.text_encoder.config.max_position_embeddings
        return self.encode_tokens(tokenize(self.tokenizer, check_prompts(prompts), length))

    @torch.no_grad()
    def _features(self, images: Sequence[Tensor]) -> Tensor:
        """CLIP's features before its last layer, [B, N, D], for pictures [H, W, 3]."""
        with self._here(self.image_encoder):
            pixels = torch.stack([self.preprocess(image) for image in images]).to(self.device, self.dtype)
            return self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]

    @torch.no_grad()
    def _moments(self, images: Sequence[Tensor], size: int) -> list[tuple[Tensor, Tensor]]:
        with self._here(self.vae):
            return [self._latent_moments(image.to(self.device), size) for image in images]

    def encode_image(
        self,
        rgb: Tensor | Sequence[Tensor],
        size: int = 256,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pictures on white -> (CLIP features [B, N, D], scaled VAE latents [B, 4, h, w]).

        Args:
            rgb: [B, H, W, 3], float 0..1, or a list of [H, W, 3].
            size: pixels of the generated views; the latent has an eighth of it.
            generator: of the VAE posterior's noise (CPU); None takes the posterior's mean.
            noise: the posterior's noise itself [B, 4, h, w] instead of a generator.

        Raises:
            InputError: not pictures, or a model without image input.
        """
        images = check_pictures(rgb, self.takes_image)
        moments = self._moments(images, size)
        if noise is None and generator is not None:
            noise = torch.stack([torch.randn(mean.shape, generator=generator) for mean, _ in moments])
        latents = []
        for i, (mean, std) in enumerate(moments):
            latents.append(mean if noise is None else mean + std * noise[i].to(std.device))
        return self._features(images), torch.stack(latents) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk: int = 4) -> Tensor:
        """Latents [..., 4, h, w] -> pictures [..., H, W, 3], float32 in 0..1; ``chunk`` views are decoded at a time."""
        with self._here(self.vae):
            pictures = self._decode(latents.to(self.device).reshape(-1, *latents.shape[-3:]), chunk)
        return pictures.reshape(*latents.shape[:-3], *pictures.shape[1:])

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

    def generate(
        self,
        prompts: str | Sequence[str],
        images: Tensor | Sequence[Tensor] | None = None,
        *,
        negative: str = "",
        steps: int = 30,
        guidance: float = 5.0,
        elevation: float = 0.0,
        solver: str = "ddim",
        candidates: int = 1,
        size: int = 256,
        seed: int = 0,
        generator: torch.Generator | None = None,
        batch: int = 4,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Four views of one object per prompt (and picture), at azimuths 0, 90, 180, 270 of the network's own count.

        LGM's front is index 1: its views are ``[..., [1, 2, 3, 0], :, :, :]`` (``cameras.LGM_ORDER``).

        Args:
            prompts: P texts; may be empty, in any language, at most 10,000 characters each.
            images: ImageDream only: P pictures on white, [P, H, W, 3] or a list of [H, W, 3], float 0..1.
            negative: what to move away from; unused when ``guidance`` is 1 or less.
            steps, solver: "ddim" (published, 30 to 50 steps) or "dpm++" (good from about 10 steps).
            guidance: strength of classifier-free guidance; 1 or less runs the conditional half alone, in half the time.
            elevation: of all four cameras, degrees, positive above the object.
            candidates: samples per prompt. Candidate c of any prompt starts from ``seed + c`` alone, so that it does not
                depend on the other prompts and candidates.
            size: pixels of a view; a multiple of 64.
            generator: draws the seed instead of ``seed`` (CPU).
            batch: samples that go through the network together; changes memory and speed only.
            progress: called with the share done, 0..1.

        Returns:
            [P, candidates, 4, size, size, 3], float32, 0..1, sRGB, on the device.

        Raises:
            InputError: arguments that cannot be used. BozzettoError: the result became NaN; the message says what to do.
        """
        texts = check_prompts(prompts)
        if not texts:
            raise InputError("no prompts; give one at least (it may be empty)")
        pictures = check_pictures(images, self.takes_image, len(texts))
        make_solver(solver, self.schedule, steps)
        check_numbers(guidance, elevation, candidates, batch)
        check_size(size, self.vae.factor * self.unet.size_multiple)
        if generator is not None:
            seed = int(torch.randint(2**62, (), generator=generator))
        side, channels = size // self.vae.factor, self.unet.config.in_channels
        noise, posterior_noise = [], []
        for number in range(candidates):
            drawn = torch.Generator().manual_seed(seed + number)
            noise.append(torch.randn(self.views, channels, side, side, generator=drawn))
            posterior_noise.append(torch.randn(channels, side, side, generator=drawn))
        condition, unconditional = self._conditions(texts, pictures, negative, size, posterior_noise)
        starts = torch.stack(noise).repeat(len(texts), 1, 1, 1, 1)  # [P * candidates, F, 4, h, w]

        views = []
        for first in range(0, len(starts), batch):
            rows = slice(first, first + batch)
            some = starts[rows]

            def tell(index: int, _: Tensor, share: int = len(some), before: int = first) -> None:
                if progress is not None:
                    progress((before + share * (index + 1) / steps) / len(starts))

            latents = self.denoise(
                some,
                condition.part(rows),
                unconditional,
                steps=steps,
                guidance=guidance,
                elevation=elevation,
                solver=solver,
                on_step=tell,
            )
            views.append(self.decode(latents[:, : len(AZIMUTHS)]))
        result = torch.cat(views)  # [P * candidates, 4, H, W, 3]
        if not bool(torch.isfinite(result).all()):
            raise BozzettoError(
                "the decoded pictures hold NaN or infinity; use less guidance or another seed, or compute in float32 "
                "(dtype=torch.float32; --device cpu does)"
            )
        return result.reshape(len(texts), candidates, *result.shape[1:])

    @torch.no_grad()
    def _conditions(
        self, texts: list[str], pictures: list[Tensor], negative: str, size: int, posterior_noise: list[Tensor]
    ) -> tuple[Condition, Condition]:
        """Conditions of P * candidates samples (prompt-major) and the unconditional one, a single row."""
        candidates = len(posterior_noise)
        text = self.encode_text([*texts, *check_prompts(negative)])
        condition = Condition(text[:-1].repeat_interleave(candidates, 0))
        unconditional = Condition(text[-1:])
        if pictures:
            features = self._features(pictures)
            tokens = self.unet.image_embed(torch.cat([features, torch.zeros_like(features[:1])]))
            condition.image, unconditional.image = tokens[:-1].repeat_interleave(candidates, 0), tokens[-1:]
            moments = self._moments(pictures, size)
            latents = [mean + std * noise.to(std.device) for mean, std in moments for noise in posterior_noise]
            condition.latent = torch.stack(latents) * self.vae.config.scaling_factor
            unconditional.latent = torch.zeros_like(condition.latent[:1])
        return condition, unconditional
