"""Pixel coverage, UV atlas and texture."""

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.errors import MeshError
from bozzetto.mesh import Mesh
from bozzetto.surface import coverage
from bozzetto.surface.bake import bake_texture, blend_views, blend_views_cpu, nearest_filled
from bozzetto.surface.coverage import covered_pixels, covered_texels
from bozzetto.surface.marching import marching_cubes
from bozzetto.surface.unwrap import unwrap


def test_coverage_equals_a_plain_loop(monkeypatch):
    monkeypatch.setattr(coverage, "PAIRS_PER_CHUNK", 500)
    corners = torch.rand(40, 3, 2, generator=torch.Generator().manual_seed(3)) * 40 - 4
    corners[7] = corners[7, :1]  # a point
    face, pixel, weights = covered_pixels(corners, 24, 32)
    found = set(zip(face.tolist(), pixel.tolist(), strict=True))
    expected = set()
    for i, (a, b, c) in enumerate(corners.double().tolist()):
        for row in range(24):
            for column in range(32):
                x, y = column + 0.5, row + 0.5
                sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
                if i != 7 and (min(sides) >= 0 or max(sides) <= 0):
                    expected.add((i, row * 32 + column))
    assert found == expected
    centres = torch.stack([pixel % 32, pixel // 32], dim=1) + 0.5
    assert torch.allclose((corners[face] * weights[..., None]).sum(1), centres, atol=1e-3)
    assert covered_pixels(corners[:0], 24, 32)[0].numel() == 0


@pytest.fixture(scope="module")
def ball() -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.linspace(-1, 1, 44)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return marching_cubes(grid.norm(dim=-1) - 0.8, torch.full((3,), -1.0), 2 / 43)


def test_unwrap(ball):
    vertices, faces = ball  # more than one block
    assert len(faces) > 6000
    source, new_faces, uvs = unwrap(vertices * 1e-3, faces, 512)
    assert torch.equal(source[new_faces], faces)  # same triangles, same order, same winding
    assert uvs.min() >= 0 and uvs.max() <= 1
    # No texel centre lies in two charts: doubles occur on shared edges only.
    face, texel, weights = covered_pixels(uvs[new_faces] * 512, 512, 512)
    inside = weights.amin(dim=1) > 1e-3
    assert torch.bincount(texel[inside]).max() == 1
    assert 0.4 < len(torch.unique(texel)) / 512**2 <= 1
    assert len(torch.unique(face)) > 0.9 * len(faces)  # slivers between texel centres aside, nothing is left out
    with pytest.raises(MeshError, match="without faces"):
        unwrap(vertices, faces[:0], 512)


def test_bake_projects_the_right_way_up():
    """A square seen by two cameras: the upper one paints, a wall hides the second; texture rows run downwards."""
    vertices = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]]) * 0.8 + 0.1
    normals = torch.tensor([[0.0, 0, 1]]).expand(4, 3)
    cameras = Cameras.orbit([0.0, 30.0], radius=4.0, fov_y=40.0)
    pictures = torch.zeros(2, 4, 64, 64)
    pictures[:, 3] = 1
    pictures[0, 0, :32] = 1  # red above
    pictures[0, 1, 32:] = 0.5  # green below
    pictures[1, 2] = 1  # blue everywhere, but hidden
    depth = torch.full((2, 64, 64), 4.0)
    depth[1] = 1.0
    texture = bake_texture(vertices, normals, faces, uvs, pictures, depth, 0 * depth, cameras, 40, tolerance=0.5)
    assert texture.shape == (40, 40, 3)
    assert torch.allclose(texture[:18], torch.tensor([1.0, 0, 0]).expand(18, 40, 3), atol=1e-3)
    assert torch.allclose(texture[22:], torch.tensor([0.0, 0.5, 0]).expand(18, 40, 3), atol=1e-3)
    with pytest.raises(MeshError, match="no view sees"):
        bake_texture(vertices, -normals, faces, uvs, pictures, depth, 0 * depth, cameras, 40, tolerance=0.5)


def test_unseen_texels_take_the_nearest_colour(ball):
    """One camera paints the front of a ball; the back takes the rim's colour, and nothing stays black."""
    vertices, faces = ball
    source, faces, uvs = unwrap(vertices, faces, 256)
    mesh = Mesh(vertices[source], faces, uvs=uvs).with_normals()
    cameras = Cameras.orbit([0.0], radius=4.0, fov_y=40.0)
    pictures = torch.full((1, 4, 64, 64), 0.7)
    pictures[:, 3] = 1
    texture = bake_texture(
        mesh.vertices,
        mesh.normals,
        mesh.faces,
        mesh.uvs,
        pictures,
        torch.full((1, 64, 64), 3.2),
        torch.zeros(1, 64, 64),
        cameras,
        256,
        1.0,
    )
    assert torch.allclose(texture, torch.full_like(texture, 0.7), atol=1e-3)


def test_crisp_views_win_over_fog():
    """Two cameras face a square equally; the one whose splats are scattered in depth hardly counts."""
    vertices = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    normals = torch.tensor([[0.0, 0, 1]]).expand(4, 3)
    cameras = Cameras.orbit([-20.0, 20.0], radius=4.0, fov_y=40.0)
    pictures = torch.zeros(2, 4, 32, 32)
    pictures[0, [0, 3]] = 1  # crisp red
    pictures[1, [2, 3]] = 1  # foggy blue
    depth = torch.full((2, 32, 32), 5.0)
    spread = torch.zeros(2, 32, 32)
    spread[1] = 1.0
    uvs = (vertices[:, :2] * 0.45) + 0.5
    texture = bake_texture(vertices, normals, faces, uvs, pictures, depth, spread, cameras, 16, tolerance=0.1)
    assert float(texture[..., 0].min()) > 0.9 and float(texture[..., 2].max()) < 0.1


def test_texels_have_the_last_face_that_covers_them():
    corners = torch.rand(60, 3, 2, generator=torch.Generator().manual_seed(5)) * 40 - 4
    corners[7] = corners[7, :1]  # a point
    texel, face, weights = covered_texels(corners, 32)
    assert bool((texel[1:] > texel[:-1]).all())
    all_faces, pixel, plain = covered_pixels(corners, 32, 32)
    last = {}
    for i, (f, p) in enumerate(zip(all_faces.tolist(), pixel.tolist(), strict=True)):
        last[p] = (f, i)
    assert texel.tolist() == sorted(last)
    assert face.tolist() == [last[p][0] for p in texel.tolist()]
    assert torch.allclose(weights, plain[[last[p][1] for p in texel.tolist()]], atol=1e-5)
    assert all(len(t) == 0 for t in covered_texels(corners[:0], 32))


def test_nearest_filled_texel():
    """Against all distances, on a sparse picture with empty columns and rows."""
    generator = torch.Generator().manual_seed(2)
    size = 40
    texel = torch.randperm(size * size, generator=generator)[:30]
    found = nearest_filled(texel, size)
    place = torch.stack([torch.arange(size * size) // size, torch.arange(size * size) % size], dim=1).float()
    best = torch.cdist(place, place[texel]).amin(dim=1)
    assert torch.isin(found, texel).all()
    assert torch.allclose((place - place[found]).norm(dim=1), best, atol=1e-4)
    assert (nearest_filled(torch.tensor([5]), 8) == 5).all()


def _scene(views: int = 6):
    """A ball with pictures, half of it in fog, a wall before one camera, half-transparent rims."""
    generator = torch.Generator().manual_seed(0)
    cameras = Cameras.orbit([360.0 / views * i for i in range(views)], elevation=20, radius=4.0, fov_y=40.0)
    normals = torch.nn.functional.normalize(torch.randn(4000, 3, generator=generator), dim=-1)
    pictures = torch.rand(views, 4, 48, 40, generator=generator)
    pictures[:, :3] *= pictures[:, 3:]
    depth = 3.2 + 0.4 * torch.rand(views, 32, 32, generator=generator)
    depth[0] = 1.0
    spread = torch.rand(views, 32, 32, generator=generator) * 0.3
    return 0.8 * normals, normals, pictures, torch.stack([depth, spread], dim=1), cameras, 0.1


def test_compiled_blend_equals_the_plain_one():
    colour, seen = blend_views_cpu(*_scene())
    plain, plain_seen = blend_views(*_scene())
    assert 0.2 < float(seen.float().mean()) < 0.98
    assert float((seen != plain_seen).float().mean()) < 1e-3
    error = (colour - plain).abs().amax(dim=1)[seen & plain_seen]
    assert float(error.mean()) < 1e-4 and float((error > 1e-2).float().mean()) < 2e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bake_on_the_gpu_equals_the_cpu(ball):
    vertices, faces = ball
    source, faces, uvs = unwrap(vertices, faces, 256)
    mesh = Mesh(vertices[source], faces, uvs=uvs).with_normals()
    _, _, pictures, maps, cameras, tolerance = _scene()
    shape = (mesh.vertices, mesh.normals, mesh.faces, mesh.uvs)
    here = bake_texture(*shape, pictures, maps[:, 0], maps[:, 1], cameras, 256, tolerance)
    there = bake_texture(*shape, pictures.cuda(), maps[:, 0].cuda(), maps[:, 1].cuda(), cameras, 256, tolerance)
    assert there.device.type == "cuda"
    error = (there.cpu() - here).abs().amax(dim=-1)
    assert float(error.mean()) < 2e-3 and float((error > 0.02).float().mean()) < 0.01
