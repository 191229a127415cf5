"""Components, smoothing, decimation, manifold repair."""

import pytest
import torch

from bozzetto.errors import MeshError
from bozzetto.surface.clean import (
    broad_normals,
    compact,
    face_components,
    keep_large_components,
    signed_volumes,
    taubin_smooth,
    unique_edges,
)
from bozzetto.surface.marching import marching_cubes
from bozzetto.surface.simplify import decimate, make_manifold


def ball(radius: float, centre=(0.0, 0.0, 0.0), n: int = 40, noise: float = 0.0):
    """Marching-cubes sphere."""
    axis = torch.linspace(-1, 1, n)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    volume = (grid - torch.tensor(centre)).norm(dim=-1) - radius
    volume = volume + noise * torch.randn(volume.shape, generator=torch.Generator().manual_seed(0))
    return marching_cubes(volume, torch.full((3,), -1.0), 2 / (n - 1))


def merge(*meshes):
    vertices = torch.cat([v for v, _ in meshes])
    offsets = [sum(len(v) for v, _ in meshes[:i]) for i in range(len(meshes))]
    return vertices, torch.cat([f + o for (_, f), o in zip(meshes, offsets, strict=True)])


def cube(low=(0.0, 0.0, 0.0)):
    v = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    f = torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    return v + torch.tensor(low), f


def test_components_cavities_and_crumbs():
    body, crumb, second = ball(0.6), ball(0.05), ball(0.25)
    crumb = (crumb[0] + 2, crumb[1])
    second = (second[0] + 4, second[1])
    cavity = ball(0.3)
    cavity = (cavity[0], cavity[1].flip(1))  # winding of a hole
    vertices, faces = merge(body, crumb, cavity, second)
    assert face_components(faces, len(vertices)).max() == 3
    v, f = keep_large_components(vertices, faces)
    assert len(f) == len(body[1]) + len(second[1])
    assert len(v) == len(body[0]) + len(second[0])
    assert face_components(f, len(v)).max() == 1
    with pytest.raises(MeshError, match="encloses no volume"):
        keep_large_components(*cavity)


def test_smoothing_removes_noise_and_keeps_volume():
    vertices, faces = ball(0.6, noise=0.01)
    vertices, faces = keep_large_components(vertices, faces)
    smooth = taubin_smooth(vertices, faces)
    assert float(smooth.norm(dim=1).std()) < 0.7 * float(vertices.norm(dim=1).std())
    assert float(signed_volumes(smooth, faces).sum()) == pytest.approx(
        float(signed_volumes(vertices, faces).sum()), rel=0.01
    )


def test_decimation_budget():
    vertices, faces = ball(0.6)
    for budget in (2000, 200):
        v, f = decimate(vertices * 1e-4, faces, budget)
        v, f = make_manifold(v, f)
        assert 0.8 * budget < len(f) <= budget
        assert (unique_edges(f)[1] == 2).all()
        volume = float(signed_volumes(v.double(), f).sum()) / 1e-12
        assert volume == pytest.approx(4 / 3 * torch.pi * 0.6**3, rel=0.06)
    assert decimate(vertices, faces, len(faces))[1] is faces


def test_make_manifold_cuts_cubes_that_share_an_edge():
    vertices, faces = merge(cube(), cube((1.0, 1.0, 0.0)))
    unique, index = torch.unique(vertices, dim=0, return_inverse=True)
    welded = index[faces]
    assert (unique_edges(welded)[1] == 4).sum() == 1
    v, f = make_manifold(unique, welded)
    assert len(f) == 24 and len(v) == 16
    assert (unique_edges(f)[1] == 2).all()
    assert len(torch.unique(v, dim=0)) == 16  # merging equal positions does not weld them again
    assert float((v[f] - unique[welded]).abs().max()) < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_make_manifold_closes_whatever_decimation_makes_of_noise(seed):
    """Sheets that share edges at both ends, doubled faces: every edge belongs to two faces that run along it both ways."""
    volume = torch.ones(20, 20, 20)
    volume[1:-1, 1:-1, 1:-1] = torch.rand(18, 18, 18, generator=torch.Generator().manual_seed(seed)) - 0.5
    vertices, faces = keep_large_components(*marching_cubes(volume, torch.zeros(3), 1.0))
    vertices, faces = decimate(taubin_smooth(vertices, faces), faces, 1500)
    assert (unique_edges(faces)[1] > 2).sum() > 50
    v, f = make_manifold(vertices, faces)
    assert 1000 < len(f) <= 1500
    edges = f[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forth, back = (edges @ torch.tensor(pair) for pair in ((len(v), 1), (1, len(v))))
    assert len(forth.unique()) == len(forth) and torch.equal(forth.sort().values, back.sort().values)


def test_make_manifold_keeps_one_of_three():
    """A face and a flap at the same place: one is left, with the side outside that two of the three show."""
    v, f = cube()
    v2, f2 = make_manifold(v, torch.cat([f, f[:1], f[:1].flip(1)]))
    assert len(f2) == 12 and torch.equal(v2[f2].sort(dim=0).values, v[f].sort(dim=0).values)
    assert float(signed_volumes(v2, f2).sum()) == pytest.approx(1)


def test_make_manifold_drops_flaps_and_collapsed_faces():
    v, f = cube()
    flap = torch.tensor([[0, 1, 8], [1, 0, 8], [0, 0, 1]])
    v2, f2 = make_manifold(torch.cat([v, torch.tensor([[0.0, 0.0, 5.0]])]), torch.cat([f, flap]))
    assert len(f2) == 12 and len(compact(v2, f2)[0]) == 8
    assert torch.equal(v2[f2].sort(dim=0).values, v[f].sort(dim=0).values)
    with pytest.raises(MeshError, match="no faces are left"):
        make_manifold(v, flap[2:])


def test_broad_normals_lose_bumps_and_keep_thin_parts():
    vertices, faces = ball(0.7)
    true = torch.nn.functional.normalize(vertices, dim=-1)
    noise = torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0))
    rough = torch.nn.functional.normalize(true + 0.4 * noise, dim=-1)
    broad = broad_normals(rough, faces)
    assert torch.allclose(broad.norm(dim=-1), torch.ones(len(broad)), atol=1e-5)
    before, after = ((n * true).sum(dim=-1).clamp(-1, 1).acos().mean() for n in (rough, broad))
    assert float(after) < 0.5 * float(before)
    # All around a thin bar neighbours' normals cancel: the own ones decide.
    ring = torch.arange(200) % 4  # 50 rings of 4 vertices
    sides = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])[ring]
    quads = [
        [4 * i + k, 4 * i + (k + 1) % 4, 4 * i + 4 + (k + 1) % 4, 4 * i + 4 + k] for i in range(49) for k in range(4)
    ]
    bar = torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    assert float((broad_normals(sides, bar) * sides).sum(dim=-1).min()) > 0.9
