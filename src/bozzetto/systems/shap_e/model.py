"""Shap-E as one object for Python programs and for systems built on it: prompts or pictures -> latents -> meshes, points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InputError
from .checkpoint import load_diffusion, load_transmitter
from .clip import ClipGrid, ClipText, load_clip_grid, load_clip_text
from .diffusion import draw_noise, sample
from .mesh import decode_mesh
from .network import LatentDiffusion
from .transmitter import Transmitter


@dataclass
class ShapE:
    """The parts that were loaded; a method whose part is missing says so.

    Attributes:
        transmitter: latent -> fields.
        text, clip_text: the text model and CLIP's text tower.
        image, clip_grid: the image model and CLIP's image tower.
        dtype: arithmetic of the diffusion models; None is float16 on CUDA, float32 elsewhere.
    """

    transmitter: Transmitter | None = None
    text: LatentDiffusion | None = None
    clip_text: ClipText | None = None
    image: LatentDiffusion | None = None
    clip_grid: ClipGrid | None = None
    dtype: torch.dtype | None = None

    def sample_text(
        self,
        prompts: Sequence[str],
        guidance: float = 15.0,
        steps: int = 64,
        seed: int | torch.Generator = 0,
    ) -> Tensor:
        """Latents [B, rows * width], one per prompt; ``seed`` is that of the first, the next ones continue its stream.

        Raises:
            InputError: an empty prompt, numbers out of range, NaN.
        """
        if isinstance(prompts, str):
            prompts = [prompts]
        if self.text is None or self.clip_text is None:
            raise InputError("this Shap-E was loaded without its text model; give load_shap_e text= and clip=")
        return self._sample(self.text, self.clip_text(prompts), guidance, steps, seed)

    def sample_image(
        self,
        images: Sequence[Tensor],
        guidance: float = 3.0,
        steps: int = 64,
        seed: int | torch.Generator = 0,
    ) -> Tensor:
        """Latents [B, rows * width] of pictures [H, W, 3] in 0..1: the object on white, large in the frame."""
        if self.image is None or self.clip_grid is None:
            raise InputError("this Shap-E was loaded without its image model; give load_shap_e image= and clip=")
        return self._sample(self.image, self.clip_grid(images), guidance, steps, seed)

    def _sample(
        self, model: LatentDiffusion, condition: Tensor, guidance: float, steps: int, seed: int | torch.Generator
    ) -> Tensor:
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        noise = draw_noise(generator, len(condition), model.config.latent_size)
        return sample(model, condition, noise, guidance=guidance, steps=steps, dtype=self.dtype)

    def decode_mesh(self, latent: Tensor, resolution: int = 128) -> tuple[Tensor, Tensor, Tensor]:
        """Vertices [V, 3] (Shap-E's frame: z up, front to -y), faces [F, 3], linear-light rgb [V, 3] of one latent.

        Raises:
            MeshError: the shape has no surface.
        """
        if self.transmitter is None:
            raise InputError("this Shap-E was loaded without its transmitter; give load_shap_e transmitter=")
        return decode_mesh(self.transmitter.fields(latent), resolution)

    def points(self, latent: Tensor, resolution: int = 128) -> tuple[Tensor, Tensor]:
        """The mesh's vertices [V, 3] (Shap-E's frame) and their linear-light colours [V, 3]: a point cloud."""
        vertices, _, rgb = self.decode_mesh(latent, resolution)
        return vertices, rgb


def load_shap_e(
    transmitter: str | Path | None = None,
    text: str | Path | None = None,
    image: str | Path | None = None,
    clip: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> ShapE:
    """Load the parts whose files are given.

    Args:
        transmitter: ``transmitter.pt`` or ``vector_decoder.pt``.
        text: ``text_cond.pt``, or Cap3D's ``shapE_finetuned_with_330kdata.pth``.
        image: ``image_cond.pt``.
        clip: folder with the files of ``openai/clip-vit-large-patch14``; needed by ``text`` and ``image``.

    Raises:
        InputError: ``text`` or ``image`` without ``clip``. CheckpointError: a file is damaged or another one.
    """
    if (text or image) and clip is None:
        raise InputError("Shap-E's text and image models read their input through CLIP: give its folder as clip=")
    return ShapE(
        transmitter=load_transmitter(transmitter, device) if transmitter else None,
        text=load_diffusion(text, device, "text") if text else None,
        clip_text=load_clip_text(clip, device) if text else None,
        image=load_diffusion(image, device, "image") if image else None,
        clip_grid=load_clip_grid(clip, device) if image else None,
        dtype=dtype,
    )
