"""Gaussians → textured mesh, end to end on analytic objects."""

import math

import numpy as np
import pytest
import shapes
import torch
import torch.nn.functional as F
import trimesh

from bozzetto.errors import MeshError
from bozzetto.gaussians import Gaussians
from bozzetto.mesh import Mesh
from bozzetto.surface import gaussians_to_mesh

SMALL = {"resolution": 64, "texture_size": 256, "max_faces": 6000}


def move(gaussians: Gaussians, offset=(0.0, 0.0, 0.0), scale: float = 1.0) -> Gaussians:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] *= scale
    matrix[:3, 3] = torch.tensor(offset)
    return gaussians.transformed(matrix)


def colour_at(mesh: Mesh, points: torch.Tensor) -> torch.Tensor:
    """Texture colour of the vertices nearest to ``points``, read by glTF's rule (0, 0 = top left)."""
    nearest = torch.cdist(points, mesh.vertices).argmin(dim=1)
    grid = (mesh.uvs[nearest] * 2 - 1)[None, None]
    return F.grid_sample(mesh.texture.permute(2, 0, 1)[None], grid, align_corners=False)[0, :, 0].T


def check(mesh: Mesh, max_faces: int) -> trimesh.Trimesh:
    """Everything that every mesh must fulfil."""
    assert 4 <= len(mesh.faces) <= max_faces
    for t in (mesh.vertices, mesh.normals, mesh.uvs, mesh.texture):
        assert bool(torch.isfinite(t).all()) and t.dtype == torch.float32
    assert mesh.texture.min() >= 0 and mesh.texture.max() <= 1
    assert mesh.uvs.min() >= 0 and mesh.uvs.max() <= 1
    assert torch.allclose(mesh.normals.norm(dim=1), torch.ones(len(mesh.normals)), atol=1e-4)
    _, index = np.unique(mesh.vertices.numpy(), axis=0, return_inverse=True)
    solid = trimesh.Trimesh(
        np.unique(mesh.vertices.numpy(), axis=0), index.reshape(-1)[mesh.faces.numpy()], process=False
    )
    assert solid.is_watertight and solid.is_winding_consistent
    assert solid.volume > 0
    return solid


@pytest.mark.parametrize("name", ["sphere", "torus", "chair"])
def test_looks_like_the_object(name):
    shape = {"sphere": shapes.sphere, "torus": shapes.torus, "chair": shapes.chair}[name]()
    mesh = gaussians_to_mesh(shape.gaussians(noise=0.002), **SMALL)
    solid = check(mesh, 6000)
    voxel = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max()) / 64
    # Both directions of the Chamfer distance, in voxels.
    there = shape.distance(mesh.vertices).abs()
    samples = torch.from_numpy(solid.sample(8000, seed=0)).float()
    back = torch.cdist(shape.points[::10], samples).amin(dim=1)
    assert float(there.mean()) < 0.5 * voxel
    assert float(there.quantile(0.99)) < 1.5 * voxel
    assert float(back.quantile(0.98)) < 2.0 * voxel
    # Octant colours at known places; borders between octants are left out.
    inner = (shape.points.abs().amin(dim=1) > 0.06).nonzero()[::7, 0]
    wrong = (colour_at(mesh, shape.points[inner]) - shape.colour(shape.points[inner])).abs().amax(dim=1)
    assert float(wrong.mean()) < 0.06
    assert float((wrong > 0.3).float().mean()) < 0.02
    assert mesh.normals.shape == mesh.vertices.shape
    outwards = shape.distance(mesh.vertices + 0.02 * mesh.normals) > shape.distance(mesh.vertices - 0.02 * mesh.normals)
    assert float(outwards.float().mean()) > 0.97
    if name == "torus":
        assert solid.euler_number == 0
    if name == "chair":  # upright and facing the right way: back plate above and behind the seat
        top = mesh.vertices[mesh.vertices[:, 1] > 0.2]
        assert float(top[:, 2].max()) < -0.2


def test_world_frame_and_scale():
    shape = shapes.sphere(6000)
    for offset, scale in (((100.0, 50.0, -30.0), 2.0), ((0.0, 0.0, 0.0), 1e5), ((0.0, 0.0, 0.0), 1e-5)):
        mesh = gaussians_to_mesh(move(shape.gaussians(), offset, scale), **SMALL)
        check(mesh, 6000)
        local = (mesh.vertices.double() - torch.tensor(offset)) / scale
        assert float(shape.distance(local.float()).abs().mean()) < 0.015


def test_two_bodies_and_floaters():
    ball = shapes.sphere(6000)
    two = Gaussians.cat([ball.gaussians(), move(ball.gaussians(), (2.0, 0.0, 0.0), 0.5)])
    solid = check(gaussians_to_mesh(two, **SMALL), 6000)
    assert solid.body_count == 2
    floating = move(shapes.sphere(20, 0.02).gaussians(), (0.0, 0.9, 0.0))
    solid = check(gaussians_to_mesh(Gaussians.cat([ball.gaussians(), floating]), **SMALL), 6000)
    assert solid.body_count == 1 and solid.vertices[:, 1].max() < 0.55


def test_network_like_splats():
    """One splat per pixel of four level views, noise, gaps above and below, floaters: closed, one body, right colours."""
    shape = shapes.snowman(8000)
    mesh = gaussians_to_mesh(shapes.from_views(shape, 96), **SMALL)
    solid = check(mesh, 6000)
    assert solid.body_count == 1
    assert float(shape.distance(mesh.vertices).abs().mean()) < 0.03
    box = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.7
    volume = 1.4**3 * float((shape.distance(box) < 0).float().mean())
    # Solid, not a hollow shell. The splats' own outlines (half opaque) hold 12 to 15 % more area than the object.
    assert solid.volume == pytest.approx(1.135**1.5 * volume, rel=0.05)
    nose = torch.tensor([[0.0, 0.36, 0.2]])
    assert torch.allclose(colour_at(mesh, nose), torch.tensor([[0.95, 0.45, 0.1]]), atol=0.1)


def one_splat(opacity: float) -> Gaussians:
    size, colour = torch.tensor([[0.3, 0.2, 0.1]]), torch.tensor([[1.0, 0.5, 0.0]])
    place, turn = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    return Gaussians.from_rgb(place, size, turn, torch.tensor([opacity]), colour)


def test_one_splat_is_an_ellipsoid():
    """Half opaque in the picture is where its density is a half; all views' depths of it meet in one point."""
    mesh = gaussians_to_mesh(one_splat(0.9), **SMALL)
    solid = check(mesh, 6000)
    radius = (2 * math.log(0.9 / 0.5)) ** 0.5
    assert solid.extents == pytest.approx([0.6 * radius, 0.4 * radius, 0.2 * radius], rel=0.02)
    assert solid.centroid == pytest.approx([1, 2, 3], abs=0.01)
    assert torch.allclose(mesh.texture, torch.tensor([1.0, 0.5, 0.0]), atol=0.02)


def test_bad_input_ends_in_a_clear_error():
    ball = shapes.sphere(3000).gaussians()
    see_through = ball._map(torch.clone)
    see_through.opacities[:] = 0
    broken = ball._map(torch.clone)
    broken.means[:] = torch.nan
    far_apart = Gaussians.cat([ball, move(ball, (1e5, 0.0, 0.0))])
    faint = one_splat(0.5)
    for bad in (Gaussians.empty(), see_through, broken, faint, far_apart):
        with pytest.raises(MeshError):
            gaussians_to_mesh(bad, **SMALL)
    for name, value in (("resolution", 4), ("texture_size", 0), ("max_faces", 3)):
        with pytest.raises(MeshError, match=name):
            gaussians_to_mesh(ball, **{**SMALL, name: value})


def test_some_nan_and_a_backdrop_are_survived():
    shape = shapes.sphere(8000)
    g = shape.gaussians()
    g.means[::9] = torch.nan
    g.scales[4::9] = torch.inf
    backdrop = g.select(torch.arange(1, 3))
    backdrop.scales[:] = 1e4
    mesh = gaussians_to_mesh(Gaussians.cat([g, backdrop]), **SMALL)
    check(mesh, 6000)
    assert float(shape.distance(mesh.vertices).abs().mean()) < 0.015


def test_components_far_apart():
    ball = shapes.sphere(3000).gaussians()
    mesh = gaussians_to_mesh(Gaussians.cat([ball, move(ball, (10.0, 0.0, 0.0))]), **SMALL)
    solid = check(mesh, 6000)
    assert solid.body_count == 2
    assert solid.bounds[:, 0] == pytest.approx([-0.5, 10.5], abs=0.2)  # 0.17 is a voxel


@pytest.mark.parametrize("change", ["place", "size"])
def test_splats_that_all_fill_the_object_end_soon(change):
    """Thousands of splats at one place, or each far larger than the distances between them: some body, or a plain refusal."""
    heap = shapes.sphere(3000).gaussians()
    if change == "place":
        heap.means[:] = 0
    else:
        heap.scales[:] = 1e4
    try:
        mesh = gaussians_to_mesh(heap, **SMALL)
    except MeshError:
        return
    check(mesh, 6000)


def test_progress_rises_to_one_and_result_repeats():
    calls: list[tuple[str, float]] = []
    ball = shapes.sphere(3000).gaussians()
    first = gaussians_to_mesh(ball, progress=lambda stage, fraction: calls.append((stage, fraction)), **SMALL)
    fractions = [f for _, f in calls]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    second = gaussians_to_mesh(ball, **SMALL)
    assert torch.equal(first.vertices, second.vertices) and torch.equal(first.faces, second.faces)
    assert torch.allclose(first.texture, second.texture)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_gpu():
    shape = shapes.torus()
    mesh = gaussians_to_mesh(shape.gaussians().to("cuda"), **SMALL)
    check(mesh, 6000)
    assert mesh.vertices.device.type == "cpu"
    assert float(shape.distance(mesh.vertices).abs().mean()) < 0.01
