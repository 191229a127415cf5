"""Reading a triplane: position -> density and colour (Chan et al. 2022, arXiv 2112.07945, with TripoSR's choices).

Positions are in TripoSR's own frame: z up, the photo's camera on +x.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import RendererConfig
from .network import NeRFMLP

PLANES = ((0, 1), (0, 2), (1, 2))  # the coordinates that each plane is indexed by: its column, its row


def triplane_features(triplane: Tensor, points: Tensor, radius: float, reduction: str = "concat") -> Tensor:
    """Features of ``points`` [N, 3] from a triplane [3, C, H, W] that spans [-radius, radius]³.

    Returns [N, 3 * C] ("concat", plane by plane) or [N, C] ("mean"). Outside of the cube the planes are zero.
    """
    unit = points / radius
    grid = torch.stack([unit[:, axes] for axes in PLANES])[:, None]  # [3, 1, N, 2]
    read = F.grid_sample(triplane, grid.to(triplane), mode="bilinear", padding_mode="zeros", align_corners=False)
    read = read[:, :, 0]  # [3, C, N]
    return read.mean(dim=0).T if reduction == "mean" else read.flatten(0, 1).T


def density_activation(raw: Tensor, bias: float) -> Tensor:
    """exp(raw + bias), kept finite."""
    return torch.exp((raw + bias).clamp_max(80.0))


def query_triplane(
    decoder: NeRFMLP, triplane: Tensor, points: Tensor, config: RendererConfig, chunk: int = 0
) -> dict[str, Tensor]:
    """Everything that is known at ``points`` [..., 3], at most ``chunk`` points at a time (0: all at once).

    Returns:
        "density" [..., 1] and "features" [..., 3] before, "density_act" and "color" after their activations
        (exp(density + bias), sigmoid); float32.
    """
    flat = points.reshape(-1, 3)
    pieces = flat.split(chunk) if chunk else (flat,)
    raw = [decoder(triplane_features(triplane, p, config.radius, config.feature_reduction).float()) for p in pieces]
    raw = torch.cat(raw).reshape(*points.shape[:-1], 4)
    density, features = raw[..., :1], raw[..., 1:]
    return {
        "density": density,
        "features": features,
        "density_act": density_activation(density, config.density_bias),
        "color": features.sigmoid(),
    }
