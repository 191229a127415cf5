"""Light of surroundings, as a polynomial of the surface's normal.

What a matte surface receives from surroundings is so smooth that nine numbers a colour say it: the spherical harmonics up to
degree two of the radiance, each weakened by what the cosine leaves of it (1, 2/3, 1/4; Ramamoorthi and Hanrahan 2001, "An
efficient representation for irradiance environment maps"). Their constants are folded in, so that a normal n = (x, y, z) gets

    light(n) = sum_k c_k p_k(n),   p = 1, x, y, z, xy, yz, zx, x x - y y, 3 z z - 1
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 0.2  # least light a normal receives, share of the most: sides in the dark can still be seen
MEASURED = Path(__file__).with_name("environments.json")
_SAMPLES = 512
# Per term: squared norm of p_k on the unit sphere over its area, times what the cosine leaves of its degree.
_NORM = torch.tensor([1.0, 1 / 3, 1 / 3, 1 / 3, 1 / 15, 1 / 15, 1 / 15, 4 / 15, 4 / 5])
_COSINE = torch.tensor([1.0, 2 / 3, 2 / 3, 2 / 3, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4])


def polynomial(normals: Tensor) -> Tensor:
    """The nine terms [..., 9] of unit vectors [..., 3]."""
    x, y, z = normals.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack([one, x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], dim=-1)


def received(radiance: Tensor, directions: Tensor) -> Tensor:
    """The polynomial [..., 9, C] of the light that matte surfaces receive (1 for surroundings of 1).

    Args:
        radiance: [..., N, C], from each of ``directions``.
        directions: [N, 3] unit vectors spread evenly over the sphere.
    """
    basis = polynomial(directions) / len(directions)
    return weakened(torch.einsum("nk,...nc->...kc", basis, radiance))


def weakened(mean: Tensor) -> Tensor:
    """Means of radiance times each term, [..., 9, C] -> the polynomial of the light that matte surfaces receive."""
    return mean * (_COSINE / _NORM)[:, None].to(mean)


def adapted(light: Tensor) -> Tensor:
    """A polynomial [9, 3] brought to a mean of 1, its mean tint to its square root: half of what an eye adapts to."""
    light = light / light[0].mean()
    light = light / light[0].sqrt()
    return light / light[0].mean()


def even_directions(count: int = _SAMPLES) -> Tensor:
    """[count, 3] unit vectors spread evenly over the sphere (a Fibonacci spiral)."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    y = 1 - 2 * i / count
    turn = i * (math.pi * (3 - math.sqrt(5)))
    ring = (1 - y * y).sqrt()
    return torch.stack([ring * turn.sin(), y, ring * turn.cos()], dim=-1).float()


@lru_cache(1)
def measured_environments() -> Tensor:
    """[E, 9, 3]: photographed surroundings (``environments.json`` says which), mean light 1."""
    return torch.tensor(list(json.loads(MEASURED.read_text(encoding="utf-8"))["light"].values()))


def random_environments(
    batch: int, generator: torch.Generator | None = None, photographed: Tensor | None = None
) -> Tensor:
    """[B, 9, 3]: half of them photographed, half gradients of a sky with a sun, each turned about the vertical axis.

    The brightest of all normals receives 1 in its brightest colour, the darkest at least ``FLOOR``.

    Args:
        photographed: [E, 9, 3], to draw from instead of :func:`measured_environments` (see :mod:`.surroundings`).
    """

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    directions = even_directions()
    up = directions[:, 1]  # [N]
    tint = 1 + uniform(batch, 4, 1, 3, low=-0.2, high=0.2)
    zenith, horizon, ground, sun = (uniform(batch, 1, 1) * tint[:, k] for k in range(4))
    away = up[None, :, None]
    sky = horizon + (zenith - horizon) * away.clamp_min(0).sqrt()
    radiance = torch.where(away > 0, sky, 0.6 * ground)
    stand = torch.randn(batch, 3, generator=generator)
    stand[:, 1] = stand[:, 1].abs() + 0.2
    near = F.normalize(stand, dim=-1) @ directions.T  # [B, N]
    radiance = radiance + 6 * sun * (near[..., None].clamp_min(0) ** 16)
    skies = received(radiance, directions)
    photos = measured_environments() if photographed is None else photographed
    photos = photos[torch.randint(len(photos), (batch,), generator=generator)]
    out = torch.where(uniform(batch, 1, 1) < 0.5, photos, skies)
    out = turned(out, uniform(batch, high=2 * math.pi))
    light = torch.einsum("nk,bkc->bnc", polynomial(directions), out)
    least, most = light.amin((1, 2)), light.amax((1, 2))
    lift = ((FLOOR * most - least) / (1 - FLOOR)).clamp_min(0)  # (least + lift) = FLOOR (most + lift)
    out[:, 0] = out[:, 0] + lift[:, None]
    return out / (most + lift)[:, None, None]


def turned(environment: Tensor, angle: Tensor) -> Tensor:
    """Surroundings [B, 9, C] turned about the y axis by ``angle`` [B] radians (+z goes to +x)."""
    k0, kx, ky, kz, kxy, kyz, kzx, ka, kb = environment.unbind(-2)  # each [B, C]
    c, s, c2, s2 = (f(a)[:, None] for a in (angle, 2 * angle) for f in (torch.cos, torch.sin))
    # The last two terms are d (z z - x x) + e y y and a constant; z z - x x and 2 z x turn by twice the angle.
    d, e = (3 * kb - ka) / 2, -1.5 * (ka + kb)
    d, kzx = c2 * d - s2 * kzx / 2, c2 * kzx + 2 * s2 * d
    kb, ka = d / 2 - e / 6, -d / 2 - e / 2
    rows = [k0, c * kx + s * kz, ky, c * kz - s * kx, c * kxy + s * kyz, c * kyz - s * kxy, kzx, ka, kb]
    return torch.stack(rows, dim=-2)
