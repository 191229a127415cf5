"""The multi-view diffusion UNet of MVDream and ImageDream: the noise in several views of one object, predicted together.

Sources: Shi et al. 2023, "MVDream" (arXiv 2308.16512); Wang & Shi 2023, "ImageDream" (arXiv 2312.02201). It is Stable
Diffusion's UNet with three additions: every view's camera is embedded and added to the time embedding, self-attention runs
over the tokens of all views, and (ImageDream) the picture enters as tokens of a second cross-attention (``resampler.py``)
and as one more view whose latent is the picture's own. Module names equal the keys of the published diffusers folders.

Batches are sample-major, view-minor: entry ``b * views + v`` is view v of sample b. No input is ever written to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.group_norm import GroupNorm
from ...nn.residual import add_scaled
from ...nn.upsample import UpsampleConv
from .resampler import Resampler
from .transformer import KeysValues, SpatialTransformer3D

TEXT_LENGTH = 77  # tokens that the text encoders of these models read


@dataclass(frozen=True)
class UNetConfig:
    """Shape of one multi-view UNet. The defaults are those of MVDream's published checkpoint; ImageDream has ``ip_dim=16``."""

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    num_res_blocks: int = 2
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    attention_resolutions: tuple[int, ...] = (4, 2, 1)  # downsampling factors of the levels that have attention
    num_head_channels: int = 64
    num_heads: int = -1  # of every level; -1: as many of ``num_head_channels`` as fit
    transformer_depth: int = 1
    context_dim: int = 1024  # channels of the text tokens
    camera_dim: int = 16  # numbers per camera; 0: no camera embedding
    ip_dim: int = 0  # image tokens; 0: no image input (MVDream)
    ip_weight: float = 1.0  # weight of the image tokens' attention beside the text's
    image_features_dim: int = 1280  # channels of the CLIP picture features


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal embedding [B, dim] (float32) of timesteps [B]: cosines first, then sines, a zero column if dim is odd."""
    half = dim // 2
    numbers = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(max_period) * numbers / half)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))


class ResBlock(nn.Module):
    """Two normalised convolutions; the time and camera embedding is added between them."""

    def __init__(self, channels: int, emb_channels: int, out_channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.in_layers = nn.Sequential(GroupNorm(32, channels, silu=True), nn.Identity(), conv)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        # Identities hold the places of the published network's SiLU and dropout of zero, so that the keys agree.
        conv = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.out_layers = nn.Sequential(GroupNorm(32, out_channels, silu=True), nn.Identity(), nn.Identity(), conv)
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def shift(self, emb: Tensor) -> Tensor:
        """What an embedding [R, E] adds to the first convolution's result, that convolution's own bias included: [R, C']."""
        return self.emb_layers(emb) + self.in_layers[2].bias

    def forward(self, x: Tensor, shift: Tensor, skip: Tensor | None = None) -> Tensor:
        """[N, C1, H, W] (and ``skip`` [N, C2, H, W] behind it) -> [N, C', H, W]; ``shift`` [N, C'] or [C'] of :meth:`shift`."""
        first, second = self.in_layers[2], self.out_layers[3]
        h = F.conv2d(self.in_layers[0](x, skip), first.weight, padding=1)
        h = F.conv2d(self.out_layers[0](h, shift=shift), second.weight, padding=1)
        return add_scaled(self._shortcut(x, skip), h, second.bias)

    def _shortcut(self, x: Tensor, skip: Tensor | None) -> Tensor:
        if skip is None:
            return self.skip_connection(x)
        n, c1, height, width = x.shape
        weight = self.skip_connection.weight.flatten(1)  # [C', C1 + C2]
        pixels, behind = (t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]) for t in (x, skip))  # [N*H*W, C]
        out = F.linear(pixels, weight[:, :c1], self.skip_connection.bias)
        out = torch.addmm(out, behind, weight[:, c1:].T)
        return out.reshape(n, height, width, -1).permute(0, 3, 1, 2)  # [N, C', H, W], channels-last


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # [B*F, C, H, W] -> [B*F, C, H/2, W/2]
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = UpsampleConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:  # [B*F, C, H, W] -> [B*F, C, 2H, 2W]
        return self.conv(x)


class Stage(nn.ModuleList):
    """One entry of the block lists: its layers in order, each given what it needs."""

    def forward(
        self,
        x: Tensor,
        shifts: Iterator[Tensor],
        memory: Iterator[list[KeysValues]],
        views: int,
        skip: Tensor | None = None,
    ) -> Tensor:
        """``shifts`` and ``memory`` yield what the UNet's residual blocks and transformers take, in their order."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x, skip = layer(x, next(shifts), skip), None
            elif isinstance(layer, SpatialTransformer3D):
                x = layer(x, next(memory), views)
            else:
                x = layer(x)
        return x


class MultiViewUNet(nn.Module):
    """Noise prediction for several views of each sample; see the module's text."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width, emb = config.model_channels, 4 * config.model_channels
        if config.ip_dim:
            self.image_embed = Resampler(
                dim=config.context_dim,
                num_queries=config.ip_dim,
                embedding_dim=config.image_features_dim,
                output_dim=config.context_dim,
            )
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        if config.camera_dim:
            self.camera_embed = nn.Sequential(nn.Linear(config.camera_dim, emb), nn.SiLU(), nn.Linear(emb, emb))

        def transformer(channels: int) -> SpatialTransformer3D:
            heads = config.num_heads if config.num_heads > 0 else channels // config.num_head_channels
            return SpatialTransformer3D(
                channels,
                heads,
                channels // heads,
                config.context_dim,
                config.transformer_depth,
                config.ip_dim,
                config.ip_weight,
            )

        self.input_blocks = nn.ModuleList([Stage([nn.Conv2d(config.in_channels, width, 3, padding=1)])])
        skips, channels, factor = [width], width, 1
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [ResBlock(channels, emb, mult * width)]
                channels = mult * width
                if factor in config.attention_resolutions:
                    layers.append(transformer(channels))
                self.input_blocks.append(Stage(layers))
                skips.append(channels)
            if level < len(config.channel_mult) - 1:
                self.input_blocks.append(Stage([Downsample(channels)]))
                skips.append(channels)
                factor *= 2

        self.middle_block = Stage(
            [ResBlock(channels, emb, channels), transformer(channels), ResBlock(channels, emb, channels)]
        )

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for i in range(config.num_res_blocks + 1):
                layers = [ResBlock(channels + skips.pop(), emb, mult * width)]
                channels = mult * width
                if factor in config.attention_resolutions:
                    layers.append(transformer(channels))
                if level and i == config.num_res_blocks:
                    layers.append(Upsample(channels))
                    factor //= 2
                self.output_blocks.append(Stage(layers))
        self.out = nn.Sequential(
            GroupNorm(32, channels, silu=True), nn.Identity(), nn.Conv2d(width, config.out_channels, 3, padding=1)
        )

    @property
    def size_multiple(self) -> int:
        """Latent height and width must be multiples of this."""
        return 2 ** (len(self.config.channel_mult) - 1)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor | Sequence[Tensor],
        context: Tensor | Sequence[list[KeysValues]],
        cameras: Tensor | None = None,
        *,
        views: int,
        ip: Tensor | None = None,
        ip_latent: Tensor | None = None,
        ip_tokens: Tensor | None = None,
    ) -> Tensor:
        """Predicted noise, [B*F, out_channels, h, w] for B samples of F = ``views`` views.

        What does not change from step to step may be worked out beforehand: :meth:`shifts` and :meth:`remember`.

        Args:
            x: noisy latents [B*F, in_channels, h, w]. With an image input, F counts the image's own view, the last one.
            timesteps: [B*F], or what :meth:`shifts` makes of them and the cameras.
            context: text tokens [B*F, L, context_dim], or what :meth:`remember` makes of text and image tokens, of R rows
                that serve B*F / R neighbours each.
            cameras: [B*F, camera_dim] (``cameras.diffusion_cameras``; zeros for the image's own view).
            ip: CLIP features of the picture, one copy per view [B*F, N, image_features_dim]; zeros where unconditional.
            ip_latent: VAE latent of the picture, one per sample [B, in_channels, h, w]; it takes the place of the last view
                of ``x``. Zeros where unconditional.
            ip_tokens: instead of ``ip``: ``image_embed(ip)`` [B*F, ip_dim, context_dim], worked out once for all steps.

        Raises:
            ValueError: shapes that do not belong together, or image inputs that are missing or not supported.
        """
        self._check(x, views, ip_latent)
        if isinstance(timesteps, Tensor):
            timesteps = self.shifts(timesteps, cameras)
        if isinstance(context, Tensor):
            if ip is not None and ip_tokens is None and self.config.ip_dim:
                ip, ip_tokens = None, self.image_embed(ip)
            if ip is not None:
                raise ValueError("give one of ip and ip_tokens, to a network that takes an image (ip_dim > 0)")
            context = self.remember(context, ip_tokens)
        if ip_latent is not None:
            h = x.unflatten(0, (-1, views))  # [B*F, C, h, w] -> [B, F, C, h, w]
            x = torch.cat([h[:, :-1], ip_latent[:, None].to(x.dtype)], dim=1).flatten(0, 1)
        if self.out[2].weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        shifts, memory, skips = iter(timesteps), iter(context), []
        for stage in self.input_blocks:
            x = stage(x, shifts, memory, views)
            skips.append(x)
        x = self.middle_block(x, shifts, memory, views)
        for stage in self.output_blocks:
            x = stage(x, shifts, memory, views, skips.pop())
        return self.out(x)

    def first_launches(self, device: torch.device, dtype: torch.dtype) -> list[Callable[[], object]]:
        """See :func:`bozzetto.nn.layout.for_inference`."""
        from ...nn.tokens_kernels import first_launches

        config = self.config
        widths = sorted({config.model_channels * mult for mult in config.channel_mult})
        head_dim = widths[0] // config.num_heads if config.num_heads > 0 else config.num_head_channels
        return first_launches(device, dtype, widths, head_dim, TEXT_LENGTH, config.ip_dim)

    def residual_blocks(self) -> list[ResBlock]:
        """In the order in which they run."""
        return [layer for layer in self.modules() if isinstance(layer, ResBlock)]

    def shifts(self, timesteps: Tensor, cameras: Tensor | None = None) -> list[Tensor]:
        """What noise levels [R] and cameras [R, camera_dim] mean to each residual block: tensors [R, C'], in their order.

        Raises :class:`ValueError` for cameras where the network has no use for them, or none where it has.
        """
        if (cameras is not None) != bool(self.config.camera_dim):
            raise ValueError("cameras must be given exactly when the network has a camera embedding (camera_dim > 0)")
        dtype = self.out[2].weight.dtype
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(dtype))
        if cameras is not None:
            emb = emb + self.camera_embed(cameras.to(dtype))
        return [layer.shift(emb) for layer in self.residual_blocks()]

    def remember(self, context: Tensor, ip_tokens: Tensor | None = None) -> list[list[KeysValues]]:
        """Keys and values of text tokens [R, L, context_dim] and image tokens [R, ip_dim, context_dim] for each transformer, in
        their order; the same for all noise levels.

        Raises :class:`ValueError` for image tokens where the network takes no image, or none where it does.
        """
        if (ip_tokens is not None) != bool(self.config.ip_dim):
            raise ValueError("image tokens must be given exactly when the network takes an image (ip_dim > 0)")
        if ip_tokens is not None:
            context = torch.cat([context, ip_tokens.to(context.dtype)], dim=1)
        return [layer.remember(context) for layer in self.modules() if isinstance(layer, SpatialTransformer3D)]

    def _check(self, x: Tensor, views: int, ip_latent: Tensor | None) -> None:
        if x.shape[0] % views or x.shape[1] != self.config.in_channels:
            raise ValueError(f"expected [B*{views}, {self.config.in_channels}, h, w] latents, got {tuple(x.shape)}")
        if x.shape[2] % self.size_multiple or x.shape[3] % self.size_multiple:
            raise ValueError(f"latent sides must be multiples of {self.size_multiple}, got {tuple(x.shape[2:])}")
        if (ip_latent is not None) != bool(self.config.ip_dim):
            raise ValueError("ip_latent must be given exactly when the network takes an image (ip_dim > 0)")
