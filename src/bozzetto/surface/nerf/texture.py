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
from .adam import Adam
from .edges import barycentric, centres, project
from .field import NerfField
from .hash_grid import by_triton
from .recorded_step import RecordedStep
from .refine import RADIUS
from .settings import NerfSettings
from .train import stream_views

SOLID = 0.95  # pixels less opaque than this show the background, too, and teach nothing
# Pixels count less whose splats lie scattered in depth by more than this: networks draw the views that they know crisply, and
# the rest as fog, which would blur the texture.
CRISP = 0.015
STRAIGHT = 0.5  # of the pictures, from near where systems that predict Gaussians have their input views
MIP_LEVELS = 5
OUTSIDE = 4.0  # of the texture, in -1..1


def sample_mipmaps(levels: list[Tensor], uvs: Tensor, lod: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Trilinear colours [P, C] of mip levels [C, S, S], at uvs [P, 2] (0, 0 the top-left corner), level ``lod`` [P].

    Args:
        wanted: [P] bool; the others are 0. They, and the levels that a pixel does not look at, take no time of the gradient:
            thousands of pixels would add nothing to one texel, one after another.
    """
    lod = lod.clamp(0, len(levels) - 1)
    total = 0
    for i, level in enumerate(levels):
        weight = (1 - (lod - i).abs()).clamp_min(0)
        looked_at = weight > 0 if wanted is None else (weight > 0) & wanted
        size = level.shape[-1]
        # Up to the middle of the border's texels; what is not looked at lies outside, where there is nothing.
        place = (uvs * size - 0.5).clamp(0, size - 1) * (2 / size) + (1 / size - 1)
        grid = torch.where(looked_at[:, None], place, OUTSIDE)[None, None]  # [1, 1, P, 2]
        colour = F.grid_sample(level[None], grid, padding_mode="zeros", align_corners=False)[0, :, 0].T
        total = total + colour * weight[:, None]
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
    optimizer = Adam(([logits], s.texture_rate * s.rate_scale("texture")))
    middle = centres(torch.arange(size * size, device=device), size)
    visibility = _visibility(faces, size) if by_triton(device) else None

    def step(row: Tensor, rgb: Tensor, alpha: Tensor, spread: Tensor, face: Tensor | None = None) -> None:
        with torch.no_grad():
            screen, inverse = project(vertices, row)
            face = (visibility(vertices, row) if face is None else face).reshape(-1)
            taught = ((face >= 0) & (alpha.reshape(-1) > SOLID)).float()
            taught = taught / (1 + (spread.reshape(-1) / CRISP).square()).square()
            face = face.clamp_min(0).long()
            corner = faces[face]
            weights, _ = barycentric(screen[corner], inverse[corner], middle)
            at = (uvs[corner] * weights[..., None]).sum(dim=1)  # [P, 3, 2] * [P, 3, 1] -> [P, 2]
            pixels = _double_area(screen[corner]).clamp_min(1e-6)
            lod = 0.5 * torch.log2((texels[face] / pixels).clamp_min(1e-6))
        made = sample_mipmaps(mip_levels(torch.sigmoid(logits)), at, lod, taught > 0)
        error = (made - rgb.reshape(-1, 3)).square().mean(dim=1)
        loss = (error * taught).sum() / taught.sum().clamp_min(1e-6)
        optimizer.clear()
        loss.backward()
        optimizer.step()

    run = RecordedStep(step, device) if visibility is not None else step
    views = stream_views(
        gaussians,
        s.texture_steps,
        size,
        generator,
        s.elevation,
        (RADIUS, RADIUS),
        s.hardness,
        spread=True,
        level=STRAIGHT,
    )
    for i, view in enumerate(views):
        if visibility is None:
            run(view.row, view.rgb, view.alpha, view.spread, visible_faces(vertices, faces, view.cameras, size)[0])
        else:
            run(view.row, view.rgb, view.alpha, view.spread)
        progress((i + 1) / s.texture_steps)


def _visibility(faces: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """(vertices, camera row) -> the nearest face at every pixel, by the Triton kernels."""
    from .draw_triton import Visibility

    return Visibility(faces, size).find
