"""Gaussians -> field -> mesh -> texture, end to end at small sizes; what is refused."""

import warnings

import pytest
import shapes
import test_surface_pipeline as fast
import torch

from bozzetto.errors import InputError, MeshError
from bozzetto.gaussians import Gaussians
from bozzetto.options import MESH_METHODS, check_mesh_method
from bozzetto.surface import gaussians_to_mesh
from bozzetto.surface.nerf import NerfSettings, gaussians_to_mesh_by_nerf
from bozzetto.surface.pipeline import METHODS

SMALL = NerfSettings(
    field_steps=128, field_size=40, step=0.02, levels=8, table=1 << 15, finest=256, occupancy=64, variation_points=2048,
    resolution=48, refine_steps=256, refine_size=96, refine_rounds=1, texture_steps=16, texture_fit_size=64,
)  # fmt: skip
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.slow
def test_looks_like_the_object():
    shape = shapes.sphere(6000)
    calls: list[float] = []
    mesh = gaussians_to_mesh_by_nerf(
        fast.move(shape.gaussians(), (3.0, -2.0, 1.0), 4.0).to(DEVICE), settings=SMALL, texture_size=128, max_faces=2000,
        progress=lambda stage, fraction: calls.append(fraction),
    )  # fmt: skip
    assert calls == sorted(calls) and calls[0] == 0 and calls[-1] == 1
    solid = fast.check(mesh, 2000)
    assert solid.body_count == 1
    mesh.vertices = (mesh.vertices - torch.tensor([3.0, -2.0, 1.0])) / 4
    there = shape.distance(mesh.vertices).abs()
    assert float(there.mean()) < 0.01 and float(there.quantile(0.99)) < 0.04
    back = torch.cdist(shape.points[::10], mesh.vertices).amin(dim=1)
    assert float(back.mean()) < 0.04
    inner = (shape.points.abs().amin(dim=1) > 0.12).nonzero()[::7, 0]
    wrong = (fast.colour_at(mesh, shape.points[inner]) - shape.colour(shape.points[inner])).abs().amax(dim=1)
    assert float(wrong.mean()) < 0.15


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="sums of gradients have no fixed order on a GPU")
def test_the_same_seed_gives_the_same_mesh():
    from dataclasses import replace

    tiny = replace(SMALL, field_steps=64, field_size=24, refine_steps=8, texture_steps=2)
    ball = shapes.sphere(2000).gaussians()
    made = [gaussians_to_mesh_by_nerf(ball, settings=tiny, texture_size=64, max_faces=500, seed=s) for s in (3, 3, 4)]
    assert torch.equal(made[0].vertices, made[1].vertices) and torch.equal(made[0].texture, made[1].texture)
    assert made[0].vertices.shape != made[2].vertices.shape or not torch.equal(made[0].vertices, made[2].vertices)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the interpreter takes minutes")
def test_the_kernels_lead_to_the_same_mesh(monkeypatch):
    """The whole way by the Triton kernels and CUDA graphs, and by the plain forms."""
    from bozzetto.surface.nerf import march, refine, texture

    ball = shapes.sphere(3000).gaussians().to(DEVICE)
    made = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a step that cannot be recorded
        for kernels in (False, True):
            for module in (march, refine, texture):
                monkeypatch.setattr(module, "by_triton", lambda device, backend="auto", kernels=kernels: kernels)
            made[kernels] = gaussians_to_mesh_by_nerf(ball, settings=SMALL, texture_size=64, max_faces=1000)
    plain, own = made[False], made[True]
    assert abs(len(own.faces) - len(plain.faces)) < 0.1 * len(plain.faces)
    apart = torch.cdist(own.vertices, plain.vertices)
    assert float(apart.amin(dim=1).mean()) < 0.02 and float(apart.amin(dim=0).mean()) < 0.02
    # The atlas may be cut elsewhere: colours are compared where the surface is.
    colours = [fast.colour_at(mesh, plain.vertices) for mesh in (own, plain)]
    assert float((colours[0] - colours[1]).abs().mean()) < 0.08


@pytest.mark.slow
def test_one_splat():
    mesh = gaussians_to_mesh_by_nerf(fast.one_splat(0.95).to(DEVICE), settings=SMALL, texture_size=128, max_faces=2000)
    solid = fast.check(mesh, 2000)
    assert solid.centroid == pytest.approx([1, 2, 3], abs=0.03)
    assert solid.extents == pytest.approx([0.68, 0.45, 0.23], rel=0.15)


def test_bad_input_is_refused_as_by_the_fast_route():
    ball = shapes.sphere(3000).gaussians()
    see_through = ball._map(torch.clone)
    see_through.opacities[:] = 0
    broken = ball._map(torch.clone)
    broken.means[:] = torch.nan
    far_apart = Gaussians.cat([ball, fast.move(ball, (1e5, 0.0, 0.0))])
    for bad in (Gaussians.empty(), see_through, broken, fast.one_splat(0.5), far_apart):
        with pytest.raises(MeshError) as refused:
            gaussians_to_mesh(bad, method="nerf")
        try:  # the fast route may be able to do more
            gaussians_to_mesh(bad)
        except MeshError as expected:
            assert str(refused.value) == str(expected)
    with pytest.raises(MeshError, match="seed"):
        gaussians_to_mesh(ball, method="nerf", seed=-1)
    for name, value in (("texture_size", 0), ("max_faces", 3), ("resolution", 4), ("method", "magic")):
        with pytest.raises(MeshError, match=name):
            gaussians_to_mesh(ball, **{"method": "nerf", name: value})


def test_settings_and_methods():
    cpu, gpu = (NerfSettings.for_device(torch.device(d)) for d in ("cpu", "cuda"))
    assert (gpu.field_steps, gpu.refine_steps, gpu.texture_steps, gpu.resolution) == (512, 2048, 512, 256)
    assert gpu.rate_scale("refine") == 1 < cpu.rate_scale("refine") <= 8
    twice = cpu.changed(steps=2 * cpu.field_steps, size=2 * cpu.refine_size)
    assert twice.refine_steps == 2 * cpu.refine_steps and twice.field_size == 2 * cpu.field_size
    assert cpu.changed() == cpu and cpu.changed(resolution=77).resolution == 77
    with pytest.raises(MeshError, match=r"field_size.*another picture size"):
        gpu.changed(size=100_000).check()
    assert METHODS == MESH_METHODS
    check_mesh_method("nerf", True)
    for method, mesh in (("magic", True), ("nerf", False)):
        with pytest.raises(InputError):
            check_mesh_method(method, mesh)
