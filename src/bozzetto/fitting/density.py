"""Adaptive density control (Kerbl et al. 2023, section 5): clone, split and prune by the screen-space gradient.

**Units.** The statistic is the gradient of the loss with respect to a centre's place on the screen in normalised device
coordinates (-1..1 across the picture): the gradient per pixel times half the picture size.

**How the statistic is found.** The rasterizer returns gradients of the positions in the world, per view. With q = (x, y,
z) the position in the camera's frame, a screen place is f x / z + c, so the gradient along the camera's x is f / z times
the gradient on the screen, and the latter is z / f times the former. What this leaves out is the change of the
splat's *shape* with its place (perspective), a share of about (size on screen) / (focal length), under a per cent for the
small splats here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera import Cameras
from ..camera.cameras import Size, as_size
from ..gaussians import Gaussians, quaternion_to_matrix
from ..raster.reference import BORDER, LOW_PASS
from .parameters import GaussianParameters

MAX_GRADIENT = 2e-4
MIN_OPACITY = 0.005
PERCENT_DENSE = 0.01  # of the extent: larger ones are split, smaller ones cloned
MAX_WORLD_SIZE = 0.1  # of the extent: larger ones are pruned once the size rule is on
SPLIT_SHRINK = 1.6
RESET_OPACITY = 0.01
NEAR = 0.2  # the published renderers drop what is nearer


def screen_gradient(means: Tensor, gradient: Tensor, cameras: Cameras) -> Tensor:
    """Per-view gradients of positions -> gradients of their places on the screen, NDC.

    Args:
        means: [N, 3]. gradient: [V, N, 3], of the loss with respect to the positions as seen from each view alone.
        cameras: (V,).

    Returns:
        [V, N, 2], x to the right, y down; 0 for points that are not in front of the camera.
    """
    view = cameras.view_matrices()  # [V, 4, 4]
    depth = means @ view[:, 2, :3].T + view[:, 2, 3]  # [N, V]
    local = torch.einsum("vij,vnj->vni", view[:, :2, :3], gradient)
    # place = f x / z + c with f in picture sizes; NDC is twice that, so d(loss)/d(NDC) = z / (2 f) d(loss)/dx.
    factor = depth.T.clamp_min(0)[..., None] / (2 * cameras.intrinsics[:, None, :2])
    return local * factor


@torch.no_grad()
def screen_radii(gaussians: Gaussians, cameras: Cameras, size: Size, near: float = NEAR) -> Tensor:
    """Radius in pixels of every Gaussian in every view, [V, N]: three standard deviations along the longer axis, rounded
    up; 0 where it is not in the picture or nearer than ``near``.

    The projection is that of :mod:`bozzetto.raster.reference`, for all views at once and without colours.
    """
    height, width = as_size(size)
    view = cameras.view_matrices()  # [V, 4, 4]
    fx, fy, cx, cy = (k[:, None] for k in cameras.pixel_intrinsics(size).unbind(-1))  # [V, 1]
    x, y, z = (torch.einsum("vij,nj->vni", view[:, :3, :3], gaussians.means) + view[:, None, :3, 3]).unbind(-1)
    u, v = x / z, y / z
    centres = torch.stack([fx * u + cx, fy * v + cy], dim=-1)  # [V, N, 2]
    across, down = BORDER * width, BORDER * height
    u = torch.minimum(torch.maximum(u, -(cx + across) / fx), (width - cx + across) / fx)
    v = torch.minimum(torch.maximum(v, -(cy + down) / fy), (height - cy + down) / fy)
    axes = quaternion_to_matrix(gaussians.quats) * gaussians.scales[:, None]  # [N, 3, 3]
    local = torch.einsum("vij,njk->vnik", view[:, :3, :3], axes)
    across = (fx / z)[..., None] * (local[:, :, 0] - u[..., None] * local[:, :, 2])  # [V, N, 3]
    down = (fy / z)[..., None] * (local[:, :, 1] - v[..., None] * local[:, :, 2])
    xx, xy, yy = (across * across).sum(-1) + LOW_PASS, (across * down).sum(-1), (down * down).sum(-1) + LOW_PASS
    middle, determinant = 0.5 * (xx + yy), xx * yy - xy * xy
    longest = middle + (middle * middle - determinant).clamp_min(0.1).sqrt()  # the larger eigenvalue; published floor
    radius = torch.ceil(3 * longest.sqrt())
    right, bottom = (centres + radius[..., None]).unbind(-1)
    left, top = (centres - radius[..., None]).unbind(-1)
    inside = (right > 0) & (bottom > 0) & (left < width) & (top < height)
    return torch.where(inside & (z > near) & torch.isfinite(radius), radius, torch.zeros_like(radius))


@dataclass
class DensificationStats:
    """What has been seen of every Gaussian since the last densification.

    Attributes:
        gradient: [N], sum of norms of the screen-space gradient. count: [N], in how many batches it was visible.
        radii: [N], largest radius on the screen in pixels.
    """

    gradient: Tensor
    count: Tensor
    radii: Tensor

    @classmethod
    def zeros(cls, n: int, device: torch.device | str = "cpu") -> DensificationStats:
        return cls(*(torch.zeros(n, device=device) for _ in range(3)))

    def add(self, gradient: Tensor, visible: Tensor, radii: Tensor | None = None) -> None:
        """Count one batch: screen-space gradients [N, 2] summed over its views, and who was visible in any of them [N]."""
        norm = gradient.norm(dim=-1)
        self.gradient += torch.where(visible, norm, torch.zeros_like(norm))
        self.count += visible
        if radii is not None:
            self.radii = torch.maximum(self.radii, radii)

    def mean(self) -> Tensor:
        """Average norm [N]; 0 for what was never visible."""
        return torch.nan_to_num(self.gradient / self.count, nan=0.0, posinf=0.0)


@dataclass
class Densified:
    """What one pass did: masks over the Gaussians before it (cloned, split [N]), and over those that stood before each of
    the two prunings (``dropped_split``, ``dropped``).
    """

    cloned: Tensor
    split: Tensor
    dropped_split: Tensor
    dropped: Tensor


@torch.no_grad()
def densify_and_prune(
    parameters: GaussianParameters,
    stats: DensificationStats,
    *,
    max_gradient: float = MAX_GRADIENT,
    min_opacity: float = MIN_OPACITY,
    size_rule: bool = False,
    max_radius: float | None = None,
    max_count: int | None = None,
    draws: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Densified:
    """Clone small and split large Gaussians whose mean screen-space gradient reaches ``max_gradient``; prune faint ones.

    Order of the result: kept originals, clones, first halves of the split ones, second halves; then pruned.

    Args:
        size_rule: prune also what is larger than a tenth of the extent (published: after step 500).
        max_radius: prune also what was larger than this on the screen, in pixels. The published code has this rule with
            20 pixels, but forgets the radii before it asks for them, so nothing is ever pruned by it; None is that.
        max_count: clone and split only as many as keep the number of Gaussians under this, those of the steepest
            gradient first.
        draws: [2 S, 3] standard normal numbers for the S split ones; None draws them from ``generator`` (on the CPU).
    """
    gradient = stats.mean()
    radii = stats.radii
    n, p = len(parameters), parameters.groups
    device = gradient.device
    chosen = gradient >= max_gradient
    if max_count is not None:
        room = max(0, max_count - n)  # every chosen one adds one Gaussian
        if room < n:
            rank = torch.empty(n, dtype=torch.long, device=device)
            rank[gradient.argsort(descending=True, stable=True)] = torch.arange(n, device=device)
            chosen = chosen & (rank < room)
    large = p["scaling"].exp().amax(dim=-1) > PERCENT_DENSE * parameters.extent
    cloned, split = chosen & ~large, chosen & large

    clones = {name: t.detach()[cloned] for name, t in p.items()}
    # Split: two samples of the Gaussian itself, each 1.6 times smaller.
    halves = {name: torch.cat([t.detach()[split]] * 2) for name, t in p.items()}
    deviation = halves["scaling"].exp()
    if draws is None:
        draws = torch.randn(deviation.shape, generator=generator)
    offset = quaternion_to_matrix(halves["rotation"]) @ (deviation * draws.to(deviation))[..., None]
    halves["xyz"] = halves["xyz"] + offset[..., 0]
    halves["scaling"] = torch.log(deviation / SPLIT_SHRINK)
    parameters.append({name: torch.cat([clones[name], halves[name]]) for name in clones})

    added = len(parameters) - n
    dropped_split = torch.cat([split, split.new_zeros(added)])
    parameters.keep(~dropped_split)
    radii = torch.cat([radii, radii.new_zeros(added)])[~dropped_split]

    p = parameters.groups
    dropped = (torch.sigmoid(p["opacity"]) < min_opacity)[:, 0]
    if size_rule:
        dropped = dropped | (p["scaling"].exp().amax(dim=-1) > MAX_WORLD_SIZE * parameters.extent)
    if max_radius is not None:
        dropped = dropped | (radii > max_radius)
    parameters.keep(~dropped)
    fresh = DensificationStats.zeros(len(parameters), device)
    stats.gradient, stats.count, stats.radii = fresh.gradient, fresh.count, fresh.radii
    return Densified(cloned, split, dropped_split, dropped)


@torch.no_grad()
def reset_opacity(parameters: GaussianParameters, ceiling: float = RESET_OPACITY) -> None:
    """Make every Gaussian nearly transparent (at most ``ceiling``), and forget Adam's moments of the opacities.

    What the pictures need becomes opaque again within some hundred steps; what floats in front of a camera is pruned.
    """
    limit = torch.logit(torch.tensor(ceiling)).to(parameters.groups["opacity"])
    parameters.replace_values("opacity", parameters.groups["opacity"].detach().clamp_max(limit))
