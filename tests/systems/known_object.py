"""A moving object known from all sides, and what draws it in the networks' place: for tests of what surrounds them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize

RING = (0.0, 90.0, 180.0, 270.0)
CONFIG = SimpleNamespace(
    input_size=256, output_size=256, radius=1.5, fov_y=49.1, znear=0.5, zfar=2.5, head="lgm", rotation="fixed"
)
# Where, and in which colour: front red, right green, back blue, left yellow, top black; nothing is symmetric.
BALLS = {
    "red": ((0.0, 0.0, 0.3), (0.9, 0.1, 0.1)),
    "green": ((0.32, 0.0, 0.0), (0.1, 0.8, 0.1)),
    "blue": ((0.0, -0.06, -0.3), (0.1, 0.1, 0.9)),
    "yellow": ((-0.28, 0.05, 0.0), (0.9, 0.8, 0.1)),
    "black": ((0.0, 0.34, 0.05), (0.0, 0.0, 0.0)),
}
MAGENTA = (0.9, 0.1, 0.9)


def known_object(moment: float = 0.0, points: int = 150) -> Gaussians:
    """Five balls; a sixth, magenta one goes from the lower left (``moment`` 0) to the lower right (1)."""
    generator = torch.Generator().manual_seed(0)
    balls = [*BALLS.values(), ((-0.3 + 0.6 * moment, -0.33, 0.12), MAGENTA)]
    shell = nn.functional.normalize(torch.randn(len(balls), points, 3, generator=generator), dim=-1) * 0.1
    means = shell + torch.tensor([place for place, _ in balls])[:, None]
    rgb = torch.tensor([colour for _, colour in balls])[:, None].expand(-1, points, -1)
    n = len(balls) * points
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1)
    return Gaussians.from_rgb(
        means.reshape(n, 3), torch.full((n, 3), 0.025), quats, torch.full((n,), 0.95), rgb.reshape(n, 3)
    )


def look(gaussians: Gaussians, azimuth: float = 0.0, elevation: float = 0.0, size: int = 256) -> Tensor:
    """RGBA [S, S, 4], straight alpha, as the networks' camera sees it."""
    seen = rasterize(gaussians, Cameras.orbit([azimuth], elevation, CONFIG.radius, CONFIG.fov_y), size)
    alpha = seen.alpha[0, ..., None]
    return torch.cat([(seen.rgb[0] / alpha.clamp_min(1e-4)).clamp(0, 1), alpha], dim=-1)


def white(rgba: Tensor) -> Tensor:
    """RGBA [..., 4] on white."""
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def column(picture: Tensor, colour: str | tuple[float, ...]) -> float:
    """Where a ball is in a picture [H, W, 3] on white: the mean column of its pixels."""
    rgb = torch.tensor(BALLS[colour][1] if isinstance(colour, str) else colour)
    near = ((picture - rgb).abs().amax(-1) < 0.15).nonzero()
    assert len(near) > 20, f"no {colour} in the picture"
    return float(near[:, 1].double().mean())


class KnownDiffusion:
    """Draws the object at moment 0 in the diffusion networks' order, in which the front is the second view.

    ``off``: what it takes for the front is this many degrees beside it. ``candidates``: pictures to draw instead.
    """

    def __init__(self, off: float = 0.0, candidates: Tensor | None = None) -> None:
        self.off, self.candidates = off, candidates

    def generate(self, prompts, images=None, *, elevation=0.0, candidates=1, size=256, **_) -> Tensor:
        if self.candidates is not None:
            return self.candidates[None]
        azimuths = [a - 90.0 + self.off for a in RING]
        views = torch.stack([white(look(known_object(), a, elevation, size)) for a in azimuths])
        return views[None, None].repeat(len(prompts), candidates, 1, 1, 1, 1)
