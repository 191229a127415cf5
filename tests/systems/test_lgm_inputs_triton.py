"""The kernel of the input channels against plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.systems.lgm.inputs import IMAGENET_MEAN, IMAGENET_STD, mini_inputs_torch

kernels = pytest.importorskip("bozzetto.systems.lgm.inputs_triton", reason="Triton exists for Linux only")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("objects", "slots", "size"), [(2, 4, 32), (1, 3, 20), (1, 1, 9)])
def test_the_kernel_equals_plain_pytorch(objects, slots, size):
    generator = torch.Generator().manual_seed(size)
    rgba = torch.rand(objects, slots, 4, size, size, generator=generator).to(DEVICE)
    azimuth, elevation = (f * torch.rand(objects * slots, generator=generator) for f in (360, 60))
    cameras = Cameras.orbit(azimuth, elevation, 1.7, 49.1)
    cameras.intrinsics = cameras.intrinsics * (1 + 0.1 * torch.rand(objects * slots, 4, generator=generator))
    cameras = cameras.reshape(objects, slots).to(DEVICE)
    known = (torch.rand(objects, slots, generator=generator) < 0.6).float().to(DEVICE)
    got = kernels.input_channels(rgba, cameras, known, 4, IMAGENET_MEAN, IMAGENET_STD)
    want = mini_inputs_torch(rgba, cameras, known, size)
    assert got.shape == (objects, slots, 15, size, size)
    assert float((got[:, :, :11] - want).abs().max()) < 5e-6
