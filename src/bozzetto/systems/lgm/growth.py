"""Weights of a trained lgm-mini for a deeper one that does the same at first: it learns on instead of anew.

New blocks add nothing (their last layers are zero) and so only scale what passes through them; what normalisation does not undo
is scaled back. After Chen et al. 2016, "Net2Net". Further input channels get zero weights.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...errors import CheckpointError
from .blocks import SKIP_SCALE, Attention, ResnetBlock
from .inputs import PICTURE
from .network import LGM, LGMConfig


def grown(state: dict[str, Tensor], old: LGMConfig, new: LGMConfig) -> dict[str, Tensor]:
    """The state of a network ``new`` that computes what ``old`` does with ``state``.

    ``new`` may have one more layer in each block, more input channels behind the old ones, other slots, a branch for details
    (``detail.py``), more depths on each ray. Exactly the same up to the groups of channels that a normalisation takes
    partly from a skip connection, and to what the evidence does between two old depths.

    Raises:
        CheckpointError: the two differ in anything else, or ``state`` is not of ``old``.
    """
    extra = new.layers_per_block - old.layers_per_block
    same = ("layers_per_block", "in_channels", "slots", "candidates", "detail", "cascade")
    if replace(old, **{k: getattr(new, k) for k in same}) != new or extra not in (0, 1) or new.trunk != "unet":
        raise CheckpointError("a network grows by layers, input channels, depths on a ray and details, by nothing else")
    branch = ("detail", "in_channels", "candidates")
    if old.detail and (any(getattr(old, k) != getattr(new, k) for k in branch) or old.cascade not in (0, new.cascade)):
        raise CheckpointError("a branch for details grows by evidence around the depths, by nothing else")
    source, target = LGM(old), LGM(new)
    try:
        source.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"these weights are not of the network that is to grow: {error}") from None
    with torch.no_grad():
        _Growth(source, target, extra).run()
    return target.state_dict()


class _Growth:
    """Walks along both networks; ``gain`` is how large the new one's trunk is beside the old one's."""

    def __init__(self, source: LGM, target: LGM, extra: int) -> None:
        self.source, self.target, self.extra = source, target, extra
        self.gain = 1.0

    def run(self) -> None:
        old, new = self.source.unet, self.target.unet
        new.conv_in.weight.copy_(self._columns(old.conv_in.weight))
        new.conv_in.bias.copy_(old.conv_in.bias)
        skips = [1.0]
        for a, b in zip(old.down_blocks, new.down_blocks):
            for i, net in enumerate(a.nets):
                self._residual(net, b.nets[i])
                self._attention(a.attns[i], b.attns[i])
                skips.append(self.gain)
            if self.extra:
                self._idle(b.nets[-1], b.attns[-1])
                skips.append(self.gain)
            if a.downsample is not None:
                self._rescaled(a.downsample, b.downsample)
                skips.append(self.gain)
        self._residual(old.mid_block.nets[0], new.mid_block.nets[0])
        self._attention(old.mid_block.attns[0], new.mid_block.attns[0])
        self._residual(old.mid_block.nets[1], new.mid_block.nets[1])
        width = new.mid_block.nets[1].conv2.out_channels  # of the trunk
        for a, b in zip(old.up_blocks, new.up_blocks):
            for i, net in enumerate(a.nets):
                # The idle block down lies between the first block up and what that read; so does an idle block up.
                place = i + self.extra if i else 0
                self._residual(net, b.nets[place], width, skips.pop())
                self._attention(a.attns[i], b.attns[place])
                width = b.nets[0].conv2.out_channels
                if self.extra and i == 0:
                    skips.pop()
                    self._idle(b.nets[1], b.attns[1])
            if a.upsample is not None:
                self._rescaled(a.upsample, b.upsample)
        new.norm_out.load_state_dict(old.norm_out.state_dict())
        new.conv_out.load_state_dict(old.conv_out.state_dict())
        self.target.conv.load_state_dict(self.source.conv.state_dict())
        if self.source.detail is not None:
            branch = self.target.detail
            if branch.near is not None:  # says nothing at first
                branch.near.weight.zero_()
                branch.near.bias.zero_()
            branch.load_state_dict(self.source.detail.state_dict(), strict=False)

    def _columns(self, weight: Tensor) -> Tensor:
        """The input layer's weights, for more channels and perhaps more depths on each ray, among which the old ones lie."""
        old, new = self.source.config, self.target.config
        fold = new.patch**2
        own, told = PICTURE * fold, 2 * old.candidates
        grown = weight.new_zeros(len(weight), new.in_channels * fold, *weight.shape[2:])
        grown[:, :own] = weight[:, :own]
        if told:
            # The weight of an old depth goes to its neighbours among the new ones, as interpolation between them would have it.
            place = torch.linspace(0, new.candidates - 1, old.candidates, device=weight.device)
            low = place.floor().long().clamp_max(max(new.candidates - 2, 0))
            share = (place - low)[:, None, None]
            for half in range(2):
                given = weight[:, own + half * old.candidates : own + (half + 1) * old.candidates]
                start = own + half * new.candidates
                grown.index_add_(1, start + low, given * (1 - share))
                grown.index_add_(1, (start + low + 1).clamp_max(start + new.candidates - 1), given * share)
        rest = weight[:, own + told :]
        begin = own + 2 * new.candidates
        grown[:, begin : begin + rest.shape[1]] = rest
        return grown

    def _rescaled(self, old: torch.nn.Conv2d, new: torch.nn.Conv2d) -> None:
        """A convolution between two levels brings the trunk back to its old size."""
        new.weight.copy_(old.weight / self.gain)
        new.bias.copy_(old.bias)
        self.gain = 1.0

    def _residual(self, old: ResnetBlock, new: ResnetBlock, width: int | None = None, skip: float = 1.0) -> None:
        """An old block. In those up, ``width`` channels are the trunk's and the others come from a skip of gain ``skip``."""
        new.load_state_dict(old.state_dict())
        for value in (new.conv2.weight, new.conv2.bias):
            value.mul_(self.gain)
        if isinstance(new.shortcut, torch.nn.Conv2d):
            new.shortcut.bias.mul_(self.gain)
            if width is not None:
                new.shortcut.weight[:, width:].mul_(self.gain / skip)

    def _attention(self, old: torch.nn.Module | None, new: torch.nn.Module | None) -> None:
        if new is None:
            return
        new.load_state_dict(old.state_dict())
        for value in (new.attn.proj.weight, new.attn.proj.bias):
            value.mul_(self.gain)

    def _idle(self, block: ResnetBlock, attention: torch.nn.Module | None) -> None:
        """A new block, and its attention, that let the trunk through."""
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
        if isinstance(block.shortcut, torch.nn.Conv2d):
            channels = block.shortcut.out_channels
            block.shortcut.weight.zero_()
            block.shortcut.weight[:, :channels, 0, 0] = torch.eye(channels)
            block.shortcut.bias.zero_()
        self.gain *= SKIP_SCALE
        if attention is not None:
            last: Attention = attention.attn
            last.proj.weight.zero_()
            last.proj.bias.zero_()
            self.gain *= SKIP_SCALE
