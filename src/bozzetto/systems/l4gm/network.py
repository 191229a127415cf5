"""L4GM's network: LGM's U-Net with an attention over time after every attention across views.

Source: Ren et al. 2024, "L4GM: Large 4D Gaussian Reconstruction Model" (arXiv 2406.10324). Module names equal the published
checkpoints' keys. The numbers of frames and of views are arguments of ``forward`` and in no shape: one checkpoint serves a
single frame, a chunk of a video, and the four frames of the interpolation model.

Pictures are always ordered (batch, frame, view), the view running fastest: B*T*V along the first axis.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.backend import pointwise_kernel, use_kernels
from ...nn.bias import add_bias, convolve_with_bias
from ...nn.convolution import convolve_padded
from ...nn.folded import Folded
from ...nn.group_norm import GroupNorm, group_norm
from ...nn.residual import add_scaled
from ...nn.upsample import UpsampleConv
from ..lgm.blocks import EPS, GROUPS, SKIP_SCALE, Attention, MVAttention, ResnetBlock
from ..lgm.network import LGMConfig
from .repeated import Repeated


class TemporalAttention(nn.Module):
    """Self-attention over all pixels of all frames of one view (frame-major, then row-major)."""

    def __init__(self, dim: int, num_heads: int | None = 16) -> None:
        super().__init__()
        self.norm = GroupNorm(GROUPS, dim, eps=EPS)
        self.attn = Attention(dim, num_heads or max(dim // 64, 1))

    def forward(self, x: Tensor, frames: int, views: int) -> Tensor:  # [B*T*V, C, H, W]
        n, c, h, w = x.shape
        tokens = self.norm(x, turn=(frames, views))  # [B*V*T, C, H, W]
        tokens = tokens.permute(0, 2, 3, 1).reshape(n // frames, frames * h * w, c)  # [B*V, T*H*W, C]
        return self.attn.add_to(x, self.attn(tokens), turn=(views, frames))  # [B*T*V, C, H, W]


class _Block(nn.Module):
    """What the three kinds of blocks share: pairs of attentions, first across views, then over time."""

    def _add_attentions(self, channels: int, count: int, enabled: bool, num_heads: int | None) -> None:
        def pick(kind: type[nn.Module]) -> nn.ModuleList:
            return nn.ModuleList([kind(channels, num_heads) if enabled else None for _ in range(count)])

        self.attns = pick(MVAttention)
        self.t_attns = pick(TemporalAttention)

    def _attend(self, layer: int, x: Tensor, frames: int, views: int) -> Tensor:
        if self.attns[layer] is None:
            return x
        return self.t_attns[layer](self.attns[layer](x, views), frames, views)


class DownBlock(_Block):
    """Residual blocks with attentions, then a strided convolution; every result is kept for the way up."""

    def __init__(
        self, in_channels: int, out_channels: int, layers: int, downsample: bool, attention: bool, heads: int | None
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            [ResnetBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(layers)]
        )
        self._add_attentions(out_channels, layers, attention, heads)
        self.downsample = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1) if downsample else None

    def forward(
        self, x: Tensor, frames: int, views: int, repeated: Repeated | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for i, net in enumerate(self.nets):
            x = net(x)
            if repeated is not None and self.attns[i] is not None:
                x = repeated.everywhere(x)
            x = self._attend(i, x, frames, views)
            skips.append(x)
        if self.downsample is not None:
            x = convolve_with_bias(x, self.downsample, moments=True)
            skips.append(x)
        return x, skips


class MidBlock(_Block):
    """Residual block, attentions, residual block."""

    def __init__(self, channels: int, attention: bool, heads: int | None) -> None:
        super().__init__()
        self.nets = nn.ModuleList([ResnetBlock(channels, channels), ResnetBlock(channels, channels)])
        self._add_attentions(channels, 1, attention, heads)

    def forward(self, x: Tensor, frames: int, views: int) -> Tensor:
        return self.nets[1](self._attend(0, self.nets[0](x), frames, views))


class UpBlock(_Block):
    """Consumes one kept result per layer, newest first, then doubles the resolution."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,  # channels of the last layer's skip, which comes from one level up
        out_channels: int,
        layers: int,
        upsample: bool,
        attention: bool,
        heads: int | None,
    ) -> None:
        super().__init__()
        nets = []
        for i in range(layers):
            trunk = in_channels if i == 0 else out_channels
            skip = skip_channels if i == layers - 1 else out_channels
            nets.append(ResnetBlock(trunk + skip, out_channels))
        self.nets = nn.ModuleList(nets)
        self._add_attentions(out_channels, layers, attention, heads)
        self.upsample = UpsampleConv(out_channels, out_channels, bias_later=True) if upsample else None

    def forward(
        self, x: Tensor, skips: list[Tensor], frames: int, views: int, missing: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(result, bias that it lacks and that whoever reads it must add); ``missing``: the same of ``x``."""
        for i, net in enumerate(self.nets):
            x, missing = self._attend(i, net(x, skips.pop(), missing), frames, views), None
        return (x, None) if self.upsample is None else self.upsample.all_but_bias(x)


class UNet(nn.Module):
    """LGM's asymmetric U-Net (fewer levels up than down) over all frames and views together."""

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        down, up = config.down_channels, config.up_channels
        layers, heads = config.layers_per_block, config.num_heads
        if up[0] != down[-1]:
            raise ValueError(f"up_channels must start with the last of down_channels ({down[-1]}), got {up[0]}")
        self.conv_in = nn.Conv2d(config.in_channels, down[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            [
                DownBlock(down[max(i - 1, 0)], c, layers, i < len(down) - 1, config.down_attention[i], heads)
                for i, c in enumerate(down)
            ]
        )
        self.mid_block = MidBlock(down[-1], config.mid_attention, heads)
        self.up_blocks = nn.ModuleList(
            [
                UpBlock(
                    up[max(i - 1, 0)],
                    down[max(-2 - i, -len(down))],
                    c,
                    layers + 1,
                    i < len(up) - 1,
                    config.up_attention[i],
                    heads,
                )
                for i, c in enumerate(up)
            ]
        )
        self.norm_out = GroupNorm(GROUPS, up[-1], eps=EPS, silu=True)
        self.conv_out = nn.Conv2d(up[-1], config.out_channels, 3, padding=1)
        # The last levels down are as fine as the output; what lies before them is never asked for.
        self.skips_used = len(up) * (layers + 1)

    def forward(self, x: Tensor, frames: int, views: int, repeated: Repeated | None = None) -> Tensor:
        """[B*T*V, 9, H, W], or the distinct ones of these pictures as ``repeated`` says -> [B*T*V, 14, h, h]."""
        return self.conv_out(self.features(x, frames, views, repeated))

    def features(self, x: Tensor, frames: int, views: int, repeated: Repeated | None = None) -> Tensor:
        """What ``conv_out`` reads: [B*T*V, C, h, h]."""
        if use_kernels(x):
            x = convolve_padded(x, self.conv_in)
        else:
            x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for block in self.down_blocks:
            x, new = block(x, frames, views, repeated)
            skips = (skips + new)[-self.skips_used :]  # full-resolution maps of 64 pictures are gigabytes
        if repeated is not None:
            x, skips = repeated.everywhere(x), [repeated.everywhere(skip) for skip in skips]
        x, missing = self.mid_block(x, frames, views), None
        for block in self.up_blocks:
            x, missing = block(x, skips, frames, views, missing)
        return self.norm_out(x)


class L4GM(Folded):
    """U-Net plus the final 1x1 convolution. The raw channels are LGM's: ``lgm.heads`` turns them into Gaussians.

    After :meth:`fold_weights` (which ``for_inference`` calls), the last two convolutions are one, on CUDA. Training and loading
    weights forget it.
    """

    last: Tensor | None
    last_bias: Tensor | None
    folded = ("last", "last_bias")

    def __init__(self, config: LGMConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config)
        self.conv = nn.Conv2d(config.out_channels, config.out_channels, 1)
        self.forget()

    @torch.no_grad()
    def fold_weights(self) -> None:
        """Make of the last two convolutions one, where the kernels run: channels padded to a multiple of 8, on tensor cores."""
        self.forget()
        first, second = self.unet.conv_out, self.conv
        if not use_kernels(second.weight) or second.weight.requires_grad:
            return
        turn = second.weight[:, :, 0, 0].float()  # [D, D]
        weight = (turn @ first.weight.float().flatten(1)).unflatten(1, first.weight.shape[1:])  # [D, C, 3, 3]
        padding = -len(weight) % 8
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, padding)).to(second.weight.dtype)
        bias = F.pad(turn @ first.bias.float() + second.bias.float(), (0, padding)).to(second.bias.dtype)
        self.last, self.last_bias = weight.contiguous(memory_format=torch.channels_last), bias

    def first_launches(self, device: torch.device, dtype: torch.dtype) -> list[Callable[[], object]]:
        """One launch of each kernel that only attention over time, or only so many pictures, use; for ``for_inference``."""
        width = self.config.down_channels[-1]
        few, some, many = (
            torch.zeros((4, c, side, side), device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            for c, side in ((width, 4), (width, 16), (64, 40))  # norms of few, some and many pixels
        )
        w = torch.zeros(width, device=device, dtype=dtype)
        large = pointwise_kernel()
        return [
            lambda: group_norm(few, GROUPS, w, w, turn=(2, 2)),
            lambda: group_norm(some, GROUPS, w, w, turn=(2, 2)),
            lambda: group_norm(many, GROUPS, w[:64], w[:64], turn=(2, 2)),
            lambda: add_scaled(few, few, w, SKIP_SCALE, turn=(2, 2)),
            *(large.first_launches(device, dtype) if large.usable(device) else ()),
        ]

    def forward(self, inputs: Tensor, same: int = 0) -> Tensor:
        """Network input [B, T, V, 9, S, S] -> raw channels [B, T, V, 14, h, h], h = ``splat_size``; any T, V >= 1.

        ``same``: how many of the last views are the same in all frames, as the caller knows; the first frame's are used. The
        result is that of 0, sooner (:mod:`.repeated`).
        """
        b, t, v, c, h, w = inputs.shape
        factor = 2 ** (len(self.config.down_channels) - 1)
        if c != self.config.in_channels or h % factor or w % factor:
            raise ValueError(
                f"expected [B, T, V, {self.config.in_channels}, H, W] with H and W multiples of {factor}, "
                f"got {tuple(inputs.shape)}"
            )
        if not 0 <= same <= v:
            raise ValueError(f"of {v} views, {same} cannot be the same in all frames")
        repeated = Repeated(b, t, v - same, same) if same and t > 1 else None
        x = inputs.reshape(b * t * v, c, h, w) if repeated is None else repeated.distinct(inputs)
        x = self.unet.features(x, t, v, repeated)
        if self.last is not None and use_kernels(x):
            raw = add_bias(F.conv2d(x, self.last, padding=1), self.last_bias)[:, : self.config.out_channels]
        else:
            raw = self.conv(self.unet.conv_out(x))
        return raw.reshape(b, t, v, *raw.shape[1:])
