"""Depth maps of analytic bodies → volume → triangles."""

import pytest
import shapes
import torch

from bozzetto.camera import Cameras
from bozzetto.errors import MeshError
from bozzetto.mesh import Mesh
from bozzetto.surface import fusion
from bozzetto.surface.capture import capture_depth, sphere_cameras
from bozzetto.surface.clean import keep_large_components, signed_volumes, unique_edges
from bozzetto.surface.fusion import count_sides, facing_cosine, fuse_depth, inner_faces
from bozzetto.surface.marching import marching_cubes


def depth_of(distance, cameras: Cameras, size: int) -> torch.Tensor:
    """Exact depth maps by sphere tracing."""
    origins, directions = cameras.rays(size)
    t = torch.full(origins.shape[:-1], 1.5)
    for _ in range(40):
        t = t + distance(origins + directions * t[..., None]).clamp(-0.1, 1)
    hit = distance(origins + directions * t[..., None]).abs() < 2e-3
    axis = -cameras.camera_to_world[:, None, None, :3, 2]
    return torch.where(hit, t * (directions * axis).sum(-1), torch.inf)


@pytest.mark.parametrize("name", ["sphere", "torus", "chair"])
def test_surface_of_exact_depth(name):
    shape = {"sphere": shapes.sphere, "torus": shapes.torus, "chair": shapes.chair}[name]()
    cameras = sphere_cameras(32)
    depth = depth_of(shape.distance, cameras, 112)
    half = shape.points.abs().amax(dim=0)
    volume, origin, voxel = fuse_depth(depth, torch.zeros_like(depth), cameras, half, 64)
    vertices, faces = marching_cubes(volume, origin, voxel)
    vertices, faces = keep_large_components(vertices, faces)
    error = shape.distance(vertices) / voxel
    assert float(error.abs().mean()) < 0.35
    assert float(error.abs().max()) < 2.0
    assert (unique_edges(faces)[1] == 2).all()  # closed
    assert float(signed_volumes(vertices, faces).sum()) > 0  # outward
    # The whole surface is there.
    nearest = torch.cdist(shape.points[::20], vertices).amin(dim=1) / voxel
    assert float(nearest.quantile(0.99)) < 2.0
    # Vertex normals agree with the gradient of the distance.
    normals = Mesh(vertices, faces).with_normals().normals
    ahead, behind = shape.distance(vertices + 0.01 * normals), shape.distance(vertices - 0.01 * normals)
    assert float((ahead > behind).float().mean()) > 0.97


def test_cavity_behind_a_few_views_is_kept_and_holes_do_not_hollow():
    """A ball whose top is missing in the depth maps' source: seen from above one looks into the shell."""
    cameras = sphere_cameras(40)

    def open_ball(p):  # a thin shell without its cap
        shell = ((p - 0).norm(dim=-1) - 0.5).abs() - 0.004
        return torch.maximum(shell, p[..., 1] - 0.46)

    depth = depth_of(open_ball, cameras, 160)
    inner = inner_faces(depth, cameras, 0.04)
    assert inner.any()
    assert not inner[20:].any()  # views from below see the outside only
    volume, origin, voxel = fuse_depth(depth, torch.zeros_like(depth), cameras, torch.full((3,), 0.5), 64)
    centre = ((torch.zeros(3) - origin) / voxel).round().long().tolist()
    assert volume[tuple(centre)] < 0


def test_facing_cosine_of_a_tilted_plane():
    cameras = Cameras.orbit([0.0], radius=3.0)
    _, directions = cameras.rays(64)
    # Plane through the origin whose normal is 60 degrees from the axis: z = x * tan(60).
    slope = 3**0.5
    ray = directions[0]
    t = 3.0 / (slope * ray[..., 0] - ray[..., 2])
    facing = facing_cosine((t * -ray[..., 2])[None], cameras)[0]
    true = (ray @ torch.tensor([-slope / 2, 0.0, 0.5])).abs()
    middle = slice(26, 38)
    assert torch.allclose(facing[middle, middle], true[middle, middle], atol=0.06)
    assert float(facing[32, 26]) < 0.5 < float(facing[32, 38])


def test_empty_volume():
    with pytest.raises(MeshError, match="no surface was found"):
        marching_cubes(torch.ones(8, 8, 8), torch.zeros(3), 0.1)


def test_marching_cubes_frame():
    x = torch.arange(20) * 0.05 - 0.3
    volume = torch.stack(torch.meshgrid(x, x + 1, x + 2, indexing="ij"), dim=-1).sub(torch.tensor([0.1, 1.1, 2.1]))
    vertices, faces = marching_cubes(volume.norm(dim=-1) - 0.2, torch.tensor([-0.3, 0.7, 1.7]), 0.05)
    radius = (vertices - torch.tensor([0.1, 1.1, 2.1])).norm(dim=1)
    assert torch.allclose(radius, torch.full_like(radius, 0.2), atol=0.005)
    assert float(signed_volumes(vertices, faces).sum()) == pytest.approx(4 / 3 * torch.pi * 0.2**3, rel=0.06)


def test_captured_depth_and_spread():
    """A crisp ball has its depth and hardly any spread; a see-through cloud has a spread about its own."""
    ball = shapes.sphere(8000)
    cameras = sphere_cameras(6)
    depth, spread = capture_depth(ball.gaussians(), cameras, 96)
    exact = depth_of(ball.distance, cameras, 96)
    both = torch.isfinite(depth) & torch.isfinite(exact) & (facing_cosine(exact, cameras) > 0.5)
    assert float((depth - exact)[both].abs().mean()) < 0.02
    assert float(spread[both].mean()) < 0.02
    assert (spread[~torch.isfinite(depth)] == 0).all()
    assert float((torch.isfinite(depth) == torch.isfinite(exact)).float().mean()) > 0.97
    cloud = ball.gaussians()
    cloud.means *= torch.rand(len(cloud), 1, generator=torch.Generator().manual_seed(0)) ** (1 / 3)
    cloud.opacities[:] = 0.07
    depth, spread = capture_depth(cloud, cameras, 96)
    middle = spread[:, 44:52, 44:52]
    assert torch.isfinite(depth[:, 44:52, 44:52]).all()
    assert 0.1 < float(middle.mean()) < 0.3


def test_fog_becomes_one_smooth_body():
    """A ball of faint scattered splats: views from both sides see past its middle, yet it must not be torn."""
    ball = shapes.sphere(8000)
    cloud = ball.gaussians()
    cloud.means *= torch.rand(len(cloud), 1, generator=torch.Generator().manual_seed(0)) ** (1 / 3)
    cloud.opacities[:] = 0.07
    cameras = sphere_cameras(32)
    depth, spread = capture_depth(cloud, cameras, 112)
    volume, origin, voxel = fuse_depth(depth, spread, cameras, torch.full((3,), 0.5), 64)
    vertices, faces = marching_cubes(volume, origin, voxel)
    radius = vertices.norm(dim=1)
    assert float(radius.std()) < 0.03
    assert 0.3 < float(radius.mean()) < 0.55
    assert len(vertices) - len(faces) // 2 == 2  # one closed body without handles


def _captured(size: int = 96, views: int = 12):
    """Depth and spread of a noisy torus with fog on one side: walls, edges, gaps and background."""
    splats = shapes.torus(6000).gaussians(noise=0.01)
    splats.opacities[splats.means[:, 0] > 0.2] *= 0.2
    cameras = sphere_cameras(views)
    return *capture_depth(splats, cameras, size), cameras


def test_compiled_votes_equal_the_plain_ones():
    depth, spread, cameras = _captured()
    assert bool((spread > 0.05).any())
    trusted = torch.rand(depth.shape, generator=torch.Generator().manual_seed(1)) > 0.1
    maps = fusion._DepthMaps(depth, spread, 0.02, cameras, trusted)
    points = torch.rand(6000, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    for step in (0.02, 0.08):
        value, closest, free = maps.votes(points, step, 0.02)
        plain = maps.plain_votes(points, fusion.TRUNCATION * step)
        assert float((value - plain[0]).abs().mean()) < 1e-5
        assert (
            float(((value - plain[0]).abs() > 1e-3).float().mean()) < 1e-3
        )  # a sum may fall on another side of a limit
        assert float(((free - plain[2]).abs() > 1e-3).float().mean()) < 1e-2
        close = closest < 0.3
        assert float(((closest - plain[1]).abs()[close] > 1e-4).float().mean()) < 1e-3
        assert float((value > 0).float().mean()) > 0.2 and float((value < 0).float().mean()) > 0.02


def test_compiled_sides_equal_the_plain_ones():
    depth, _, cameras = _captured()
    points = shapes.torus(3000).points
    normals = shapes.torus(3000).normals
    flip = torch.arange(len(normals)) % 3 == 0
    normals = torch.where(flip[:, None], -normals, normals)
    same, opposite = fusion._count_sides_cpu(points, normals, depth.clamp_max(100), cameras, 0.05)
    plain = count_sides(points, normals, depth.clamp_max(100), cameras, 0.05)
    assert float((same != plain[0]).float().mean()) < 2e-3 and float((opposite != plain[1]).float().mean()) < 2e-3
    assert float(same[~flip].mean()) > 1 > float(same[flip].mean())
    assert float(opposite[flip].mean()) > 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fusion_on_the_gpu_equals_the_cpu():
    depth, spread, cameras = _captured(160, 40)
    half = torch.full((3,), 0.6)
    volume, origin, voxel = fuse_depth(depth, spread, cameras, half, 96)
    there, there_origin, there_voxel = fuse_depth(depth.cuda(), spread.cuda(), cameras, half, 96)
    assert there.device.type == "cuda" and there_voxel == voxel
    assert torch.allclose(there_origin.cpu(), origin)
    error = (there.cpu() - volume).abs()
    assert float(error.mean()) < 1e-4
    assert float((error > 0.02).float().mean()) < 2e-3


def test_density_keeps_thin_plates_and_leaves_fog_alone():
    """Two plates a few voxels apart: depth alone swells them, density less; fog is not changed."""
    plates = shapes.boxes([((0.0, y, 0.0), (0.4, 0.004, 0.4)) for y in (-0.06, 0.06)], 20000)
    splats = plates.gaussians(noise=0.004)
    cameras = sphere_cameras(40)
    depth, spread = capture_depth(splats, cameras, 160)
    half = torch.tensor([0.45, 0.1, 0.45])
    errors = []
    for gaussians in (None, splats):
        volume, origin, voxel = fuse_depth(depth, spread, cameras, half, 64, gaussians)
        vertices, faces = keep_large_components(*marching_cubes(volume, origin, voxel))
        assert (unique_edges(faces)[1] == 2).all()
        errors.append(float(plates.distance(vertices).abs().mean()) / voxel)
    assert errors[1] < 0.9 * errors[0]
    fog = splats._map(torch.clone)
    fog.opacities *= 0.05
    volume, *_ = fuse_depth(depth, spread, cameras, half, 48)
    same, *_ = fuse_depth(depth, spread, cameras, half, 48, fog)
    assert torch.equal(volume, same)
