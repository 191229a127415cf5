"""Visible faces, outlines that pull vertices, mip levels."""

import math

import pytest
import torch
import trimesh

from bozzetto.camera import Cameras
from bozzetto.data.render.api import camera_table
from bozzetto.data.render.visibility import visible_faces
from bozzetto.surface.nerf.edges import Topology, antialias, barycentric, centres, project
from bozzetto.surface.nerf.field import NerfField
from bozzetto.surface.nerf.refine import draw, normal_consistency, relax, tidy
from bozzetto.surface.nerf.settings import NerfSettings
from bozzetto.surface.nerf.texture import mip_levels, sample_mipmaps


def ball(radius: float = 0.4, subdivisions: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    made = trimesh.creation.icosphere(subdivisions, radius=radius)
    return torch.tensor(made.vertices).float(), torch.tensor(made.faces)


def alpha_picture(vertices: torch.Tensor, topology: Topology, camera: Cameras, size: int) -> torch.Tensor:
    row = camera_table(camera, 1, (size, size), vertices.device)[0, 0]
    face = visible_faces(vertices.detach(), topology.faces, camera, size)[0]
    screen, inverse = project(vertices, row)
    return antialias((face >= 0).float()[..., None], face, screen, inverse, topology)[..., 0]


def disc_area(radius: float, camera: Cameras, size: int) -> float:
    """Pixels that a sphere at the centre covers, seen from distance 1.5 along the axis."""
    focal = float(camera.intrinsics[0, 1]) * size
    return math.pi * (focal * radius / math.sqrt(1.5**2 - radius**2)) ** 2


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_visible_faces(backend):
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    vertices, faces = (t.to(device) for t in ball(subdivisions=1))
    cameras = Cameras.orbit([0.0, 130.0], [10.0, -30.0])
    face = visible_faces(vertices, faces, cameras, (20, 24), backend=backend).cpu()
    assert face.shape == (2, 20, 24) and face.dtype == torch.int64
    origins, directions = (x.to(torch.float64) for x in cameras.rays((20, 24)))
    corners = vertices.cpu().double()[faces.cpu()]
    for v, r, c in [(0, 10, 12), (0, 7, 9), (1, 12, 14), (1, 0, 0), (0, 19, 23)]:
        o, d = origins[v, r, c], directions[v, r, c]
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        t = ((corners[:, 0] - o) * normal).sum(-1) / (normal @ d)
        p = o + d * t[:, None]
        inside = torch.ones(len(corners), dtype=torch.bool)
        for k in range(3):
            edge = corners[:, (k + 1) % 3] - corners[:, k]
            inside &= (torch.linalg.cross(edge, p - corners[:, k]) * normal).sum(-1) >= 0
        hit = torch.where(inside, t, torch.inf)
        assert int(face[v, r, c]) == (int(hit.argmin()) if bool(inside.any()) else -1)
    none = visible_faces(vertices, faces[:0], cameras, 8, backend=backend)
    assert bool((none == -1).all())


def test_weights_find_the_point_again():
    vertices, faces = ball()
    camera = Cameras.orbit([25.0], [15.0])
    row = camera_table(camera, 1, (64, 64), torch.device("cpu"))[0, 0]
    face = visible_faces(vertices, faces, camera, 64)[0].reshape(-1)
    pixel = (face >= 0).nonzero()[:, 0]
    screen, inverse = project(vertices, row)
    corner = faces[face[pixel]]
    weights, near = barycentric(screen[corner], inverse[corner], centres(pixel, 64))
    points = (vertices[corner] * weights[..., None]).sum(dim=1)
    back, again = project(points, row)
    assert torch.allclose(back, centres(pixel, 64), atol=1e-3) and torch.allclose(near, again, atol=1e-4)


def test_topology_of_a_closed_mesh():
    _, faces = ball(subdivisions=1)
    topology = Topology.of(faces)
    assert bool((topology.neighbour >= 0).all()) and len(topology.pairs) == len(faces) * 3 // 2
    for f in range(len(faces)):
        for k in range(3):
            edge = {int(faces[f, k]), int(faces[f, (k + 1) % 3])}
            assert edge <= set(faces[topology.neighbour[f, k]].tolist())
    assert bool((Topology.of(faces[:1]).neighbour == -1).all())


def test_outlines_cover_the_right_area_and_their_gradient_is_its_derivative():
    vertices, faces = ball(0.4)
    topology = Topology.of(faces)
    camera = Cameras.orbit([40.0], [20.0])
    scale = torch.tensor(1.0, requires_grad=True)
    alpha = alpha_picture(vertices * scale, topology, camera, 96)
    area = disc_area(0.4, camera, 96)
    assert float((alpha * (1 - alpha)).max()) > 0 and float(alpha.max()) <= 1 and float(alpha.min()) >= 0
    assert float(alpha.sum()) == pytest.approx(area, rel=0.01)
    alpha.sum().backward()
    derivative = (disc_area(0.401, camera, 96) - disc_area(0.399, camera, 96)) / 0.005
    assert float(scale.grad) == pytest.approx(derivative, rel=0.15)


def test_outlines_move_a_sphere_to_its_target():
    vertices, faces = ball(0.4)
    topology = Topology.of(faces)
    target_vertices, target_faces = ball(0.5)
    target = Topology.of(target_faces)
    shift = torch.tensor([0.06, -0.04, 0.05])
    cameras = Cameras.orbit([0.0, 70.0, 150.0, 250.0], [0.0, 30.0, -20.0, 10.0])
    wanted = [alpha_picture(target_vertices + shift, target, cameras[k : k + 1], 48) for k in range(4)]
    scale, offset = torch.ones((), requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([scale, offset], lr=0.02)
    for i in range(80):
        k = i % 4
        made = alpha_picture(vertices * scale + offset, topology, cameras[k : k + 1], 48)
        optimizer.zero_grad()
        (made - wanted[k]).square().mean().backward()
        optimizer.step()
        if i == 50:
            optimizer.param_groups[0]["lr"] = 0.004
    assert float(scale) * 0.4 == pytest.approx(0.5, abs=0.008)
    assert torch.allclose(offset, shift, atol=0.008)


def test_colours_get_gradients_and_inner_edges_do_not_blend():
    vertices, faces = ball()
    topology = Topology.of(faces)
    camera = Cameras.orbit([10.0])
    row = camera_table(camera, 1, (32, 32), torch.device("cpu"))[0, 0]
    face = visible_faces(vertices, faces, camera, 32)[0]
    screen, inverse = project(vertices, row)
    picture = torch.rand(32, 32, 3, requires_grad=True)
    made = antialias(picture, face, screen, inverse, topology)
    middle = (slice(12, 20), slice(12, 20))
    assert torch.equal(made[middle], picture[middle])
    assert not torch.equal(made, picture)
    made.sum().backward()
    assert float(picture.grad.sum()) == pytest.approx(32 * 32 * 3, rel=1e-4)  # blending moves light, it makes none
    background = torch.full((8, 8), -1)
    assert not bool(antialias(torch.zeros(8, 8, 4), background, screen, inverse, topology).any())


def bumpy_ball() -> tuple[torch.Tensor, torch.Tensor]:
    """A ball with dents and an open patch: outlines inside the picture, borders."""
    vertices, faces = ball(0.45, 2)
    generator = torch.Generator().manual_seed(3)
    vertices = vertices * (1 + 0.25 * torch.sin(9 * vertices).prod(dim=1, keepdim=True))
    vertices = vertices + 0.004 * torch.randn(vertices.shape, generator=generator)
    return vertices, faces[12:]


@pytest.mark.parametrize("angles", [(20.0, 10.0), (200.0, -70.0)])
def test_kernels_draw_what_the_plain_form_draws(angles):
    pytest.importorskip("triton")
    from bozzetto.surface.nerf.draw_triton import Canvas

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 48
    vertices, faces = (t.to(device) for t in bumpy_ball())
    field = NerfField(NerfSettings(levels=4, table=1 << 12, finest=64), torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        field.colour_grid.table.mul_(1e4)
    topology = Topology.of(faces)
    camera = Cameras.orbit([angles[0]], [angles[1]]).to(device)
    row = camera_table(camera, 1, (size, size), vertices.device)[0, 0]
    weight = torch.randn(size, size, 4, generator=torch.Generator().manual_seed(1)).to(device)
    found = []
    for form in ("plain", "kernels"):
        leaf = vertices.clone().requires_grad_()
        if form == "plain":
            face = visible_faces(vertices, faces, camera, size)[0]
            picture = draw(leaf, topology, field, row, face)
        else:
            picture = Canvas(topology, size).draw(leaf, field, row)
        field.zero_grad()
        (picture * weight).sum().backward()
        found.append((picture.detach(), leaf.grad, field.colour_grid.table.grad.clone()))
    (picture, moved, table), (made, made_moved, made_table) = found
    alpha = picture[..., 3]
    assert int(((alpha > 0) & (alpha < 1)).sum()) > 30  # outlines there are
    # A crossing on the very centre of a pixel may be rounded to either side.
    assert float(((made - picture).abs() > 1e-3).float().mean()) < 2e-3
    assert float((made - picture).abs().mean()) < 1e-4
    for own, other in ((moved, made_moved), (table, made_table)):
        assert float(own.abs().max()) > 0 and float((own - other).norm() / own.norm()) < 0.02


def test_normal_consistency_and_tidy():
    vertices, faces = ball()
    topology = Topology.of(faces)
    rough = vertices + torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0)) * 0.02
    assert float(normal_consistency(vertices, topology)) < 0.02 < float(normal_consistency(rough, topology))
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    assert float(normal_consistency(flat, Topology.of(torch.tensor([[0, 1, 2], [1, 3, 2]])))) == pytest.approx(0)
    relaxed = relax(rough, faces)

    def shortest(v: torch.Tensor) -> torch.Tensor:
        return (v[faces] - v[faces].roll(-1, dims=1)).norm(dim=-1).quantile(0.01)

    assert float(shortest(relaxed)) > 1.1 * float(shortest(rough))
    assert float((relaxed.norm(dim=1) - rough.norm(dim=1)).abs().mean()) < 0.01
    v, f = tidy(torch.cat([vertices, vertices * 0.02 + 2]), torch.cat([faces, faces + len(vertices)]))
    assert len(f) == len(faces) and float(v.abs().max()) < 1


def test_mip_levels():
    texture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    levels = mip_levels(texture)
    assert [x.shape[-1] for x in levels] == [32, 16, 8, 4, 2]
    uvs = (torch.tensor([[3, 5], [20, 9]]) + 0.5) / 32
    assert torch.allclose(sample_mipmaps(levels, uvs, torch.zeros(2)), texture[:, [5, 9], [3, 20]].T, atol=1e-5)
    coarse = sample_mipmaps(levels, (torch.tensor([[1, 2]]) + 0.5) / 8, torch.tensor([2.0]))
    assert torch.allclose(coarse, levels[2][:, 2, 1][None], atol=1e-5)
    between = sample_mipmaps([torch.zeros(3, 4, 4), torch.ones(3, 2, 2)], torch.full((1, 2), 0.5), torch.tensor([0.25]))
    assert torch.allclose(between, torch.full((1, 3), 0.25))
