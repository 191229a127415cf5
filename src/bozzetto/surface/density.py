"""How densely splats fill space: the sum of opacity times the Gaussian, on a grid.

Where splats are opaque and thin, as after fitting to many pictures, a level of this sum *is* the surface, leaves and slats of a
voxel's width included, which depth maps blur. In fog it means nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..gaussians import Gaussians, quaternion_to_matrix
from ..raster.threads import compiled, run_tasks, spans

THINNEST = 0.3  # voxels; thinner splats fall between the points
FAINTEST = 0.02  # a splat ends where its share is less
CELLS_PER_CHUNK = 1 << 22
PLANES_PER_TASK = 8
MOST_CELLS = 300_000_000  # that all splats touch together; objects take about a hundredth of it


def splat_density(gaussians: Gaussians, shape: tuple[int, int, int], origin: Tensor, voxel: float) -> Tensor:
    """Sum over splats of opacity * exp(-d² / 2), d in standard deviations, at points origin + voxel * (i, j, k): [X, Y, Z]."""
    density = density_cpu if gaussians.device.type == "cpu" else density_plain
    centre, half, inverse, opacity = _prepared(gaussians, origin.to(gaussians.device), voxel)
    few = _affordable(half, shape)
    return density(centre[few], half[few], inverse[few], opacity[few], tuple(shape))


def _affordable(half: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Which splats [N] of half boxes [N, 3] to add: all, or the smallest of them where most are as large as the whole grid.

    Such splats have no details to lose, and thousands of them would take minutes.
    """
    cells = torch.minimum(2 * half + 1, half.new_tensor(shape)).double().prod(dim=-1)
    order = cells.argsort()
    few = torch.empty(len(half), dtype=torch.bool, device=half.device)
    few[order] = cells[order].cumsum(dim=0) <= MOST_CELLS
    return few


def _prepared(gaussians: Gaussians, origin: Tensor, voxel: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of splats that reach FAINTEST, in voxels: centres [N, 3], half boxes [N, 3], world -> sigma [N, 3, 3], opacities [N]."""
    g = gaussians.select(gaussians.opacities > FAINTEST)
    scales = (g.scales / voxel).clamp_min(THINNEST)
    # A sheet may be thinner than the points can tell; specks count by how much of a point's surroundings they cover.
    covered = (g.scales / voxel / scales).topk(2, dim=-1).values.prod(dim=-1)
    axes = quaternion_to_matrix(g.quats)  # columns
    reach = (2 * (g.opacities / FAINTEST).log()).sqrt()  # in standard deviations
    half = (axes * scales[:, None]).square().sum(dim=-1).sqrt() * reach[:, None]
    return (
        (g.means - origin) / voxel,
        half,
        (axes / scales[:, None]).transpose(1, 2).contiguous(),
        g.opacities * covered,
    )


def density_plain(
    centre: Tensor, half: Tensor, inverse: Tensor, opacity: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """The oracle, on any device. Arguments as of :func:`_prepared`."""
    size = torch.tensor(shape, device=centre.device)
    grid = torch.zeros(shape[0] * shape[1] * shape[2], device=centre.device)
    window = half.amax(dim=-1).ceil().long() + 1
    limit = (opacity / FAINTEST).log()
    classes = 1 << (window - 1).clamp_min(1).float().log2().ceil().long()  # few different windows
    for w in classes.unique().tolist():
        steps = torch.arange(-w, w + 1, device=centre.device)
        around = torch.cartesian_prod(steps, steps, steps)  # [K, 3]
        for part in (classes == w).nonzero()[:, 0].split(max(1, CELLS_PER_CHUNK // len(around))):
            cell = centre[part].round().long()[:, None] + around  # [n, K, 3]
            local = torch.einsum("nac,nkc->nka", inverse[part], cell - centre[part, None])
            power = 0.5 * local.square().sum(dim=-1)
            value = opacity[part, None] * torch.exp(-power)
            inside = ((cell >= 0) & (cell < size)).all(dim=-1) & (power <= limit[part, None])
            index = (cell[..., 0] * shape[1] + cell[..., 1]) * shape[2] + cell[..., 2]
            grid.index_add_(0, index[inside], value[inside])
    return grid.reshape(shape)


def density_cpu(centre: Tensor, half: Tensor, inverse: Tensor, opacity: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """:func:`density_plain` by compiled loops."""
    grid = np.zeros(shape, np.float32)
    arrays = [t.float().contiguous().numpy() for t in (centre, half, inverse, opacity)]
    limit = (opacity / FAINTEST).log().float().numpy()
    run_tasks((_add_splats, *arrays, limit, *span, grid) for span in spans(shape[0], PLANES_PER_TASK))
    return torch.from_numpy(grid)


@compiled
def _add_splats(centre, half, inverse, opacity, limit, first, last, grid):
    """Add all splats to planes first..last (exclusive) of ``grid`` [X, Y, Z]."""
    _, rows, columns = grid.shape
    for n in range(len(centre)):
        cx, cy, cz = centre[n]
        x0, x1 = max(np.int64(np.ceil(cx - half[n, 0])), first), min(np.int64(np.floor(cx + half[n, 0])), last - 1)
        if x0 > x1:
            continue
        y0, y1 = max(np.int64(np.ceil(cy - half[n, 1])), 0), min(np.int64(np.floor(cy + half[n, 1])), rows - 1)
        z0, z1 = max(np.int64(np.ceil(cz - half[n, 2])), 0), min(np.int64(np.floor(cz + half[n, 2])), columns - 1)
        m, most, strength = inverse[n], limit[n], opacity[n]
        for x in range(x0, x1 + 1):
            dx = np.float32(x) - cx
            for y in range(y0, y1 + 1):
                dy = np.float32(y) - cy
                ax, ay = m[0, 0] * dx + m[0, 1] * dy, m[1, 0] * dx + m[1, 1] * dy
                az = m[2, 0] * dx + m[2, 1] * dy
                for z in range(z0, z1 + 1):
                    dz = np.float32(z) - cz
                    bx, by, bz = ax + m[0, 2] * dz, ay + m[1, 2] * dz, az + m[2, 2] * dz
                    power = np.float32(0.5) * (bx * bx + by * by + bz * bz)
                    if power <= most:
                        grid[x, y, z] += strength * np.exp(-power)
