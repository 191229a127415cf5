"""Peak memory of the Triton rasterizer is what :mod:`bozzetto.raster.triton_call` says: with C pictures of P pixels in all, N
Gaussians in each, room for T pairs and E list entries."""

from __future__ import annotations

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize

pytest.importorskip("triton", reason="Triton exists for Linux only")
CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu] if CUDA else []
CASES = [  # scenes, views, N, size, SH coefficients
    (1, 1, 20_000, 256, 1),  # lean records
    (2, 3, 20_000, 200, 1),
    (1, 2, 70_000, 128, 1),  # indices of 32 bits
    (1, 2, 20_000, 256, 9),
]


def layout_of(scenes: int, views: int, n: int, size: int, k: int):
    from bozzetto.raster.triton_layout import Layout

    return Layout(scenes, views, n, k, size, size, 0.01, 1e10, True, 16 * views, 16, 4 * views, 4)


def stated_bytes(layout, room) -> tuple[int, int, int]:
    """What is kept, what only the lists need, and moments, by the numbers in the module's description (no gradient of depth)."""
    pixels = layout.cameras * layout.height * layout.width
    rows, cells = layout.cameras * layout.n, layout.cameras * layout.tiles * 16
    index = 2 if layout.n <= 65536 else 4
    lists = room.entries * index + 12 * cells
    for_gradient = pixels * (1 + index) + room.entries // 32 * 4 * layout.parts + cells * 4 * layout.parts
    table = 8 * layout.cameras * layout.tiles * -(-layout.n // 512)
    work = 24 * room.pairs + (table if table > for_gradient else 0)
    return rows * (28 if layout.lean else 40) + lists + for_gradient, work, 36 * rows


@pytest.mark.parametrize("case", CASES)
def test_plans_are_as_described(case, monkeypatch):
    from bozzetto.raster import triton_call, triton_layout
    from bozzetto.raster.triton_room import Room

    monkeypatch.setattr(triton_layout, "BLOCK", 512)  # as on a device, also where kernels are interpreted
    layout, room = layout_of(*case), Room(150_000, 1 << 20)
    triton_call.plans.cache_clear()
    got, _, more, _, table = triton_call.plans(layout, room, True)
    triton_call.plans.cache_clear()
    kept, work, _ = stated_bytes(layout, room)
    assert bool(table) == (work == 24 * room.pairs)
    assert kept <= got <= kept + 9 * 256 and work <= more <= work + 4 * 256


@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_peak_of_a_forward_and_backward_pass(case):
    from bozzetto.raster.triton_room import expected

    scenes, views, n, size, k = case
    g = torch.Generator().manual_seed(0)
    leaves = [
        0.3 * torch.randn(scenes, n, 3, generator=g),
        0.005 + 0.005 * torch.rand(scenes, n, 3, generator=g),
        torch.randn(scenes, n, 4, generator=g),
        torch.rand(scenes, n, generator=g),
        0.3 * torch.randn(scenes, n, k, 3, generator=g),
    ]
    leaves = [t.cuda().requires_grad_() for t in leaves]
    cameras = Cameras.turntable(views).to(device="cuda")
    weights = (
        torch.rand(scenes, views, size, size, 3, device="cuda"),
        torch.rand(scenes, views, size, size, device="cuda"),
    )

    def both() -> None:
        picture = rasterize(Gaussians(*leaves), cameras, size)
        drawn = picture.rgb, picture.alpha
        del picture
        torch.autograd.grad(drawn, leaves, weights)

    for _ in range(2):
        both()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before

    layout = layout_of(*case)
    kind = (torch.device("cuda", 0), layout.cameras, size, size)
    kept, work, moments = stated_bytes(layout, expected(kind, layout.cameras * n))
    pictures = 16 * layout.cameras * size * size  # without depth, which nothing holds by the time of the backward pass
    gradients = 4 * sum(t.numel() for t in leaves)
    records = kept if k > 1 else 0
    stated = max(
        kept + max(work, pictures * 20 // 16), kept + pictures + moments, records + pictures + moments + gradients
    )
    assert 0.9 * stated < peak < 1.03 * stated + (1 << 16), f"{peak / 2**20:.2f} MiB instead of {stated / 2**20:.2f}"
