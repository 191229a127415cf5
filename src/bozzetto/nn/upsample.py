"""Doubling of the resolution followed by a 3x3 convolution, at 4/9 of the arithmetic.

Every output pixel of "repeat pixels 2x2, then convolve 3x3" sees only 2x2 input pixels, with weights that are sums of the nine:
four 2x2 convolutions, one for each parity of the output's row and column, give the same result without the repeated map.
For training they are one transposed convolution with stride 2, whose 4x4 weights are such sums, so that cuDNN has its gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import kernels, use_kernels
from .bias import AddBias, convolve_with_bias
from .folded import Folded


class UpsampleConv(Folded, nn.Conv2d):
    """Nearest-neighbour doubling, then a 3x3 convolution; parameters and their names are ``nn.Conv2d``'s.

    After :meth:`fold_weights` (which ``for_inference`` calls), channels-last maps on CUDA take the four small convolutions.
    Training and loading weights forget the sums; without them, the same maps take one transposed convolution. 64 maps of 192
    channels of 32 x 32 on an H200 in bfloat16, forward and backward: 1.35 ms repeated, 0.54 transposed; of 16 x 16: 0.36, 0.21.
    """

    quarters: Tensor | None
    turned: Tensor | None
    folded = ("quarters", "turned")

    def __init__(self, in_channels: int, out_channels: int, bias_later: bool = False) -> None:
        """``bias_later``: :meth:`all_but_bias` is called; the folded form is then a transposed convolution."""
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.bias_later = bias_later
        self.forget()

    def all_but_bias(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """[N, C, H, W] -> ([N, D, 2H, 2W], the bias that it lacks; None where it lacks none).

        A transposed convolution writes the result at once, where four convolutions leave it to be joined; but a bias would
        cost it that pass. 64 maps, float16, an H200, us, joined with bias -> transposed without: 1,024 channels of 8 x 8 304 ->
        207, of 16 x 16 913 -> 875; 512 of 32 x 32 960 -> 850; 256 of 64 x 64 1,185 -> 943.
        """
        if self.turned is None or not use_kernels(x):
            return self(x), None
        return F.conv_transpose2d(x, self.turned, None, stride=2, padding=1), self.bias

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, D, 2H, 2W]
        if self.quarters is not None and use_kernels(x) and x.is_contiguous(memory_format=torch.channels_last):
            z = F.conv2d(x, self.quarters, padding=1)  # [N, 4D, H + 1, W + 1]
            return kernels()[3].interleave(z, self.bias)
        if use_kernels(x) and x.is_contiguous(memory_format=torch.channels_last):
            return self._transposed(x)
        return convolve_with_bias(doubled(x), self)

    def _transposed(self, x: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        weight = transposed_weights(self.weight.float()).to(dtype).contiguous(memory_format=torch.channels_last)
        y = F.conv_transpose2d(x.to(dtype), weight, stride=2, padding=1)
        return y if self.bias is None else AddBias.apply(y, self.bias)

    @torch.no_grad()
    def fold_weights(self) -> None:
        """Make the four 2x2 convolutions, or the transposed one, where the kernels run: on CUDA, without gradients."""
        self.forget()
        if use_kernels(self.weight) and not self.weight.requires_grad:
            if self.bias_later:
                turned = transposed_weights(self.weight.float()).to(self.weight.dtype)
                self.turned = turned.contiguous(memory_format=torch.channels_last)
                return
            quarters = quarter_weights(self.weight.float()).to(self.weight.dtype)
            self.quarters = quarters.contiguous(memory_format=torch.channels_last)


def doubled(x: Tensor) -> Tensor:
    """Every pixel 2x2 times, in ``x``'s dtype: autocast would make float32 of it, for nothing."""
    if x.is_cuda:
        with torch.autocast("cuda", enabled=False):
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def quarter_weights(weight: Tensor) -> Tensor:
    """[D, C, 3, 3] -> [4D, C, 2, 2], output row parity slowest, then column parity.

    The two taps of an even row are the input's rows above it and at it, those of an odd row at it and below it.
    """
    above, at, below = weight.unbind(2)  # each [D, C, 3]
    by_row = [torch.stack([above, at + below], 2), torch.stack([above + at, below], 2)]  # each [D, C, 2, 3]
    result = []
    for half in by_row:
        left, middle, right = half.unbind(3)  # each [D, C, 2]
        result += [torch.stack([left, middle + right], 3), torch.stack([left + middle, right], 3)]
    return torch.cat(result)


def transposed_weights(weight: Tensor) -> Tensor:
    """[D, C, 3, 3] -> [C, D, 4, 4] for ``conv_transpose2d`` with stride 2 and padding 1.

    An input pixel is two rows of the doubled map: row t of the result is the sum of the turned kernel's rows t - 1 and t.
    """
    turned = weight.flip(2, 3)
    shifted = [F.pad(turned, (left, 1 - left, up, 1 - up)) for up in (0, 1) for left in (0, 1)]  # each [D, C, 4, 4]
    return (shifted[0] + shifted[1] + shifted[2] + shifted[3]).transpose(0, 1)


def interleave_torch(z: Tensor, bias: Tensor | None) -> Tensor:
    """Results of the four convolutions [N, 4D, H + 1, W + 1] -> [N, D, 2H, 2W]; the model of the kernel."""
    n, d, h, w = z.shape[0], z.shape[1] // 4, z.shape[2] - 1, z.shape[3] - 1
    z = z.unflatten(1, (2, 2, d))
    parts = [z[:, a, b, :, a : a + h, b : b + w] for a in (0, 1) for b in (0, 1)]  # each [N, D, H, W]
    y = torch.stack(parts, 2).unflatten(2, (2, 2))  # [N, D, 2, 2, H, W]
    y = y.permute(0, 1, 4, 2, 5, 3).reshape(n, d, 2 * h, 2 * w)
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]
