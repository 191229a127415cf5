"""Texts and pictures into what the UNet reads, and latents into pictures: CLIP's towers and the autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.graphs import Captured
from ...zoo.libraries import tokenize
from .checks import check_pictures, check_prompts
from .pictures import ClipPreprocess, decode_latents, latent_moments
from .vae import VAE


class Encoding:
    """The part of :class:`~.diffusion.MultiViewDiffusion` that runs once per prompt or picture; attributes are its own."""

    vae: VAE
    text_encoder: nn.Module
    tokenizer: Any
    image_encoder: nn.Module | None
    preprocess: ClipPreprocess | None
    device: torch.device | str
    offload: bool
    takes_image: bool
    dtype: torch.dtype

    def record_encoding(self) -> None:
        """To be called once: repeated calls of the autoencoder become recorded graphs."""
        self._latent_moments = self._repeated(lambda image, size: latent_moments(self.vae, image, size))
        self._decode = self._repeated(lambda latents, chunk: decode_latents(self.vae, latents, chunk))

    def _repeated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, recorded as a graph when it is called again; not where its network moves in between."""
        return function if self.offload else Captured(function, limit=2)

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
    def features(self, images: Sequence[Tensor]) -> Tensor:
        """CLIP's features before its last layer, [B, N, D], for pictures [H, W, 3]."""
        with self._here(self.image_encoder):
            pixels = torch.stack([self.preprocess(image) for image in images]).to(self.device, self.dtype)
            return self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]

    @torch.no_grad()
    def moments(self, images: Sequence[Tensor], size: int) -> list[tuple[Tensor, Tensor]]:
        """(mean, standard deviation) of each picture's latent [4, size / 8, size / 8]."""
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
        moments = self.moments(images, size)
        if noise is None and generator is not None:
            noise = torch.stack([torch.randn(mean.shape, generator=generator) for mean, _ in moments])
        latents = []
        for i, (mean, std) in enumerate(moments):
            latents.append(mean if noise is None else mean + std * noise[i].to(std.device))
        return self.features(images), torch.stack(latents) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk: int = 4) -> Tensor:
        """Latents [..., 4, h, w] -> pictures [..., H, W, 3], float32 in 0..1; ``chunk`` views are decoded at a time."""
        with self._here(self.vae):
            pictures = self._decode(latents.to(self.device).reshape(-1, *latents.shape[-3:]), chunk)
        return pictures.reshape(*latents.shape[:-3], *pictures.shape[1:])
