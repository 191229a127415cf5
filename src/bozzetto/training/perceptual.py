"""Perceptual distance: how different two pictures look to a small network trained to name what is in them.

Features of a few layers are scaled to unit length at every place, and the squared difference is averaged over places and
layers. This is the construction of Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", 2018, without their learned layer weights and with another network, so its numbers must not be quoted as LPIPS.

Two networks, so that the loss never grades itself: ``mobilenet_v2`` for training (Sandler et al., 2018; weights of
torchvision, BSD-3), ``efficientnet_lite0`` for evaluation only (Google's EfficientNet-lite, Apache-2.0). Neither is part
of the installed package; ``python tools/fetch_perceptual.py`` puts both into the cache folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, MissingDependencyError

FETCH = "python tools/fetch_perceptual.py"
EPS = 1e-6  # inside the square root of a feature's length: finite gradients where all features are 0


@dataclass(frozen=True)
class Stage:
    """A run of inverted residual blocks; ``stride`` is that of the first one."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int = 3


@dataclass(frozen=True)
class Architecture:
    """A classifier made of inverted residual blocks, and how it wants its input.

    Attributes:
        stages: the blocks.
        taps: indices of blocks whose (linear) outputs are compared; the last one is the last block needed.
        mean, std: input normalisation of pictures in 0..1.
        same_padding: TensorFlow's padding, which puts the odd pixel of a strided convolution after the picture.
    """

    stages: tuple[Stage, ...]
    taps: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    same_padding: bool


ARCHITECTURES = {
    "mobilenet_v2": Architecture(
        stages=(
            Stage(1, 16, 1, 1),
            Stage(6, 24, 2, 2),
            Stage(6, 32, 3, 2),
            Stage(6, 64, 4, 2),
            Stage(6, 96, 3, 1),
            Stage(6, 160, 3, 2),
            Stage(6, 320, 1, 1),
        ),
        taps=(0, 2, 5, 12, 16),  # last block at 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture's size
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        same_padding=False,
    ),
    "efficientnet_lite0": Architecture(
        stages=(
            Stage(1, 16, 1, 1),
            Stage(6, 24, 2, 2),
            Stage(6, 40, 2, 2, 5),
            Stage(6, 80, 3, 2),
            Stage(6, 112, 3, 1, 5),
            Stage(6, 192, 4, 2, 5),
            Stage(6, 320, 1, 1),
        ),
        taps=(0, 2, 4, 10, 15),
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        same_padding=True,
    ),
}


class Convolution(nn.Conv2d):
    """Convolution with its batch normalisation folded in, then ReLU6 unless ``linear``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
        same_padding: bool = False,
    ) -> None:
        # With stride 1 both paddings are the same.
        self.after = same_padding and stride > 1
        super().__init__(inputs, outputs, kernel, stride, padding=0 if self.after else kernel // 2, groups=groups)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        if self.after:
            kernel, stride = self.kernel_size[0], self.stride[0]
            pads: list[int] = []
            for length in (x.shape[-1], x.shape[-2]):
                total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
                pads += [total // 2, total - total // 2]
            x = F.pad(x, pads)
        x = super().forward(x)
        return x if self.linear else F.relu6(x)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; a residual connection where shapes allow."""

    def __init__(self, inputs: int, stage: Stage, stride: int, same_padding: bool) -> None:
        super().__init__()
        width = inputs * stage.expansion
        self.expand = Convolution(inputs, width) if stage.expansion > 1 else None
        self.depthwise = Convolution(width, width, stage.kernel, stride, groups=width, same_padding=same_padding)
        self.project = Convolution(width, stage.channels, linear=True)
        self.residual = stride == 1 and inputs == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class FeatureNet(nn.Module):
    """The convolutional part of a classifier; ``forward`` gives the tapped features of pictures in 0..1."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.taps = architecture.taps
        self.register_buffer("mean", torch.tensor(architecture.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(architecture.std).view(1, 3, 1, 1), persistent=False)
        self.stem = Convolution(3, 32, 3, 2, same_padding=architecture.same_padding)
        blocks: list[nn.Module] = []
        channels = 32
        for stage in architecture.stages:
            for i in range(stage.repeats):
                blocks.append(
                    InvertedResidual(channels, stage, stage.stride if i == 0 else 1, architecture.same_padding)
                )
                channels = stage.channels
        self.blocks = nn.ModuleList(blocks)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """``rgb`` [N, 3, H, W] in 0..1 -> features [N, C, h, w] of every tap, outermost first."""
        x = self.stem((rgb - self.mean) / self.std)
        features: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                features.append(x)
        return features


class PerceptualDistance(nn.Module):
    """Distance of two batches of pictures; frozen, differentiable in the pictures.

    Works under autocast (bf16) and in ``torch.channels_last``; lengths and differences are always computed in float32.
    """

    def __init__(self, net: FeatureNet) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> PerceptualDistance:
        return self  # the network stays frozen inside a model that is being trained

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """``image`` and ``target`` [N, 3, H, W] in 0..1 (values outside are allowed) -> distance [N], 0 when equal."""
        if image.shape != target.shape or image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"expected equal shapes [N, 3, H, W], got {tuple(image.shape)} and {tuple(target.shape)}")
        total = image.new_zeros(image.shape[0], dtype=torch.float32)
        pairs = list(zip(self.net(image), self.net(target)))
        for a, b in pairs:
            a, b = a.float(), b.float()
            a = a * torch.rsqrt(a.square().sum(1, keepdim=True) + EPS)
            b = b * torch.rsqrt(b.square().sum(1, keepdim=True) + EPS)
            total = total + (a - b).square().sum(1).mean((1, 2))
        return total / len(pairs)


def cache_folder() -> Path:
    """The folder of downloaded files: ``$BOZZETTO_CACHE``, or ``~/.cache/bozzetto``."""
    given = os.environ.get("BOZZETTO_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "bozzetto"


def weights_file(name: str, path: str | Path | None = None) -> Path:
    """Where the features of network ``name`` are: ``path`` (a file or a folder), by default in the cache folder.

    Raises :class:`MissingDependencyError` naming the command that fetches them when the file is absent.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown perceptual network {name!r}; known: {', '.join(ARCHITECTURES)}")
    file = Path(path) if path is not None else cache_folder() / "perceptual"
    if file.suffix != ".safetensors":
        file = file / f"{name}_features.safetensors"
    if not file.is_file():
        raise MissingDependencyError(
            f"the weights of the perceptual distance are not at {file}; run `{FETCH}` in a source checkout of bozzetto "
            "(needs a package index), or set BOZZETTO_CACHE to the folder that holds them"
        )
    return file


def load_features(name: str = "mobilenet_v2", path: str | Path | None = None) -> FeatureNet:
    """The feature network ``name`` in float32, from `weights_file`. Raises :class:`CheckpointError` on a wrong file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = weights_file(name, path)
    net = FeatureNet(ARCHITECTURES[name])
    try:
        net.load_state_dict({key: value.float() for key, value in load_file(file).items()})
    except (RuntimeError, SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} does not hold the features of {name}; run `{FETCH}` again ({error})") from error
    return net


def load_perceptual(
    name: str = "mobilenet_v2", path: str | Path | None = None, device: torch.device | str = "cpu"
) -> PerceptualDistance:
    """The perceptual distance with weights, frozen, channels last, on ``device``.

    Args:
        name: "mobilenet_v2" for training, "efficientnet_lite0" for evaluation.
        path: the weights, a file or the folder it is in; by default the cache folder.
    """
    return PerceptualDistance(load_features(name, path)).to(device, memory_format=torch.channels_last)
