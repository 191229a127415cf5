"""Scenes that must not crash a rasterizer nor give NaN, for every back end.

``random_scene`` gives the inputs of a back end; ``CASES`` maps a name to a change of them; ``check_case`` runs one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scenes import PARAMETERS

from bozzetto.camera import Cameras

NAMES = ("means", "quats", "scales", "opacities", "sh", "view", "intrinsics", "background")


def random_scene(
    count: int = 40,
    height: int = 24,
    width: int = 37,
    scenes: int = 1,
    views: int = 1,
    sh_count: int = 4,
    scale: float = 0.05,
    seed: int = 0,
) -> dict:
    """Gaussians around the origin seen from radius 1.5; float32, shapes of :mod:`bozzetto.raster.api`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    angles = torch.arange(views) * 70.0 + 10.0
    cameras = Cameras.orbit(angles, 15.0)
    return {
        "means": 0.3 * normal(scenes, count, 3),
        "quats": normal(scenes, count, 4),
        "scales": scale * torch.exp(0.5 * normal(scenes, count, 3)),
        "opacities": torch.sigmoid(normal(scenes, count)),
        "sh": 0.5 * normal(scenes, count, sh_count, 3),
        "view": cameras.view_matrices().expand(scenes, views, 4, 4).contiguous(),
        "intrinsics": cameras.pixel_intrinsics((height, width)).expand(scenes, views, 4).contiguous(),
        "background": torch.rand(scenes, views, 3, generator=generator),
        "height": height,
        "width": width,
        "near": 0.01,
        "far": 1e10,
    }


def _set(name: str, value: float, every: int = 2) -> Callable[[dict], None]:
    def change(scene: dict) -> None:
        scene[name][:, ::every] = value

    return change


def _behind(scene: dict) -> None:
    scene["means"] += 5 * torch.linalg.inv(scene["view"])[:, 0, None, :3, 3]


def _at_the_camera(scene: dict) -> None:
    scene["means"][:, ::2] = torch.linalg.inv(scene["view"])[:, 0, None, :3, 3]


def _one_pixel(scene: dict) -> None:
    scene["means"][:] = 0.0
    scene["scales"][:] = 1e-4


def _needles(scene: dict) -> None:
    scene["scales"][..., 0] = 2.0
    scene["scales"][..., 1:] = 1e-6


def _cut(count: int) -> Callable[[dict], None]:
    def change(scene: dict) -> None:
        for name in PARAMETERS[:5]:
            scene[name] = scene[name][:, :count].contiguous()

    return change


CASES: dict[str, Callable[[dict], None]] = {
    "no Gaussians": _cut(0),
    "one Gaussian": _cut(1),
    "behind the camera": _behind,
    "at the camera": _at_the_camera,
    "on one pixel": _one_pixel,
    "needles": _needles,
    "zero scale": _set("scales", 0.0),
    "large scale": _set("scales", 1e3),
    "huge scale": _set("scales", 1e15),
    "overflowing scale": _set("scales", 3e38),
    "infinite scale": _set("scales", math.inf),
    "NaN scale": _set("scales", math.nan),
    "zero quaternion": _set("quats", 0.0),
    "tiny quaternion": _set("quats", 1e-30),
    "NaN quaternion": _set("quats", math.nan),
    "zero opacity": _set("opacities", 0.0),
    "all of zero opacity": _set("opacities", 0.0, every=1),
    "opacity 1": _set("opacities", 1.0, every=1),
    "NaN opacity": _set("opacities", math.nan),
    "NaN mean": _set("means", math.nan),
    "far mean": _set("means", 1e30),
    "infinite mean": _set("means", math.inf),
    "NaN colour": _set("sh", math.nan),
    "infinite colour": _set("sh", math.inf),
}


def run(backend: Callable, scene: dict, device: str = "cpu") -> tuple[dict, dict]:
    """Pictures, and gradients of a loss that weighs every output."""
    inputs = {name: scene[name].detach().clone().to(device) for name in NAMES}
    for name in PARAMETERS:
        inputs[name].requires_grad_()
    pictures = backend(*inputs.values(), *(scene[k] for k in ("height", "width", "near", "far")))
    generator = torch.Generator().manual_seed(1)
    loss = sum((p * torch.randn(p.shape, generator=generator).to(device)).sum() for p in pictures)
    gradients = torch.autograd.grad(loss, [inputs[name] for name in PARAMETERS])
    named = dict(zip(("rgb", "alpha", "depth"), (p.detach().cpu() for p in pictures)))
    return named, dict(zip(PARAMETERS, (g.cpu() for g in gradients)))


def check_case(backend: Callable, name: str, device: str = "cpu") -> tuple[dict, dict, dict]:
    """Run a case; assert finite pictures and gradients, and that what was not drawn has no gradient."""
    scene = random_scene()
    CASES[name](scene)
    pictures, gradients = run(backend, scene, device)
    for part, values in (pictures | gradients).items():
        assert bool(torch.isfinite(values).all()), f"{name}: {part} is not finite"
    assert bool((pictures["alpha"] >= 0).all() and (pictures["alpha"] <= 1).all())
    bad = torch.zeros(scene["opacities"].shape, dtype=torch.bool)
    for part in PARAMETERS[:5]:
        bad |= ~torch.isfinite(scene[part]).flatten(2).all(-1) if scene[part].ndim > 2 else ~torch.isfinite(scene[part])
    for part in PARAMETERS[:5]:
        assert bool((gradients[part][bad] == 0).all()), f"{name}: a skipped Gaussian has a gradient in {part}"
    return scene, pictures, gradients


def without_skipped(scene: dict) -> dict:
    """The scene without its non-finite Gaussians (one scene only)."""
    keep = torch.ones(scene["opacities"].shape[1], dtype=torch.bool)
    for part in PARAMETERS[:5]:
        keep &= torch.isfinite(scene[part][0]).reshape(len(keep), -1).all(-1)
    return scene | {part: scene[part][:, keep].contiguous() for part in PARAMETERS[:5]}
