"""Gaussians of a network, brought closer to the pictures that the network was given: a few steps of optimisation.

A network answers in one pass, and its answer misses the very pictures it was shown by several decibels. What those pictures say
can be asked again: the Gaussians are drawn from their cameras, and all their values follow the gradient of the difference for a
few steps of Adam. So few that only what is wrong now moves; what no picture shows stays as the network imagined it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera import Cameras
from ..errors import InputError
from ..gaussians import Gaussians
from ..options import REFINE_STEPS, check_refine
from ..raster import rasterize

BETAS = (0.5, 0.9)  # of Adam, whose usual memory is longer than the whole run: 0.1 dB
EPS = 1e-8  # of Adam, where the loss is a mean over all pixels of all views: Gaussians that hardly show hardly move
LEAST_OPACITY = 1e-4
NEAR = 0.005  # of the cameras' distance: from where they see, in worlds too small for the rasterizer's own near plane


@dataclass(frozen=True)
class RefinementRates:
    """How far one step may move things.

    Attributes:
        position: in distances of the cameras from the Gaussians. opacity: of its logit. scale: of its logarithm.
        rotation: of the quaternion. colour: of the spherical harmonics' coefficients.
    """

    position: float = 6.7e-4
    opacity: float = 0.05
    scale: float = 0.02
    rotation: float = 0.01
    colour: float = 0.01


def refine_gaussians(
    gaussians: Gaussians,
    rgba: Tensor,
    cameras: Cameras,
    steps: int = REFINE_STEPS,
    *,
    rates: RefinementRates | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Gaussians:
    """The same Gaussians after ``steps`` steps towards posed pictures; their number stays.

    Args:
        gaussians: unbatched, near what the pictures show, in the cameras' world at any scale.
        rgba: [V, 4, H, W], straight alpha in 0..1; what is transparent there is to become empty.
        cameras: (V,).
        steps: 0 gives the Gaussians back. The loss is the mean squared difference of premultiplied rgb and of alpha.
        rates: None for the measured ones.
        progress: called with (what is being done, share done).

    Returns:
        On the Gaussians' device, without gradients; the given ones where a step led to values that are not finite.

    Raises:
        InputError: pictures, cameras or ``steps`` do not fit.
    """
    check_refine(steps)
    if rgba.ndim != 4 or rgba.shape[1] != 4 or cameras.batch_shape != (len(rgba),):
        raise InputError(
            f"refinement needs pictures [V, 4, H, W] and as many cameras, got {tuple(rgba.shape)} and a batch of "
            f"{tuple(cameras.batch_shape)}"
        )
    if gaussians.batch_shape:
        raise InputError(f"refinement takes one object at a time, got a batch of {tuple(gaussians.batch_shape)}")
    if steps == 0 or len(gaussians) == 0:
        return gaussians.detach()
    # What a caller switched off for the network's sake is needed here.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(gaussians.device.type, enabled=False):
        refined = _refined(gaussians, rgba, cameras, steps, rates or RefinementRates(), progress or _silent)
    finite = torch.stack([torch.isfinite(t).all() for t in refined.tensors()]).all()
    return refined if bool(finite) else gaussians.detach()


def _silent(stage: str, share: float) -> None:
    pass


def _refined(
    gaussians: Gaussians,
    rgba: Tensor,
    cameras: Cameras,
    steps: int,
    rates: RefinementRates,
    progress: Callable[[str, float], None],
) -> Gaussians:
    device = gaussians.device
    rgba = rgba.detach().clone().to(device, torch.float32)
    # Copies, because autograd takes no tensors that were made in inference mode.
    poses, lenses = (t.detach().clone() for t in (cameras.camera_to_world, cameras.intrinsics))
    cameras = Cameras(poses, lenses).to(device, torch.float32)
    goal = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1).permute(0, 2, 3, 1)  # [V, H, W, 4], premultiplied
    means, scales, quats, opacities, sh = (t.detach().clone().float() for t in gaussians.tensors())
    away = float((cameras.positions - means.mean(0)).norm(dim=-1).mean())
    near = min(0.01, NEAR * away)
    raw = [means, scales.clamp_min(1e-12).log(), quats, torch.logit(opacities, LEAST_OPACITY), sh]
    raw = [t.requires_grad_() for t in raw]
    lrs = [rates.position * away, rates.scale, rates.rotation, rates.opacity, rates.colour]
    adam = torch.optim.Adam(
        [{"params": [t], "lr": lr} for t, lr in zip(raw, lrs)], betas=BETAS, eps=EPS, fused=device.type == "cuda"
    )
    size = tuple(goal.shape[1:3])
    for step in range(steps):
        progress("refining on the given pictures", step / steps)
        drawn = rasterize(_activated(raw), cameras, size, near=near)
        difference = torch.cat([drawn.rgb, drawn.alpha[..., None]], dim=-1) - goal
        adam.zero_grad(set_to_none=True)
        difference.square().mean().backward()
        adam.step()
    return _activated(raw).detach()


def _activated(raw: list[Tensor]) -> Gaussians:
    means, scales, quats, opacities, sh = raw
    return Gaussians(means, scales.exp(), quats, torch.sigmoid(opacities), sh)
