"""MVDream and ImageDream as one object: prompts (and pictures) -> four views of each object.

The UNet is that of ``network.py``, the autoencoder that of ``vae.py``, CLIP comes from a library; :mod:`.encoding` is what runs
once per prompt, :mod:`.denoising` the loop of DDIM or DPM-Solver++ (``schedule.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import BozzettoError, InputError
from .cameras import AZIMUTHS
from .checks import check_numbers, check_pictures, check_prompts, check_size
from .denoising import Condition, Denoising
from .encoding import Encoding
from .network import MultiViewUNet
from .pictures import ClipPreprocess
from .schedule import NoiseSchedule, make_solver
from .vae import VAE


@dataclass
class MultiViewDiffusion(Encoding, Denoising):
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
        self.record_encoding()
        self.record_steps()

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
            features = self.features(pictures)
            tokens = self.unet.image_embed(torch.cat([features, torch.zeros_like(features[:1])]))
            condition.image, unconditional.image = tokens[:-1].repeat_interleave(candidates, 0), tokens[-1:]
            moments = self.moments(pictures, size)
            latents = [mean + std * noise.to(std.device) for mean, std in moments for noise in posterior_noise]
            condition.latent = torch.stack(latents) * self.vae.config.scaling_factor
            unconditional.latent = torch.zeros_like(condition.latent[:1])
        return condition, unconditional
