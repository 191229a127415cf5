"""The light of a scene and the shading model.

A surface point with unit normal n, texture colour t and base colour c (all sRGB values, used as they are) is lit by::

    half(x)  = (0.5 + 0.5 x)^2                                   half-Lambert: soft, never fully black on the far side
    light    = ambient + mix(ground, sky, 0.5 + 0.5 n.y) + environment(n) + sum_l colors_l half(n . directions_l)
    colour   = min(t c light, 1)
    gloss    = specular sum_l luminance_l max(n . h_l, 0)^shininess,  h_l half way between light and eye (n . directions_l > 0)
    result   = colour + min(gloss, 1) (1 - colour)

The directions live in the world, so that all views of one object agree. Where ``light`` stays below 1 for every normal, as
in :meth:`Lights.default` and :meth:`Lights.random`, a white surface never saturates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .environment import polynomial, random_environments


@dataclass
class Lights:
    """Lights of B scenes, each with L directional lights.

    Attributes:
        ambient: [B, 3], from everywhere.
        sky, ground: [B, 3], added for normals that look up (+y) and down; in between they mix.
        directions: [B, L, 3] unit vectors from the surface *towards* the light, world axes.
        colors: [B, L, 3], strength times colour of each directional light.
        environment: [B, 9, 3] or None, light of surroundings as a polynomial of the normal (see :mod:`.environment`).
        specular: [B], strength of the white highlight (0: matte, the default: highlights move with the eye, which
            colours without view dependence cannot express). shininess: [B], its exponent.
    """

    ambient: Tensor
    sky: Tensor
    ground: Tensor
    directions: Tensor
    colors: Tensor
    specular: Tensor
    shininess: Tensor
    environment: Tensor | None = None

    @classmethod
    def default(cls, batch: int) -> Lights:
        """A bright neutral studio: a key light above the front right, a weak fill from the left, soft sky."""
        directions = F.normalize(torch.tensor([[0.45, 0.65, 0.6], [-0.7, 0.25, 0.45], [0.1, 0.4, -0.9]]), dim=-1)
        strengths = torch.tensor([0.28, 0.10, 0.05])
        return cls(
            ambient=torch.full((batch, 3), 0.45),
            sky=torch.full((batch, 3), 0.12),
            ground=torch.full((batch, 3), 0.03),
            directions=directions.expand(batch, 3, 3).clone(),
            colors=strengths[:, None].expand(3, 3).expand(batch, 3, 3).clone(),
            specular=torch.zeros(batch),
            shininess=torch.full((batch,), 24.0),
        )

    @classmethod
    def random(
        cls,
        batch: int,
        generator: torch.Generator | None = None,
        glossy: float = 0.0,
        environment: float = 0.0,
        photographed: Tensor | None = None,
    ) -> Lights:
        """Varied but always readable light: random directions, strengths and slight tints; white never saturates.

        Args:
            generator: of the CPU.
            glossy: share of scenes that get a highlight (strength up to 0.3).
            environment: share of scenes that stand in random surroundings (skies, rooms and streets of
                :mod:`.environment`), which then give 60 to 100 % of the light; the lamps give the rest.
            photographed: [E, 9, 3] surroundings to draw from (see :mod:`.surroundings`); None for the 26 of this package.
        """

        def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
            return low + (high - low) * torch.rand(*shape, generator=generator)

        direction = torch.randn(batch, 3, 3, generator=generator)
        direction[..., 1] = direction[..., 1].abs() * 1.2 - 0.3  # mostly from above
        direction = F.normalize(direction, dim=-1)
        tint = 1.0 + uniform(batch, 4, 3, low=-0.08, high=0.08)
        ambient = uniform(batch, 1, low=0.25, high=0.55) * tint[:, 0]
        sky = uniform(batch, 1, low=0.0, high=0.2).expand(batch, 3)
        ground = sky * uniform(batch, 1, high=0.5)
        colors = uniform(batch, 3, 1, low=0.1) * torch.tensor([1.0, 0.5, 0.35])[:, None] * tint[:, 1:]
        # Scale the directional lights so that the brightest of many normals receives exactly ``white``.
        white = uniform(batch, 1, 1, low=0.88, high=1.0)
        normals = F.normalize(torch.randn(256, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
        up = (0.5 + 0.5 * normals[:, 1])[:, None]  # [256, 1]
        steady = ambient[:, None] + ground[:, None] + (sky - ground)[:, None] * up  # [B, 256, 3]
        around = None
        if environment > 0:
            there = torch.rand(batch, 1, generator=generator) < environment
            ambient, sky, ground = (torch.where(there, torch.zeros(()), x) for x in (ambient, sky, ground))
            share = uniform(batch, 1, 1, low=0.6) * white
            around = random_environments(batch, generator, photographed) * share * there[..., None]
            received = torch.einsum("nk,bkc->bnc", polynomial(normals), around)
            steady = torch.where(there[..., None], received, steady)
        lit = torch.einsum("bnl,blc->bnc", (0.5 + 0.5 * torch.einsum("nk,blk->bnl", normals, direction)) ** 2, colors)
        colors = colors * ((white - steady) / lit.clamp_min(1e-6)).amin(dim=(1, 2), keepdim=True)
        shiny = (uniform(batch) < glossy).float()
        return cls(
            ambient=ambient,
            sky=sky.clone(),
            ground=ground,
            directions=direction,
            colors=colors,
            specular=shiny * uniform(batch, low=0.05, high=0.3),
            shininess=uniform(batch, low=8.0, high=64.0),
            environment=around,
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> Lights:
        return Lights(**{k: None if v is None else change(v) for k, v in vars(self).items()})

    def rows(self, which: slice) -> Lights:
        """The lights of some of the scenes."""
        return self._map(lambda x: x[which])

    def pin_memory(self) -> Lights:
        """All tensors in page-locked memory (needs CUDA)."""
        return self._map(lambda x: x.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Lights:
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def tables(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """What the kernels read: [B, 12] (ambient, sky, ground, specular, shininess, 0) and [B, L, 6] (direction, colour).

        With surroundings the first is [B, 39]: their 9 terms of rgb follow.
        """
        last = torch.stack([self.specular, self.shininess, torch.zeros_like(self.specular)], dim=-1)  # [B, 3]
        base = torch.cat([self.ambient, self.sky, self.ground, last], dim=-1)
        if self.environment is not None:
            base = torch.cat([base, self.environment.flatten(1)], dim=-1)  # [B, 9, 3] -> [B, 27]
        lamps = torch.cat([self.directions, self.colors], dim=-1)
        return (x.to(device=device, dtype=torch.float32).contiguous() for x in (base, lamps))
