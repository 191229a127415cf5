"""Which cameras rendered data is taken with. All stand on a sphere of radius 1.5 with a field of view of 49.1 degrees."""

from __future__ import annotations

import math

import torch

from ...camera import Cameras

RADIUS, FOV_Y = 1.5, 49.1
LGM_VIEWS, LGM_RING = 100, range(36, 73)  # LGM's training code takes its input views from the numbers 36 to 72
L4GM_FIXED, L4GM_RANDOM = 16, 32
_GOLDEN = 180.0 * (3.0 - math.sqrt(5.0))
_LOW, _HIGH = -30.0, 75.0  # elevations of the views that are spread about


def _spread(count: int) -> tuple[list[float], list[float]]:
    """Azimuths and elevations of a golden-angle spiral, even over the part of the sphere between the two elevations."""
    low, high = (math.sin(math.radians(e)) for e in (_LOW, _HIGH))
    heights = [low + (high - low) * (k + 0.5) / max(count, 1) for k in range(count)]
    # Large steps in height from view to view: any beginning of the list looks from all around.
    order = [k * 7919 % count for k in range(count)] if count % 7919 else list(range(count))
    return [k * _GOLDEN % 360.0 for k in range(count)], [math.degrees(math.asin(heights[k])) for k in order]


def view_angles(count: int) -> tuple[list[float], list[float]]:
    """Azimuths and elevations in degrees of ``count`` views of a still object.

    100 views are numbered as LGM's: 36 to 72 stand at elevation 0, ten degrees apart (72 is 36 again), the others are spread
    from 30 degrees below to 75 above. Other numbers: a quarter of the views (a multiple of 4, at least 4) is a ring at
    elevation 0, the rest is spread.
    """
    if count == LGM_VIEWS:
        azimuth, elevation = _spread(LGM_VIEWS - len(LGM_RING))
        ring = [(10.0 * k) % 360.0 for k in range(len(LGM_RING))]
        at = LGM_RING.start
        return azimuth[:at] + ring + azimuth[at:], elevation[:at] + [0.0] * len(ring) + elevation[at:]
    ring = min(count, max(4, count // 16 * 4))
    azimuth, elevation = _spread(count - ring)
    return [360.0 * k / ring for k in range(ring)] + azimuth, [0.0] * ring + elevation


def l4gm_angles(seed: int) -> dict[str, tuple[list[float], list[float]]]:
    """L4GM's two sets: 16 at elevation 0, and 32 at random (elevation -5 to 30 degrees) drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    azimuth = (360.0 * torch.rand(L4GM_RANDOM, generator=generator)).tolist()
    elevation = (35.0 * torch.rand(L4GM_RANDOM, generator=generator) - 5.0).tolist()
    fixed = [360.0 * k / L4GM_FIXED for k in range(L4GM_FIXED)]
    return {"fixed_16": (fixed, [0.0] * L4GM_FIXED), "random": (azimuth, elevation)}


def orbit(angles: tuple[list[float], list[float]]) -> Cameras:
    """Cameras (V,) at these azimuths and elevations."""
    return Cameras.orbit(angles[0], angles[1], RADIUS, FOV_Y)
