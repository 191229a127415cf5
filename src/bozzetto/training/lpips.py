"""LPIPS with the VGG16 network, for users who have its weights; nothing of it is bundled or fetched.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018. The module's keys are
those of the published networks (`net.slice1.0.weight` ... `lin0.model.1.weight` ...), so their state dicts load directly.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError

# VGG16's convolutions by their place in torchvision's list of layers, in slices that end at the compared ReLUs; ReLUs
# and the 2x2 max pooling that opens every slice but the first hold no weights.
SLICES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPS = 1e-10


class VGG16Features(nn.Module):
    """The five compared feature maps of VGG16."""

    def __init__(self) -> None:
        super().__init__()
        for i, convolutions in enumerate(SLICES):
            layers = {str(place): nn.Conv2d(inputs, outputs, 3, padding=1) for place, inputs, outputs in convolutions}
            self.add_module(f"slice{i + 1}", nn.ModuleDict(layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Scaled pictures [N, 3, H, W] -> relu1_2, relu2_2, relu3_3, relu4_3, relu5_3; H and W of at least 16."""
        features: list[Tensor] = []
        for i in range(len(SLICES)):
            if i > 0:
                x = F.max_pool2d(x, 2)
            for convolution in self.get_submodule(f"slice{i + 1}").values():
                x = F.relu(convolution(x))
            features.append(x)
        return features


class ScalingLayer(nn.Module):
    """Pictures in -1..1 to what VGG16 was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale


class Head(nn.Module):
    """Learned weights of one layer's channels: a 1x1 convolution (index 1: a dropout stands before it in training)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        return self.model["1"](x)


class LPIPS(nn.Module):
    """LPIPS-VGG; random until `load_published` is given its weights. Frozen and differentiable in the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = ScalingLayer()
        self.net = VGG16Features()
        for i, convolutions in enumerate(SLICES):
            self.add_module(f"lin{i}", Head(convolutions[-1][2]))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> LPIPS:
        return self  # stays frozen inside a model that is being trained

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """``image`` and ``target`` [N, 3, H, W] in **-1..1** -> distance [N]."""
        total = image.new_zeros(image.shape[0], dtype=torch.float32)
        pairs = zip(self.net(self.scaling_layer(image)), self.net(self.scaling_layer(target)))
        for i, (a, b) in enumerate(pairs):
            difference = (_unit(a) - _unit(b)).square()
            total = total + self.get_submodule(f"lin{i}")(difference).float().mean((1, 2, 3))
        return total

    def load_published(self, state: Mapping[str, Tensor]) -> LPIPS:
        """Load a published state dict; returns self.

        Accepts the heads once (``lin0`` ...) or twice (``lins.0`` ... are copies and win, being written last); the
        constants of the scaling layer may be missing. Raises :class:`CheckpointError` for missing, unknown or misshapen
        tensors.
        """
        own = dict(state)
        for i in range(len(SLICES)):
            copy = own.pop(f"lins.{i}.model.1.weight", None)
            if copy is not None:
                own[f"lin{i}.model.1.weight"] = copy
        for name, buffer in self.scaling_layer.named_buffers():
            own.setdefault(f"scaling_layer.{name}", buffer)
        try:
            self.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(
                f"this is not a state dict of LPIPS-VGG (VGG16 features and five heads in one): {error}"
            ) from error
        return self


def _unit(x: Tensor) -> Tensor:
    x = x.float()
    # The tiny number inside the root keeps the gradient finite where all features are 0; it is below float32's step.
    return x / ((x.square().sum(1, keepdim=True) + 1e-24).sqrt() + EPS)
