"""The rasterizer as plain PyTorch: the oracle of the compiled back ends, and the statement of the image formation.

Source: Kerbl et al. 2023 (3D Gaussian Splatting) after Zwicker et al. 2001 (EWA splatting). For one scene and one view,
with the view matrix [W | t] (world to camera, OpenCV axes: x right, y down, z forward) and (fx, fy, cx, cy) in pixels:

1. **Projection.** W m + t = (x, y, z). A Gaussian is kept only if z > 0 and near < z < far. Its centre lands on
   (fx x/z + cx, fy y/z + cy); pixel (column i, row j) has its centre at (i + 0.5, j + 0.5).
2. **Covariance.** Sigma = R S S R^T with S = diag(scales) and R from the normalised quaternion (w, x, y, z); a
   quaternion of length 0 is no rotation. Sigma' = J W Sigma W^T J^T + 0.3 I (px^2; 0.3 is the low-pass) with
   J = [[fx/z, 0, -fx u/z], [0, fy/z, -fy v/z]], where u and v are x/z and y/z clamped to the image widened on every
   side by 15 % of its size: -(cx + 0.15 width)/fx <= u <= (width - cx + 0.15 width)/fx, and v alike.
3. **Colour.** c = max(0, 0.5 + sum_k Y_k(d) sh_k), d = unit vector from the camera centre to m, Y as in
   :mod:`bozzetto.sh`. Not clamped above.
4. **Order.** By camera z, nearest first; equal z by the lower index.
5. **Compositing**, per pixel, with d the offset of the pixel centre from the Gaussian's: sigma = d^T Sigma'^-1 d / 2,
   alpha = min(0.99, opacity exp(-sigma)). The Gaussian is skipped if sigma < 0 or alpha < 1/255. With the
   transmittance T (1 at first): if T (1 - alpha) <= 1e-4 the pixel is finished *before* this Gaussian; otherwise its
   weight is w = T alpha and T becomes T (1 - alpha).
6. **Output.** rgb = sum w c + T_end background; alpha = 1 - T_end; depth = sum w z (no background, not normalised).

Gradients are those of these formulas with the decisions (culling, order, skip, stop) held fixed; where u, v, alpha or
c is clamped, the gradient through it is zero.

A Gaussian is skipped, with zero gradient, if any of its values or of its projection (centre, Sigma', det Sigma', its
inverse, c) is not finite, or if det Sigma' <= 0, in the arithmetic used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..gaussians import quaternion_to_matrix
from ..sh import sh_basis

LOW_PASS = 0.3  # px^2, added to both variances
BORDER = 0.15  # of the image size, on every side: where x/z and y/z stop inside J
MAX_ALPHA = 0.99
MIN_ALPHA = 1.0 / 255.0
MIN_TRANSMITTANCE = 1e-4

_CHUNK = 1 << 21  # pixel-Gaussian pairs evaluated at once


def rasterize_reference(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    height: int,
    width: int,
    near: float,
    far: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Render S scenes from V views each; shapes as in :mod:`bozzetto.raster.api`.

    Works in the dtype of its inputs (float32 or float64) on any device. Every pixel meets every Gaussian, so the time
    grows with H x W x N; memory stays bounded because pixels are evaluated in chunks and again in the backward pass.

    Returns:
        rgb [S, V, H, W, 3], alpha [S, V, H, W], depth [S, V, H, W].
    """
    scenes, views = view.shape[:2]
    pictures = [
        _render_view(
            means[s], quats[s], scales[s], opacities[s], sh[s],
            view[s, v], intrinsics[s, v], background[s, v], height, width, near, far,
        )
        for s in range(scenes)
        for v in range(views)
    ]  # fmt: skip
    if not pictures:
        empty = background.new_zeros(scenes, views, height, width, 5)
        return empty[..., :3], empty[..., 3], empty[..., 4]
    stacked = torch.stack(pictures).reshape(scenes, views, height, width, 5)
    return stacked[..., :3], stacked[..., 3], stacked[..., 4]


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    sh: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Steps 1 to 3 of the model for one view.

    Args:
        means: [N, 3]. quats: [N, 4]. scales: [N, 3]. sh: [N, K, 3]. view: [4, 4]. intrinsics: [4] in pixels.

    Returns:
        centres [N, 2] in pixels, conics [N, 3] (xx, xy, yy of the inverse of Sigma'), det Sigma' [N], camera z [N],
        colours [N, 3]. Gaussians that are to be culled give arbitrary, also non-finite, values.
    """
    fx, fy, cx, cy = intrinsics.unbind()
    rotation = view[:3, :3]
    x, y, z = (means @ rotation.T + view[:3, 3]).unbind(-1)
    u, v = x / z, y / z
    centres = torch.stack([fx * u + cx, fy * v + cy], dim=-1)

    u = torch.minimum(torch.maximum(u, -(cx + BORDER * width) / fx), (width - cx + BORDER * width) / fx)
    v = torch.minimum(torch.maximum(v, -(cy + BORDER * height) / fy), (height - cy + BORDER * height) / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], dim=-1).reshape(-1, 2, 3)
    half = jacobian @ rotation @ (quaternion_to_matrix(quats) * scales[:, None, :])  # [N, 2, 3]: Sigma' = half half^T
    covariance = half @ half.transpose(-1, -2)  # [N, 2, 2]
    xx, xy, yy = covariance[:, 0, 0] + LOW_PASS, covariance[:, 0, 1], covariance[:, 1, 1] + LOW_PASS
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None]

    camera_centre = torch.linalg.inv(view)[:3, 3]
    directions = torch.nn.functional.normalize(means - camera_centre, dim=-1)
    degree = {1: 0, 4: 1, 9: 2, 16: 3}[sh.shape[-2]]
    colours = ((sh_basis(directions, degree)[..., None] * sh).sum(-2) + 0.5).clamp_min(0)
    return centres, conics, determinant, z, colours


def _visible(parameters: tuple[Tensor, ...], projected: tuple[Tensor, ...], near: float, far: float) -> Tensor:
    """Indices of the Gaussians to composite, in compositing order."""
    determinant, z = projected[2], projected[3]
    keep = (z > max(near, 0.0)) & (z < far) & (determinant > 0)
    for t in (*parameters, *projected):
        keep = keep & torch.isfinite(t).reshape(len(z), math.prod(t.shape[1:])).all(-1)
    index = keep.nonzero()[:, 0]
    return index[torch.argsort(z[index], stable=True)]


def _render_view(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: Tensor,
    intrinsics: Tensor,
    background: Tensor,
    height: int,
    width: int,
    near: float,
    far: float,
) -> Tensor:
    """One picture, [H * W, 5] = rgb, alpha, depth."""
    with torch.no_grad():
        projected = project(means, quats, scales, sh, view, intrinsics, height, width)
        order = _visible((means, quats, scales, opacities, sh), projected, near, far)
    # Only the kept Gaussians take part in the differentiable pass, so a NaN elsewhere cannot leak into a gradient.
    centres, conics, _, z, colours = project(
        means[order], quats[order], scales[order], sh[order], view, intrinsics, height, width
    )
    opacities = opacities[order]
    features = torch.cat([colours, z[:, None]], dim=-1)  # [M, 4]

    columns = torch.arange(width, dtype=means.dtype, device=means.device) + 0.5
    rows = torch.arange(height, dtype=means.dtype, device=means.device) + 0.5
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(-1, 2)  # [H * W, 2]
    chunks = []
    for block in pixels.split(max(1, _CHUNK // max(1, len(order)))):
        if torch.is_grad_enabled():
            chunks.append(
                checkpoint(_composite, block, centres, conics, opacities, features, background, use_reentrant=False)
            )
        else:
            chunks.append(_composite(block, centres, conics, opacities, features, background))
    return torch.cat(chunks)


def _composite(
    pixels: Tensor, centres: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, background: Tensor
) -> Tensor:
    """Steps 5 and 6 for pixels [P, 2] and Gaussians in compositing order: [P, 5]."""
    dx, dy = (pixels[:, None] - centres).unbind(-1)  # [P, M]
    xx, xy, yy = conics.unbind(-1)
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alpha = (opacities * torch.exp(-sigma)).clamp_max(MAX_ALPHA)
    zero = torch.zeros_like(alpha)
    alpha = torch.where((sigma < 0) | ~(alpha >= MIN_ALPHA), zero, alpha)
    with torch.no_grad():
        unfinished = torch.cumprod(1 - alpha, dim=1) > MIN_TRANSMITTANCE
    alpha = torch.where(unfinished, alpha, zero)
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after], dim=1)[:, :-1]  # [P, M]
    end = after[:, -1] if after.shape[1] else torch.ones_like(pixels[:, 0])
    rgb_depth = (before * alpha) @ features  # [P, 4]
    rgb = rgb_depth[:, :3] + end[:, None] * background
    return torch.cat([rgb, (1 - end)[:, None], rgb_depth[:, 3:]], dim=-1)
