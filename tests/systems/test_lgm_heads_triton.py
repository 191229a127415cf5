"""The kernels of the ray head against plain PyTorch, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bozzetto.camera import Cameras
from bozzetto.systems.lgm.heads import RANGES, first_guess, ray_head_torch

kernels = pytest.importorskip("bozzetto.systems.lgm.heads_triton", reason="Triton exists for Linux only")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("layout", ["planes", "pixels", "wide pixels", "neither"])
@pytest.mark.parametrize(("objects", "slots", "height", "width"), [(2, 4, 16, 16), (1, 3, 9, 14)])
def test_the_kernels_equal_plain_pytorch(objects, slots, height, width, layout):
    generator = torch.Generator().manual_seed(height)
    raw = 1.5 * torch.randn(objects, slots, 14, height, width, generator=generator)
    if layout == "pixels":
        raw = raw.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    elif layout == "wide pixels":  # two channels more, which are not the head's
        raw = F.pad(raw.permute(0, 1, 3, 4, 2), (0, 2), value=torch.nan)[..., :14].permute(0, 1, 4, 2, 3)
    elif layout == "neither":
        raw = raw.transpose(3, 4).contiguous().transpose(3, 4)
    rgba = torch.rand(objects, slots, 4, 2 * height, 2 * width, generator=generator).to(DEVICE)
    azimuth, elevation = (f * torch.rand(objects * slots, generator=generator) for f in (360, 60))
    cameras = Cameras.orbit(azimuth, elevation, 1.7, 49.1)
    cameras.intrinsics = cameras.intrinsics * (1 + 0.1 * torch.rand(objects * slots, 4, generator=generator))
    cameras = cameras.reshape(objects, slots).to(DEVICE)
    known = (torch.rand(objects, slots, generator=generator) < 0.6).float().to(DEVICE)
    alpha, colour = first_guess(rgba, known, (height, width))
    raw = raw.to(DEVICE)
    first, second = (raw.detach().requires_grad_() for _ in range(2))
    got = kernels.RayHead.apply(first, alpha, colour, known, cameras.camera_to_world, cameras.intrinsics, RANGES)
    gaussians = ray_head_torch(second, cameras, alpha, colour, known)
    want = (gaussians.means, gaussians.scales, gaussians.quats, gaussians.opacities[..., None], gaussians.rgb)
    for a, b in zip(got, want):
        assert a.shape == b.shape and float((a - b).detach().abs().max()) < 1e-5
    weights = [torch.randn(a.shape, generator=generator).to(DEVICE) for a in got]
    gradients = [
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(xs, weights)), leaf)[0]
        for xs, leaf in ((got, first), (want, second))
    ]
    for channel in range(14):
        a, b = (g[:, :, channel] for g in gradients)
        assert float((a - b).norm()) < 1e-4 * float(b.norm()), channel
