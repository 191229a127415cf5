"""Analytic objects as Gaussians: flattened splats on known surfaces, with their signed distance and colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians, matrix_to_quaternion

OUTLINE = 1.2  # standard deviations from a row of overlapping splats to where their picture is half opaque


@dataclass
class Shape:
    """Surface samples with outward normals, the exact signed distance and the colour as functions of position."""

    points: Tensor
    normals: Tensor
    distance: Callable[[Tensor], Tensor]
    colour: Callable[[Tensor], Tensor]

    def gaussians(self, noise: float = 0.0, opacity: tuple[float, float] = (0.6, 0.99), seed: int = 1) -> Gaussians:
        """Splats flattened along the normal, sized to overlap; ``noise`` moves them along it.

        Like splats fitted to pictures, they lie a little inside, so that their rendered outline is the object's.
        """
        generator = torch.Generator().manual_seed(seed)
        n = len(self.points)
        area = self.area()
        sigma = (area / n) ** 0.5 * 0.9
        means = self.points + self.normals * (torch.randn(n, 1, generator=generator) * noise - OUTLINE * sigma)
        helper = F.one_hot(self.normals.abs().argmin(dim=1), 3).float()
        tangent = F.normalize(torch.linalg.cross(self.normals, helper), dim=1)
        frame = torch.stack([tangent, torch.linalg.cross(self.normals, tangent), self.normals], dim=2)
        opacities = opacity[0] + (opacity[1] - opacity[0]) * torch.rand(n, generator=generator)
        scales = torch.tensor([sigma, sigma, 0.2 * sigma]).repeat(n, 1)
        return Gaussians.from_rgb(means, scales, matrix_to_quaternion(frame), opacities, self.colour(self.points))

    def area(self) -> float:
        """Rough surface area from the mean distance to the nearest of the other samples."""
        subset = self.points[torch.linspace(0, len(self.points) - 1, 2000).long()]
        nearest = torch.cdist(subset, self.points).topk(2, largest=False).values[:, 1]
        return float((nearest.mean() * 2) ** 2 * len(self.points))


def _random(n: int, k: int, seed: int) -> Tensor:
    return torch.rand(n, k, generator=torch.Generator().manual_seed(seed))


def octant_colour(p: Tensor) -> Tensor:
    """Red where x > 0, green where y > 0, blue where z > 0 (0.9 or 0.15)."""
    return torch.where(p > 0, 0.9, 0.15)


def sphere(n: int = 20000, radius: float = 0.5, centre=(0.0, 0.0, 0.0), colour=octant_colour) -> Shape:
    c = torch.tensor(centre)
    u = _random(n, 2, 0)
    z, a = 1 - 2 * u[:, 0], 2 * torch.pi * u[:, 1]
    ring = (1 - z * z).sqrt()
    normals = torch.stack([ring * a.cos(), z, ring * a.sin()], dim=1)
    return Shape(c + radius * normals, normals, lambda p: (p - c).norm(dim=-1) - radius, lambda p: colour(p - c))


def torus(n: int = 20000, major: float = 0.42, minor: float = 0.15) -> Shape:
    """Around the y axis; samples drawn with the right density on the inner and outer side."""
    u = _random(4 * n, 3, 0)
    a, b = 2 * torch.pi * u[:, 0], 2 * torch.pi * u[:, 1]
    keep = (u[:, 2] < (major + minor * b.cos()) / (major + minor)).nonzero()[:n, 0]
    a, b = a[keep], b[keep]
    normals = torch.stack([b.cos() * a.cos(), b.sin(), b.cos() * a.sin()], dim=1)
    points = minor * normals + major * torch.stack([a.cos(), torch.zeros_like(a), a.sin()], dim=1)

    def distance(p: Tensor) -> Tensor:
        return ((p[..., [0, 2]].norm(dim=-1) - major) ** 2 + p[..., 1] ** 2).sqrt() - minor

    return Shape(points, normals, distance, octant_colour)


def boxes(boxes: list[tuple[tuple, tuple]], n: int = 30000, colour=octant_colour) -> Shape:
    """Union of axis-aligned boxes (centre, half sides); samples inside another box are dropped."""
    centres, halves = (torch.tensor(x, dtype=torch.float32) for x in zip(*boxes, strict=True))

    def distance(p: Tensor) -> Tensor:
        q = (p[..., None, :] - centres).abs() - halves
        return (q.clamp_min(0).norm(dim=-1) + q.amax(dim=-1).clamp_max(0)).amin(dim=-1)

    area = torch.stack([h[[1, 2, 0]] * h[[2, 0, 1]] for h in halves]) * 8  # [B, 3], both faces across each axis
    total = area.sum()
    points, normals = [], []
    for i, (c, h) in enumerate(zip(centres, halves, strict=True)):
        for axis in range(3):
            count = round(float(n * area[i, axis] / total))
            p = (_random(count, 3, 10 * i + axis) * 2 - 1) * h
            side = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
            p[:, axis] = side * h[axis]
            normals.append(F.one_hot(torch.tensor(axis), 3).float() * side[:, None])
            points.append(p + c)
    p, m = torch.cat(points), torch.cat(normals)
    surface = distance(p).abs() < 1e-4
    return Shape(p[surface], m[surface], distance, colour)


def chair(n: int = 30000) -> Shape:
    """A stool with a back: four thin legs, a seat, a back plate on -z. Not symmetric in y or z."""
    leg = [((x, -0.25, z), (0.03, 0.25, 0.03)) for x in (-0.3, 0.3) for z in (-0.3, 0.3)]
    return boxes([*leg, ((0.0, 0.02, 0.0), (0.35, 0.03, 0.35)), ((0.0, 0.29, -0.32), (0.35, 0.26, 0.025))], n)


def join(*gaussians: Gaussians) -> Gaussians:
    return Gaussians.cat(gaussians)


def from_views(shape: Shape, size: int = 128, views: int = 4, noise: float = 0.006, seed: int = 0) -> Gaussians:
    """Splats as LGM-like networks make them: one per pixel of a few level views, at a depth with smooth errors.

    What no view sees (a level top, a bottom) stays open; silhouettes leave trails; a few floaters are added.
    """
    generator = torch.Generator().manual_seed(seed)
    cameras = Cameras.orbit(torch.arange(views) * (360.0 / views))
    origins, directions = cameras.rays(size)
    t = torch.full(origins.shape[:-1], 0.5)
    for _ in range(100):
        t = t + shape.distance(origins + directions * t[..., None])
    hit = shape.distance(origins + directions * t[..., None]).abs() < 2e-3
    wobble = torch.randn(views, 1, size // 8, size // 8, generator=generator)
    wobble = F.interpolate(wobble, size=size, mode="bicubic")[:, 0] * noise
    wobble = wobble + torch.randn(t.shape, generator=generator) * noise / 3
    footprint = 1.5 * 2 * 0.457 / size
    points = (origins + directions * t[..., None])[hit]
    steps = torch.eye(3) * 1e-3
    normals = torch.stack([shape.distance(points + s) - shape.distance(points - s) for s in steps], dim=1)
    points = points + directions[hit] * wobble[hit][:, None] - F.normalize(normals, dim=1) * OUTLINE * footprint
    n = len(points)
    scales = footprint * (0.5 + torch.rand(n, 3, generator=generator))
    quats = torch.randn(n, 4, generator=generator)
    opacities = 0.2 + 0.79 * torch.rand(n, generator=generator)
    floaters = 40
    points = torch.cat([points, torch.rand(floaters, 3, generator=generator) * 1.6 - 0.8])
    scales = torch.cat([scales, torch.full((floaters, 3), 2 * footprint)])
    quats = torch.cat([quats, torch.randn(floaters, 4, generator=generator)])
    opacities = torch.cat([opacities, torch.full((floaters,), 0.5)])
    return Gaussians.from_rgb(points, scales, quats, opacities, shape.colour(points))


def snowman(n: int = 30000) -> Shape:
    """Three balls of falling size with a nose towards +z; colours in stripes over the height."""
    balls = [((0, -0.3, 0), 0.28), ((0, 0.08, 0), 0.2), ((0, 0.36, 0), 0.14), ((0, 0.36, 0.15), 0.05)]
    parts = [sphere(round(n * r * r * 7), r, tuple(map(float, c))) for c, r in balls]

    def distance(p: Tensor) -> Tensor:
        return torch.stack([s.distance(p) for s in parts]).amin(dim=0)

    def colour(p: Tensor) -> Tensor:
        stripe = (0.5 + 0.5 * (p[..., 1:2] * 40).sin()).expand_as(p) * 0.8 + 0.1
        orange = torch.tensor([0.95, 0.45, 0.1]).expand_as(p)
        nose = (p[..., 2:] > 0.14) & (p[..., 1:2] > 0.28)
        front = torch.tensor([1.0, 0.8, 0.8])
        return torch.where(nose, orange, torch.where(p[..., 2:] > 0, stripe * front, stripe * front.flip(0)))

    points, normals = torch.cat([s.points for s in parts]), torch.cat([s.normals for s in parts])
    surface = distance(points).abs() < 1e-4
    return Shape(points[surface], normals[surface], distance, colour)
