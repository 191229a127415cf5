"""Pictures in and out of the encoders: CLIP's preprocessing, and the VAE's latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .vae import VAE


def _size(value: Any, name: str) -> int:
    return int(value if not isinstance(value, Mapping) else value[name])


@dataclass(frozen=True)
class ClipPreprocess:
    """What CLIP's image tower expects: the shorter side resized (bicubic), the centre cut out, the colours normalised."""

    resize: int = 224  # pixels of the shorter side
    crop: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ClipPreprocess:
        """From a ``preprocessor_config.json``; sizes may be numbers (old files) or objects."""
        default = cls()
        return cls(
            _size(config.get("size", default.resize), "shortest_edge"),
            _size(config.get("crop_size", default.crop), "height"),
            tuple(config.get("image_mean", default.mean)),
            tuple(config.get("image_std", default.std)),
        )

    def __call__(self, rgb: Tensor) -> Tensor:
        """A picture [H, W, 3] (float, 0..1, sRGB) -> [3, crop, crop] float32 on the CPU.

        The picture is rounded down to 8 bits first, as published.
        """
        from PIL import Image

        height, width = rgb.shape[:2]
        short, long = min(height, width), max(height, width)
        other = max(int(self.resize * long / short), self.resize)
        size = (self.resize, other) if width <= height else (other, self.resize)  # (width, height)
        levels = (rgb.detach().float().cpu().clamp(0, 1) * 255).to(torch.uint8)
        picture = Image.fromarray(levels.numpy()).resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - self.crop) // 2, (size[1] - self.crop) // 2
        picture = picture.crop((left, top, left + self.crop, top + self.crop))  # outside the picture: zeros
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(self.crop, self.crop, 3)
        pixels = pixels.float() / 255
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1).contiguous()


def latent_moments(vae: VAE, rgb: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float32 [C, h, w] each, of the VAE's latent (not scaled) for a picture [H, W, 3] in 0..1.

    The picture is brought to size x size without antialiasing, as published.
    """
    weight = next(vae.parameters())
    x = rgb.to(weight.device, torch.float32).permute(2, 0, 1)[None] * 2 - 1  # [1, 3, H, W]
    x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False).to(weight.dtype)
    mean, std = vae.encode(x)
    return mean[0].float(), std[0].float()


def decode_latents(vae: VAE, latents: Tensor, chunk: int = 4) -> Tensor:
    """Scaled latents [N, C, h, w] -> pictures [N, H, W, 3], float32 in 0..1, ``chunk`` at a time."""
    weight = next(vae.parameters())
    latents = (latents.to(weight.device, torch.float32) / vae.config.scaling_factor).to(weight.dtype)
    pictures = [(vae.decode(part).float() / 2 + 0.5).clamp(0, 1) for part in latents.split(chunk)]
    return torch.cat(pictures).permute(0, 2, 3, 1)
