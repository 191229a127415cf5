"""The frozen diffusion models whose opinion of rendered pictures drives the optimisation.

Stable Diffusion sees one picture at a time and is told the direction in words; MVDream (Shi et al. 2023) sees four views
at once and is told their cameras. Networks and weights come from folders in the diffusers layout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...camera import Cameras
from ...errors import InputError
from ...nn.graphs import Captured
from ...zoo.libraries import PARTS, check_parts, load_component, load_tokenizer, read_config, tokenize
from ..mvdream.cameras import camera_vectors
from ..mvdream.checkpoint import load_mvdream, load_vae
from ..mvdream.diffusion import MultiViewDiffusion
from ..mvdream.network import MultiViewUNet
from ..mvdream.schedule import NoiseSchedule
from ..mvdream.vae import VAE
from .guidance import Epsilon
from .prompts import DIRECTIONS, ViewTexts, fit_prompt, view_prompts
from .stable_diffusion import load_unet

HALF_GRADIENT_SCALE = 256.0  # of the loss inside a float16 encoder, so that small gradients do not vanish


class Prior(Protocol):
    """What the optimisation needs of a diffusion model.

    Attributes:
        size: pixels of the pictures it looks at. together: how many views of one object it looks at in one go.
        alphas_cumprod: [T] float32, on the model's device.
    """

    size: int
    together: int
    alphas_cumprod: Tensor

    def latent_shape(self, batch: int) -> tuple[int, int, int, int]:
        """Shape of the latents of ``batch`` pictures."""

    def encode(self, rgb: Tensor, noise: Tensor) -> Tensor:
        """Pictures [B, 3, size, size] in 0..1 -> scaled latents (float32), with gradients; ``noise`` draws the posterior."""

    def epsilon(self, cameras: Cameras) -> Epsilon:
        """The noise predictor for views from ``cameras`` (B,); its batch must be a multiple of B, in their order."""


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def encode_pictures(vae: VAE, rgb: Tensor, noise: Tensor, save_memory: bool = False) -> Tensor:
    """A sample of the VAE's posterior, scaled, [B, 4, h, w] float32, differentiable in ``rgb`` [B, 3, H, W] (0..1).

    Args:
        noise: unit normal, of the latents' shape.
        save_memory: one picture at a time, whose activations are computed again in the backward pass.
    """
    weight = next(vae.parameters())
    scale = HALF_GRADIENT_SCALE if weight.dtype == torch.float16 else 1.0

    def moments(x: Tensor) -> Tensor:
        return torch.cat(vae.encode(x), dim=1)

    x = _ScaleGradient.apply(rgb, 1 / scale)
    x = (x * 2 - 1).to(weight.dtype)
    if save_memory:
        both = torch.cat([checkpoint(moments, part, use_reentrant=False) for part in x.split(1)])
    else:
        both = moments(x)
    mean, std = _ScaleGradient.apply(both.float(), scale).chunk(2, dim=1)
    return (mean + std * noise) * vae.config.scaling_factor


class StableDiffusion:
    """Stable Diffusion (published: 2.1 base) as a prior; see :class:`Prior`."""

    together = 1

    def __init__(
        self,
        unet: MultiViewUNet,
        vae: VAE,
        text_encoder: nn.Module,
        tokenizer: Any,
        schedule: NoiseSchedule,
        side: int = 64,
    ) -> None:
        """``side``: of the latents that the network was trained with."""
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.weight = next(unet.parameters())
        self.alphas_cumprod = schedule.alphas_cumprod.to(self.weight.device)
        self.side = side
        self.size = side * vae.factor
        self.save_memory = False
        self._run = Captured(self._predict, limit=1)

    def latent_shape(self, batch: int) -> tuple[int, int, int, int]:
        return batch, self.unet.config.in_channels, self.side, self.side

    def encode(self, rgb: Tensor, noise: Tensor) -> Tensor:
        return encode_pictures(self.vae, rgb, noise, self.save_memory)

    def epsilon(self, cameras: Cameras) -> Epsilon:
        return self._run

    def _predict(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.unet(x.to(self.weight.dtype), t, context.to(self.weight.dtype), views=1)

    @torch.no_grad()
    def embed(self, prompt: str, negative: str) -> tuple[ViewTexts, str]:
        """The prompts of the four directions and the negative one, embedded; and the prompt as far as it is read."""
        length = int(self.text_encoder.config.max_position_embeddings)
        used = fit_prompt(prompt, token_counter(self.tokenizer), length)
        ids = tokenize(self.tokenizer, [*view_prompts(used), negative], length)
        out = self.text_encoder(input_ids=ids.to(self.weight.device)).last_hidden_state.float()
        n = len(DIRECTIONS)
        return ViewTexts(out[:n], out[n:].expand(n, -1, -1)), used

    def forget_text_encoder(self) -> None:
        """Free its memory: the prompts are embedded once."""
        self.text_encoder = None


class MVDream:
    """MVDream as a prior: rings of four views; see :class:`Prior`. The prompt is the same for every view."""

    together = 4

    def __init__(self, model: MultiViewDiffusion) -> None:
        if model.takes_image:
            raise InputError("the prior must be MVDream; ImageDream needs a picture beside the prompt")
        self.model = model
        self.alphas_cumprod = model.schedule.alphas_cumprod.to(model.device)
        self.size = 256
        self.save_memory = False
        self._run = Captured(self._predict, limit=1)

    def latent_shape(self, batch: int) -> tuple[int, int, int, int]:
        side = self.size // self.model.vae.factor
        return batch, self.model.unet.config.in_channels, side, side

    def encode(self, rgb: Tensor, noise: Tensor) -> Tensor:
        return encode_pictures(self.model.vae, rgb, noise, self.save_memory)

    def epsilon(self, cameras: Cameras) -> Epsilon:
        numbers = mvdream_cameras(cameras)

        def predict(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
            return self._run(x, t, context, numbers)

        return predict

    def _predict(self, x: Tensor, t: Tensor, context: Tensor, numbers: Tensor) -> Tensor:
        dtype = self.model.dtype
        rows = numbers.repeat(len(x) // len(numbers), 1)
        return self.model.unet(x.to(dtype), t, context.to(dtype), rows.to(dtype), views=self.together)

    @torch.no_grad()
    def embed(self, prompt: str, negative: str) -> tuple[ViewTexts, str]:
        """As :meth:`StableDiffusion.embed`, with the plain prompt for every direction."""
        out = self.model.encode_text([prompt, negative]).float()
        n = len(DIRECTIONS)
        return ViewTexts(out[:1].expand(n, -1, -1), out[1:].expand(n, -1, -1)), prompt

    def forget_text_encoder(self) -> None:
        """Free its memory: the prompts are embedded once."""
        self.model.text_encoder = None


def mvdream_cameras(cameras: Cameras) -> Tensor:
    """House cameras (B,) as MVDream sees them, [B, 16]: on the unit sphere, z up, its azimuth 90 the front."""
    x, y, z, last = cameras.camera_to_world.unbind(-2)
    return camera_vectors(torch.stack([z, y, -x, last], dim=-2))  # front +z -> +x, azimuth 0 -> 90


def token_counter(tokenizer: Any) -> Callable[[str], int]:
    """How many tokens a text takes, the two at its ends included."""
    return lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def load_stable_diffusion(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> StableDiffusion:
    """A folder in the diffusers layout (unet/, vae/, text_encoder/, tokenizer/, scheduler/), frozen.

    Args:
        dtype: None takes float16 on CUDA (as published) and float32 on a CPU.

    Raises:
        CheckpointError: a missing file, weights that do not fit, or a folder of another system (named).
        MissingDependencyError: transformers is not installed.
    """
    folder, device = Path(folder), torch.device(device)
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    check_parts(folder, PARTS, "Stable Diffusion")
    side = int(read_config(folder / "unet").get("sample_size") or 64)
    return StableDiffusion(
        load_unet(folder / "unet", device, dtype),
        load_vae(folder / "vae", device, dtype),
        load_component("transformers.CLIPTextModel", folder / "text_encoder", device, dtype),
        load_tokenizer(folder / "tokenizer"),
        NoiseSchedule.from_config(read_config(folder / "scheduler", "scheduler_config.json")),
        side,
    )


def load_mvdream_prior(folder: str | Path, device: torch.device | str = "cpu") -> MVDream:
    """MVDream's folder as a prior; arguments and errors as :func:`load_stable_diffusion`."""
    return MVDream(load_mvdream(folder, device))
