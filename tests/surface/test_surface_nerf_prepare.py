"""What is compiled beforehand is what runs, by the same optimiser and texture as before."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from bozzetto.surface.nerf import adam, prepare
from bozzetto.surface.nerf.settings import NerfSettings
from bozzetto.surface.nerf.texture import mip_levels, sample_mipmaps

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def test_the_host_needs_a_closed_mesh_that_can_be_unwrapped():
    from bozzetto.evaluation.geometry import is_watertight

    vertices, faces = prepare._solid()
    assert is_watertight(vertices.numpy(), faces.numpy())
    a, b, c = vertices[faces].unbind(dim=1)
    assert bool(((a * torch.linalg.cross(b - a, c - a)).sum(dim=1) > 0).all())
    for task in prepare.host_tasks():
        task()


def test_every_device_task_runs():
    with torch.no_grad():
        for task in prepare.device_tasks(DEVICE, 100, (1, 4), NerfSettings.levels):
            task()


def test_every_kernel_of_the_route_is_among_them():
    """Each kernel of the modules that the route launches from is launched by some task."""
    triton = pytest.importorskip("triton")
    if CUDA:
        pytest.skip("the launches are watched in the interpreter")
    from triton.runtime.interpreter import GridExecutor, InterpretedFunction

    from bozzetto.data.render import triton_visibility
    from bozzetto.surface.nerf import edges_triton, hash_grid_triton, march_triton, surface_triton

    assert triton
    launched = set()
    call = GridExecutor.__call__

    def watched(self, *args, **kwargs):
        launched.add((self.fn.__module__, self.fn.__name__))
        return call(self, *args, **kwargs)

    GridExecutor.__call__ = watched
    try:
        with torch.no_grad():
            for task in prepare.device_tasks(DEVICE, 100, (1,), 3):
                task()
    finally:
        GridExecutor.__call__ = call
    kernels = {
        (module.__name__, name)
        for module in (edges_triton, hash_grid_triton, march_triton, surface_triton, triton_visibility)
        for name, thing in vars(module).items()
        if name.endswith("_kernel") and isinstance(thing, InterpretedFunction)
    }
    assert len(kernels) >= 15
    kernels |= {("bozzetto.raster.triton_" + a, b + "_kernel") for a, b in
                (("project", "project"), ("lists", "tile"), ("blend", "blend"))}  # fmt: skip
    assert kernels <= launched


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a GPU")
def test_a_run_compiles_nothing_that_was_not_prepared():
    import shapes
    from test_surface_nerf import SMALL

    from bozzetto.data.render import triton_visibility
    from bozzetto.surface.nerf import (
        edges_triton,
        gaussians_to_mesh_by_nerf,
        hash_grid_triton,
        march_triton,
        surface_triton,
    )

    def variants() -> dict:
        kernels = {
            (module.__name__, name): thing
            for module in (edges_triton, hash_grid_triton, march_triton, surface_triton, triton_visibility)
            for name, thing in vars(module).items()
            if name.endswith("_kernel")
        }
        return {key: sum(len(cache[0]) for cache in kernel.device_caches.values()) for key, kernel in kernels.items()}

    ball = shapes.sphere(3000).gaussians().to(DEVICE)
    prepare._prepared.clear()
    prepare.prepare_kernels(ball, SMALL)()
    before = variants()
    assert all(before.values())
    gaussians_to_mesh_by_nerf(ball, settings=SMALL, texture_size=64, max_faces=1000)
    assert variants() == before


def test_a_task_that_fails_is_no_error(monkeypatch):
    def broken() -> None:
        raise RuntimeError("no compiler")

    prepare._quietly(broken, DEVICE)
    monkeypatch.setattr(prepare, "by_triton", lambda device: True)
    monkeypatch.setattr(prepare, "device_tasks", lambda *args: [broken])
    monkeypatch.setattr(prepare, "host_tasks", lambda: [broken])
    prepare._prepared.clear()
    import shapes

    prepare.prepare_kernels(shapes.sphere(10).gaussians().to(DEVICE), NerfSettings())()
    prepare._prepared.clear()


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if CUDA else [])])
def test_adam_steps_as_torch_does(device):
    def run(own: bool) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        a, b = (torch.randn(n, generator=generator).to(device).requires_grad_() for n in (21, 5))
        groups = ([a], 1e-2), ([b], 3e-3)
        if own:
            optimizer = adam.Adam(*groups)
        else:
            optimizer = torch.optim.Adam([{"params": p, "lr": rate} for p, rate in groups])
        for i in range(40):
            loss = (a * (i % 3 + 1)).sin().sum() + b.square().sum() * a.mean()
            optimizer.clear() if own else optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return torch.cat([a.detach(), b.detach()])

    assert float((run(True) - run(False)).abs().max()) < 2e-5


def test_the_route_does_not_import_torchs_compiler():
    code = """
import sys, torch
from bozzetto.surface.nerf import pipeline
from bozzetto.surface.nerf.adam import Adam
x = torch.zeros(3, requires_grad=True)
optimizer = Adam(([x], 0.1))
x.sum().backward()
optimizer.step()
assert abs(float(x[0].detach()) + 0.1) < 1e-4
print("torch._dynamo" in sys.modules)
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"


def test_texture_is_read_as_with_repeated_borders():
    generator = torch.Generator().manual_seed(2)
    texture = torch.rand(3, 32, 32, generator=generator, requires_grad=True)
    uvs = torch.rand(500, 2, generator=generator) * 1.1 - 0.05
    lod = torch.rand(500, generator=generator) * 6 - 1
    wanted = torch.rand(500, generator=generator) < 0.7
    weight = torch.rand(500, 1, generator=generator)

    levels, plain = mip_levels(texture), 0
    at = lod.clamp(0, len(levels) - 1)
    for i, level in enumerate(levels):
        colour = F.grid_sample(level[None], (uvs * 2 - 1)[None, None], padding_mode="border", align_corners=False)
        plain = plain + colour[0, :, 0].T * (1 - (at - i).abs()).clamp_min(0)[:, None]
    for seen in (None, wanted):
        expected = plain if seen is None else plain * seen[:, None]
        own = sample_mipmaps(mip_levels(texture), uvs, lod, seen)
        assert torch.allclose(own, expected, atol=1e-6)
        gradients = [torch.autograd.grad((c * weight).sum(), texture, retain_graph=True)[0] for c in (own, expected)]
        assert torch.allclose(*gradients, atol=1e-5)
