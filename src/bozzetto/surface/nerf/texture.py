"""Third stage: the field's colours become a texture, which is then fitted to pictures of the Gaussians."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.render.visibility import visible_faces
from ...gaussians import Gaussians
from ...mesh import Mesh
from ..bake import fill_texture
from ..coverage import covered_pixels
from ..field_mesh import field_texture
from .edges import barycentric, centres, project
from .field import NerfField
from .refine import RADIUS
from .settings import NerfSettings
from .train import stream_views

RATE = 1e-3  # of the texture's logits
SOLID = 0.95  # pixels less opaque than this show the background, too, and teach nothing
MIP_LEVELS = 5


def sample_mipmaps(levels: list[Tensor], uvs: Tensor, lod: Tensor) -> Tensor:
    """Trilinear colours [P, C] of mip levels [C, S, S], at uvs [P, 2] (0, 0 the top-left corner), level ``lod`` [P]."""
    lod = lod.clamp(0, len(levels) - 1)
    total = uvs.new_zeros(len(uvs), levels[0].shape[0])
    for i, level in enumerate(levels):
        weight = (1 - (lod - i).abs()).clamp_min(0)
        use = (weight > 0).nonzero()[:, 0]
        if len(use):
            grid = (uvs[use] * 2 - 1)[None, None]  # [1, 1, P', 2]
            colour = F.grid_sample(level[None], grid, padding_mode="border", align_corners=False)[0, :, 0].T
            total = total.index_add(0, use, colour * weight[use, None])
    return total


def mip_levels(texture: Tensor) -> list[Tensor]:
    """[C, S, S] and its halves, quarters, ..."""
    levels = [texture]
    while len(levels) < MIP_LEVELS and levels[-1].shape[-1] % 2 == 0:
        levels.append(F.avg_pool2d(levels[-1][None], 2)[0])
    return levels


def _double_area(corners: Tensor) -> Tensor:
    a, b, c = corners.unbind(dim=1)
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()


def fit_texture(
    mesh: Mesh,
    field: NerfField,
    gaussians: Gaussians,
    texture_size: int,
    settings: NerfSettings,
    generator: torch.Generator,
    progress: Callable[[float], None],
) -> Tensor:
    """The texture [S, S, 3] (CPU) of an unwrapped mesh in the field's frame."""
    s, device = settings, gaussians.device
    texture = field_texture(mesh, field.colour, texture_size, device=device)
    if s.texture_steps:
        logits = torch.logit(texture.clamp(1e-3, 1 - 1e-3)).permute(2, 0, 1).contiguous().to(device).requires_grad_()
        _fit(logits, mesh, gaussians, s, generator, progress)
        texture = torch.sigmoid(logits.detach()).permute(1, 2, 0).cpu()
    texel = covered_pixels(mesh.uvs[mesh.faces] * texture_size, texture_size, texture_size)[1].unique()
    return fill_texture(texture.reshape(-1, 3)[texel], texel, texture_size)


def _fit(
    logits: Tensor,
    mesh: Mesh,
    gaussians: Gaussians,
    s: NerfSettings,
    generator: torch.Generator,
    progress: Callable[[float], None],
) -> None:
    """Change ``logits`` [3, S, S] in place."""
    device, size = gaussians.device, s.texture_fit_size
    vertices, faces, uvs = (t.to(device) for t in (mesh.vertices, mesh.faces, mesh.uvs))
    texels = _double_area(uvs[faces] * logits.shape[-1])
    optimizer = torch.optim.Adam([logits], lr=RATE * s.rate_scale("texture"), fused=device.type == "cuda")
    views = stream_views(gaussians, s.texture_steps, size, generator, s.elevation, (RADIUS, RADIUS))
    for i, view in enumerate(views):
        screen, inverse = project(vertices, view.row)
        face = visible_faces(vertices, faces, view.cameras, size).reshape(-1)
        pixel = ((face >= 0) & (view.alpha.reshape(-1) > SOLID)).nonzero()[:, 0]
        if len(pixel):
            corner = faces[face[pixel]]
            weights, _ = barycentric(screen[corner], inverse[corner], centres(pixel, size))
            at = (uvs[corner] * weights[..., None]).sum(dim=1)  # [P, 3, 2] * [P, 3, 1] -> [P, 2]
            pixels = _double_area(screen[corner]).clamp_min(1e-6)
            lod = 0.5 * torch.log2((texels[face[pixel]] / pixels).clamp_min(1e-6))
            made = sample_mipmaps(mip_levels(torch.sigmoid(logits)), at, lod)
            loss = F.mse_loss(made, view.rgb.reshape(-1, 3)[pixel])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        progress((i + 1) / s.texture_steps)
