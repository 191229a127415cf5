"""A network's last layers as one convolution, for training: what lies between them costs passes over the finest maps.

The 3x3 convolution, the unfolding of its channels into squares of pixels and the 1x1 convolution after that are one linear map,
whose weights are a product of theirs; the product of the weights is made anew in each step, where gradients go through it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.bias import AddBias
from ...nn.unfold import add_unfolded

WIDE = 16  # channels of the finest maps, of which the raw ones are the first: tensor cores want whole multiples of 8


def joined_weights(first: nn.Conv2d, second: nn.Conv2d, patch: int) -> tuple[Tensor, Tensor]:
    """``second(pixel_shuffle(first(x), patch))`` as one convolution before the shuffle.

    Args:
        first: [K * patch * patch, C, 3, 3]. second: [O, K, 1, 1].

    Returns:
        Weights [O, patch * patch, C, 3, 3] and bias [O, patch * patch].
    """
    squares = patch * patch
    mix = second.weight.flatten(1)  # [O, K]
    rows = first.weight.reshape(mix.shape[1], -1)  # [K, patch * patch * C * 9]
    weight = (mix @ rows).reshape(len(mix), squares, *first.weight.shape[1:])
    single = torch.promote_types(mix.dtype, torch.float32)  # sums of rounded biases would be rounded again
    inner = first.bias.to(single).reshape(-1, squares)  # [K, patch * patch]
    bias = (mix.to(single)[..., None] * inner).sum(1) + second.bias.to(single)[:, None]
    return weight, bias


def joined(features: Tensor, first: nn.Conv2d, second: nn.Conv2d, patch: int) -> Tensor:
    """``second(pixel_shuffle(first(features), patch))``: [N, C, h, w] -> [N, O, h * patch, w * patch]."""
    weight, bias = (t.flatten(0, 1) for t in joined_weights(first, second, patch))
    y = F.conv2d(features, weight.contiguous(memory_format=torch.channels_last), None, 1, first.padding)
    return F.pixel_shuffle(AddBias.apply(y, bias), patch)


def joined_with(
    features: Tensor, first: nn.Conv2d, second: nn.Conv2d, patch: int, hidden: Tensor, last: nn.Conv2d
) -> Tensor:
    """:func:`joined` plus ``last(hidden)``, where ``hidden`` [N, D, h * patch, w * patch] is a finer branch's.

    Returns:
        [N, O, h * patch, w * patch], the first of :data:`WIDE` channels in memory, channels-last.
    """
    weight, bias = joined_weights(first, second, patch)
    out = len(weight)
    weight, bias = weight.transpose(0, 1), bias.t() + last.bias.to(bias.dtype)  # by pixels, then channels
    weight = F.pad(weight, (0, 0) * 3 + (0, WIDE - out)).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    coarse = F.conv2d(features, weight, None, 1, first.padding)  # [N, patch * patch * WIDE, h, w]
    weight = F.pad(last.weight, (0, 0) * 3 + (0, WIDE - out)).contiguous(memory_format=torch.channels_last)
    fine = F.conv2d(hidden, weight, None, 1, last.padding)  # [N, WIDE, h * patch, w * patch]
    return add_unfolded(fine, coarse, F.pad(bias, (0, WIDE - out)).flatten(), patch, out)
