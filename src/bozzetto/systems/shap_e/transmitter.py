"""Latent -> implicit function. Each row of the latent becomes one row of the weights of the first layers of an MLP, which
maps a point to a signed distance, densities and colours (section 3 of arXiv 2305.02463; the encoder is not needed for this).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError

POSITION_BANDS, DIRECTION_BANDS = 15, 8
POSITION_CODE, DIRECTION_CODE = 3 + 6 * POSITION_BANDS, 3 + 6 * DIRECTION_BANDS  # 93 and 51 numbers
OUTPUTS = 12
SDF, COARSE_DENSITY, FINE_DENSITY = slice(0, 1), slice(1, 2), slice(2, 3)
STF_RGB, COARSE_RGB, FINE_RGB = slice(3, 6), slice(6, 9), slice(9, 12)
BATCH = 1 << 16  # points evaluated at once; bounds the memory (256 channels: 64 MiB per layer)


@dataclass(frozen=True)
class TransmitterConfig:
    """Shape of the decoder. The defaults are the released transmitter."""

    width: int = 1024  # columns of the latent
    hidden: int = 256  # channels of the MLP
    projected: int = 4  # layers whose weights come from the latent
    layers: int = 6  # hidden layers; the output layer is one more
    direction_at: int = 4  # layer that also sees the direction

    def layer_shape(self, i: int) -> tuple[int, int]:
        """(outputs, inputs) of layer ``i`` of the MLP."""
        inputs = POSITION_CODE if i == 0 else self.hidden
        return (
            OUTPUTS if i == self.layers else self.hidden,
            inputs + (DIRECTION_CODE if i == self.direction_at else 0),
        )

    @property
    def rows(self) -> int:
        """Rows of the latent."""
        return self.projected * self.hidden


def positional_code(x: Tensor, bands: int) -> Tensor:
    """NeRF's code [..., 3 + 6 * bands] of [..., 3]: the values, sines of 2^k times them (k slowest), the cosines of these.

    The cosine is taken as a sine a quarter turn later, in the input's precision: at 2^14 the rounding of that sum is visible.
    """
    powers = 2.0 ** torch.arange(bands, dtype=x.dtype, device=x.device)
    block = (x[..., None, :] * powers[:, None]).flatten(-2)  # [..., bands, 3] -> [..., bands * 3]
    return torch.cat([x, block.sin(), (block + math.pi / 2).sin()], dim=-1)


class RowProjection(nn.Module):
    """Latent rows -> rows of one weight matrix: a linear map of its own for each row, LayerNorm, then the bias."""

    def __init__(self, rows: int, columns: int, width: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.proj = nn.Linear(width, rows * columns)
        self.norm = nn.LayerNorm(columns, eps=1e-5)

    def forward(self, latent: Tensor) -> Tensor:  # [B, rows, width] -> [B, rows, columns]
        weight = self.proj.weight.reshape(self.rows, self.columns, -1)  # [rows, columns, width]
        h = torch.einsum("bvd,vcd->bvc", latent, weight)
        return self.norm(h) + self.proj.bias.reshape(self.rows, self.columns)


class ParamsProj(nn.Module):
    def __init__(self, config: TransmitterConfig) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {
                f"nerstf__mlp__{i}__weight": RowProjection(*config.layer_shape(i), config.width)
                for i in range(config.projected)
            }
        )


class ProjectedLinear(nn.Module):
    """A layer whose weights come from the latent; only its bias is learned."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))


class FieldMLP(nn.Module):
    def __init__(self, config: TransmitterConfig) -> None:
        super().__init__()
        shapes = [config.layer_shape(i) for i in range(config.layers + 1)]
        self.mlp = nn.ModuleList(
            [ProjectedLinear(o) if i < config.projected else nn.Linear(n, o) for i, (o, n) in enumerate(shapes)]
        )


class Void(nn.Module):
    """What lies behind everything: black in the released file."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("background", torch.zeros(3))


class Renderer(nn.Module):
    def __init__(self, config: TransmitterConfig) -> None:
        super().__init__()
        self.nerstf = FieldMLP(config)
        self.void = Void()


class Transmitter(nn.Module):
    """The decoder half of the transmitter; its keys are those of ``vector_decoder.pt``."""

    def __init__(self, config: TransmitterConfig) -> None:
        super().__init__()
        self.config = config
        self.params_proj = ParamsProj(config)
        self.renderer = Renderer(config)

    @torch.no_grad()
    def fields(self, latent: Tensor) -> ImplicitFields:
        """The implicit function of one latent [rows * width].

        Raises:
            InputError: the latent has another size, or holds NaN or infinity.
        """
        config = self.config
        if latent.shape != (config.rows * config.width,):
            raise InputError(
                f"a latent of this decoder has {config.rows * config.width} numbers, got {tuple(latent.shape)}"
            )
        if not bool(torch.isfinite(latent).all()):
            raise InputError("the latent holds NaN or infinity; sample it again with another seed, or in float32")
        device = self.renderer.void.background.device
        rows = latent.to(device, torch.float32).reshape(1, config.rows, config.width)
        weights = []
        for i, projection in enumerate(self.params_proj.projections.values()):
            weights.append(projection(rows[:, i * config.hidden : (i + 1) * config.hidden])[0])
        return ImplicitFields(config, self.renderer, tuple(weights))


@dataclass(frozen=True)
class ImplicitFields:
    """A shape: functions of points [..., 3] in Shap-E's frame (z up, inside [-1, 1]^3); all of them in float32.

    Attributes:
        config: of the decoder.
        renderer: holds the learned layers.
        weights: the matrices [outputs, inputs] of the projected layers.
    """

    config: TransmitterConfig
    renderer: Renderer
    weights: tuple[Tensor, ...]

    @property
    def device(self) -> torch.device:
        """Where points are evaluated; points from elsewhere are moved."""
        return self.weights[0].device

    @property
    def background(self) -> Tensor:
        """Colour [3] behind the object."""
        return self.renderer.void.background

    @torch.no_grad()
    def raw(self, points: Tensor, rows: slice = slice(None), directions: Tensor | None = None) -> Tensor:
        """The MLP's outputs ``rows`` of 12, before their activations: [..., R]. No ``directions`` means an all-zero code."""
        flat = points.to(self.device, torch.float32).reshape(-1, 3)
        if directions is not None:
            directions = directions.to(self.device, torch.float32).expand(points.shape).reshape(-1, 3)
        parts = []
        for start in range(0, len(flat), BATCH):
            stop = start + BATCH
            parts.append(self._mlp(flat[start:stop], rows, None if directions is None else directions[start:stop]))
        out = torch.cat(parts) if parts else flat.new_zeros(0, len(range(OUTPUTS)[rows]))
        return out.reshape(*points.shape[:-1], -1)

    def _mlp(self, points: Tensor, rows: slice, directions: Tensor | None) -> Tensor:
        config, mlp = self.config, self.renderer.nerstf.mlp
        h = positional_code(points, POSITION_BANDS)  # [N, 93]
        for i, layer in enumerate(mlp):
            weight = self.weights[i] if i < config.projected else layer.weight
            bias = layer.bias
            if i == config.direction_at:
                if directions is None:
                    weight = weight[:, : h.shape[-1]]  # the code would be zero
                else:
                    h = torch.cat([h, positional_code(directions, DIRECTION_BANDS)], dim=-1)
            if i == config.layers:
                return F.linear(h, weight[rows], bias[rows])
            h = F.silu(F.linear(h, weight, bias))
        raise AssertionError("the MLP has no output layer")

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distance [...] in -1..1, *positive inside*."""
        return self.raw(points, SDF)[..., 0].tanh()

    def stf_rgb(self, points: Tensor) -> Tensor:
        """Surface colours [..., 3], sRGB 0..1."""
        return self.raw(points, STF_RGB).sigmoid()

    def nerf(self, points: Tensor, fine: bool, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Density [...] (per unit length, >= 0) and colour [..., 3] (0..1) of the radiance field."""
        out = self.raw(points, slice(None), directions)
        density = out[..., FINE_DENSITY if fine else COARSE_DENSITY][..., 0].relu()
        return density, out[..., FINE_RGB if fine else COARSE_RGB].sigmoid()
