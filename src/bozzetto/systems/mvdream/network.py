"""The multi-view diffusion UNet of MVDream and ImageDream: the noise in several views of one object, predicted together.

Sources: Shi et al. 2023, "MVDream" (arXiv 2308.16512); Wang & Shi 2023, "ImageDream" (arXiv 2312.02201). It is Stable
Diffusion's UNet with three additions: every view's camera is embedded and added to the time embedding, self-attention runs
over the tokens of all views, and (ImageDream) the picture enters as tokens of a second cross-attention (``resampler.py``)
and as one more view whose latent is the picture's own. Module names equal the keys of the published diffusers folders.

Batches are sample-major, view-minor: entry ``b * views + v`` is view v of sample b. No input is ever written to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resampler import Resampler


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


def _norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=eps)


class ResBlock(nn.Module):
    """Two normalised convolutions; the time and camera embedding is added between them."""

    def __init__(self, channels: int, emb_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        # The identity holds the place of the published network's dropout of zero, so that the keys agree.
        self.out_layers = nn.Sequential(
            _norm(out_channels), nn.SiLU(), nn.Identity(), nn.Conv2d(out_channels, out_channels, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # [B*F, C, H, W], [B*F, E] -> [B*F, C', H, W]
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # [B*F, C, H, W] -> [B*F, C, H/2, W/2]
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # [B*F, C, H, W] -> [B*F, C, 2H, 2W]
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Multi-head attention to ``context`` (default: to itself); with ``ip_dim``, also to the image tokens at its end."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        context_dim: int | None = None,
        ip_dim: int = 0,
        ip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        inner, context_dim = heads * head_dim, context_dim or dim
        self.heads, self.ip_dim, self.ip_weight = heads, ip_dim, ip_weight
        if ip_dim:
            self.to_k_ip = nn.Linear(context_dim, inner, bias=False)
            self.to_v_ip = nn.Linear(context_dim, inner, bias=False)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim))

    def _split(self, x: Tensor) -> Tensor:  # [B, L, heads*d] -> [B, heads, L, d]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # [B, L, C], [B, M, D] -> [B, L, C]
        context = x if context is None else context
        q = self._split(self.to_q(x))
        if self.ip_dim:
            context, image = context[:, : -self.ip_dim], context[:, -self.ip_dim :]
        out = F.scaled_dot_product_attention(q, self._split(self.to_k(context)), self._split(self.to_v(context)))
        if self.ip_dim:
            k, v = self._split(self.to_k_ip(image)), self._split(self.to_v_ip(image))
            out = out + self.ip_weight * F.scaled_dot_product_attention(q, k, v)
        return self.to_out(out.transpose(1, 2).flatten(2))  # [B, heads, L, d] -> [B, L, heads*d]


class GEGLU(nn.Module):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * out)

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., out]
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, dim: int, mult: int = 4) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(dim, dim * mult), nn.Identity(), nn.Linear(dim * mult, dim))

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., C]
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention over all views of a sample, cross-attention per view, feed-forward; each pre-normalised and residual."""

    def __init__(
        self, dim: int, heads: int, head_dim: int, context_dim: int, ip_dim: int = 0, ip_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.attn1 = Attention(dim, heads, head_dim)
        self.ff = FeedForward(dim)
        self.attn2 = Attention(dim, heads, head_dim, context_dim, ip_dim, ip_weight)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, context: Tensor, views: int) -> Tensor:  # [B*F, L, C], [B*F, M, D]
        bf, length, c = x.shape
        joined = self.norm1(x).reshape(bf // views, views * length, c)  # [B, F*L, C]
        x = x + self.attn1(joined).reshape(bf, length, c)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer3D(nn.Module):
    """Feature maps as tokens through transformer blocks that see all views."""

    def __init__(
        self,
        channels: int,
        heads: int,
        head_dim: int,
        context_dim: int,
        depth: int = 1,
        ip_dim: int = 0,
        ip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.norm = _norm(channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(inner, heads, head_dim, context_dim, ip_dim, ip_weight) for _ in range(depth)]
        )
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x: Tensor, context: Tensor, views: int) -> Tensor:  # [B*F, C, H, W], [B*F, M, D]
        bf, c, h, w = x.shape
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # [B*F, C, H, W] -> [B*F, H*W, inner]
        for block in self.transformer_blocks:
            tokens = block(tokens, context, views)
        return x + self.proj_out(tokens).transpose(1, 2).reshape(bf, c, h, w)


class Stage(nn.ModuleList):
    """One entry of the block lists: its layers in order, each given what it needs."""

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, views: int) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer3D):
                x = layer(x, context, views)
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
            return SpatialTransformer3D(
                channels,
                channels // config.num_head_channels,
                config.num_head_channels,
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
        self.out = nn.Sequential(_norm(channels), nn.SiLU(), nn.Conv2d(width, config.out_channels, 3, padding=1))

    @property
    def size_multiple(self) -> int:
        """Latent height and width must be multiples of this."""
        return 2 ** (len(self.config.channel_mult) - 1)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        cameras: Tensor | None = None,
        *,
        views: int,
        ip: Tensor | None = None,
        ip_latent: Tensor | None = None,
        ip_tokens: Tensor | None = None,
    ) -> Tensor:
        """Predicted noise, [B*F, out_channels, h, w] for B samples of F = ``views`` views.

        Args:
            x: noisy latents [B*F, in_channels, h, w]. With an image input, F counts the image's own view, the last one.
            timesteps: [B*F].
            context: text tokens [B*F, L, context_dim].
            cameras: [B*F, camera_dim] (``cameras.diffusion_cameras``; zeros for the image's own view).
            ip: CLIP features of the picture, one copy per view [B*F, N, image_features_dim]; zeros where unconditional.
            ip_latent: VAE latent of the picture, one per sample [B, in_channels, h, w]; it takes the place of the last view
                of ``x``. Zeros where unconditional.
            ip_tokens: instead of ``ip``: ``image_embed(ip)`` [B*F, ip_dim, context_dim], worked out once for all steps.

        Raises:
            ValueError: shapes that do not belong together, or image inputs that are missing or not supported.
        """
        config = self.config
        self._check(x, views, cameras, ip, ip_latent, ip_tokens)
        emb = self.time_embed(timestep_embedding(timesteps, config.model_channels).to(x.dtype))
        if cameras is not None:
            emb = emb + self.camera_embed(cameras.to(emb.dtype))
        if config.ip_dim:
            tokens = self.image_embed(ip) if ip_tokens is None else ip_tokens
            context = torch.cat([context, tokens.to(context.dtype)], dim=1)
            h = x.unflatten(0, (-1, views))  # [B*F, C, h, w] -> [B, F, C, h, w]
            x = torch.cat([h[:, :-1], ip_latent[:, None].to(x.dtype)], dim=1).flatten(0, 1)
        skips = []
        for stage in self.input_blocks:
            x = stage(x, emb, context, views)
            skips.append(x)
        x = self.middle_block(x, emb, context, views)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), emb, context, views)
        return self.out(x)

    def _check(self, x, views, cameras, ip, ip_latent, ip_tokens) -> None:
        if x.shape[0] % views or x.shape[1] != self.config.in_channels:
            raise ValueError(f"expected [B*{views}, {self.config.in_channels}, h, w] latents, got {tuple(x.shape)}")
        if x.shape[2] % self.size_multiple or x.shape[3] % self.size_multiple:
            raise ValueError(f"latent sides must be multiples of {self.size_multiple}, got {tuple(x.shape[2:])}")
        if (cameras is not None) != bool(self.config.camera_dim):
            raise ValueError("cameras must be given exactly when the network has a camera embedding (camera_dim > 0)")
        image = ((ip is None) != (ip_tokens is None)) and ip_latent is not None
        if self.config.ip_dim and not image:
            raise ValueError("an image-conditioned network needs ip_latent and one of ip and ip_tokens")
        if not self.config.ip_dim and not (ip is None and ip_tokens is None and ip_latent is None):
            raise ValueError("this network takes no image (ip_dim is 0)")
