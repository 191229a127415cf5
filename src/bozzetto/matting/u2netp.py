"""U2NETP, the small U^2-Net of salient-object detection: which pixels belong to the thing in the picture.

Architecture: Qin et al., "U^2-Net: Going Deeper with Nested U-Structure for Salient Object Detection", Pattern
Recognition 2020. Batch normalisation is folded into the convolutions, as in the published ONNX file, so that every layer
is a 3x3 convolution followed by ReLU. 119 convolutions, 1.13 M parameters, about 0.5 s for a 320x320 picture on one core.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError

WEIGHTS = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "u2netp.safetensors"
WEIGHTS_SHA256 = "7ce6946d53c9c70571864ad847722988d4d20c8f0770605554377aa664ce7a30"
SIDE = 320  # the network was trained on pictures of this size
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class ConvReLU(nn.Conv2d):
    """3x3 convolution (same size) and ReLU."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class ResidualU(nn.Module):
    """A small U-Net around which a residual connection runs (an "RSU" block).

    ``levels`` encoder convolutions with 2x2 max pooling between them, a dilated bottom convolution, and as many decoder
    convolutions. With ``dilated`` the resolution stays and dilations 1, 2, 4, 8 take the place of pooling ("RSU-4F").
    """

    def __init__(self, levels: int, inputs: int, middle: int = 16, outputs: int = 64, dilated: bool = False) -> None:
        super().__init__()
        self.dilated = dilated
        dilation = [2**i if dilated else 1 for i in range(levels)]
        self.input = ConvReLU(inputs, outputs)
        self.encode = nn.ModuleList(ConvReLU(outputs if i == 0 else middle, middle, dilation[i]) for i in range(levels))
        self.bottom = ConvReLU(middle, middle, 2**levels if dilated else 2)
        # Execution order: deepest level first.
        self.decode = nn.ModuleList(
            ConvReLU(2 * middle, outputs if i == 0 else middle, dilation[i]) for i in reversed(range(levels))
        )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.input(x)
        skips: list[Tensor] = []
        x = residual
        for i, conv in enumerate(self.encode):
            if i > 0 and not self.dilated:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            x = conv(x)
            skips.append(x)
        x = self.bottom(x)
        for conv in self.decode:
            skip = skips.pop()
            x = conv(torch.cat([resize_like(x, skip), skip], dim=1))
        return x + residual


class U2NetP(nn.Module):
    """RGB picture to seven saliency maps in 0..1; the first is the fused one, the result."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = ResidualU(6, 3)
        self.stage2 = ResidualU(5, 64)
        self.stage3 = ResidualU(4, 64)
        self.stage4 = ResidualU(3, 64)
        self.stage5 = ResidualU(3, 64, dilated=True)
        self.stage6 = ResidualU(3, 64, dilated=True)
        self.stage5d = ResidualU(3, 128, dilated=True)
        self.stage4d = ResidualU(3, 128)
        self.stage3d = ResidualU(4, 128)
        self.stage2d = ResidualU(5, 128)
        self.stage1d = ResidualU(6, 128)
        self.side1 = nn.Conv2d(64, 1, 3, padding=1)
        self.side2 = nn.Conv2d(64, 1, 3, padding=1)
        self.side3 = nn.Conv2d(64, 1, 3, padding=1)
        self.side4 = nn.Conv2d(64, 1, 3, padding=1)
        self.side5 = nn.Conv2d(64, 1, 3, padding=1)
        self.side6 = nn.Conv2d(64, 1, 3, padding=1)
        self.outconv = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x`` [N, 3, H, W], normalised -> seven maps [N, 1, H, W] in 0..1 (fused, then side 1 to 6)."""
        skips: list[Tensor] = []
        for i, stage in enumerate((self.stage1, self.stage2, self.stage3, self.stage4, self.stage5)):
            x = stage(x if i == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            skips.append(x)
        x = self.stage6(F.max_pool2d(x, 2, ceil_mode=True))
        decoded = [x]
        for stage in (self.stage5d, self.stage4d, self.stage3d, self.stage2d, self.stage1d):
            skip = skips.pop()
            x = stage(torch.cat([resize_like(x, skip), skip], dim=1))
            decoded.append(x)
        heads = (self.side6, self.side5, self.side4, self.side3, self.side2, self.side1)
        sides = [head(feature) for head, feature in zip(heads, decoded)][::-1]
        sides = [resize_like(side, sides[0]) for side in sides]
        fused = self.outconv(torch.cat(sides, dim=1))
        return tuple(torch.sigmoid(side) for side in (fused, *sides))


def load_u2netp(path: str | Path | None = None) -> U2NetP:
    """The network in evaluation mode with the bundled weights, or those of ``path`` (safetensors of the same keys).

    Raises :class:`CheckpointError` when the file is absent, damaged or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    source = WEIGHTS if path is None else Path(path)
    try:
        content = source.read_bytes()
        if path is None and hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
            raise CheckpointError(f"the bundled matting weights {source} are damaged; reinstall bozzetto")
        state = load(content)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the matting weights {source} ({error}); reinstall bozzetto") from error
    model = U2NetP()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not hold the weights of U2NETP: {error}") from error
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=4)
def _bundled(device: str) -> U2NetP:
    return load_u2netp().to(device)


@torch.inference_mode()
def saliency(rgb: Tensor, model: U2NetP | None = None) -> Tensor:
    """Saliency [H, W] in 0..1 of a picture [H, W, 3] in 0..1, as the network says it (not stretched).

    Runs where ``rgb`` is. A picture without contrast (one pixel, one colour) still gives a finite map.
    """
    height, width = rgb.shape[:2]
    model = _bundled(str(rgb.device)) if model is None else model
    x = rgb.float().permute(2, 0, 1)[None]  # [H, W, 3] -> [1, 3, H, W]
    x = F.interpolate(x, size=(SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    x = x / x.amax().clamp_min(1e-6)
    mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    fused = model((x - mean) / std)[0]
    return F.interpolate(fused, size=(height, width), mode="bicubic", align_corners=False, antialias=True)[0, 0].clamp(
        0, 1
    )
