"""Marching cubes: the table, closed forms, slabs, bad samples, and back ends that agree to the last bit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from bozzetto.errors import MeshError
from bozzetto.surface.clean import face_components, signed_volumes
from bozzetto.surface.marching_cubes import grid_surface, marching_cubes
from bozzetto.surface.marching_cubes.table import edge_table, triangle_table
from bozzetto.surface.marching_cubes.words import Words, packed_triangles

COMPILED = ["cpu", pytest.param("triton", marks=pytest.mark.gpu)] if torch.cuda.is_available() else ["cpu"]


def grid(*shape: int) -> torch.Tensor:
    """Positions [X, Y, Z, 3] in -1..1 along the longest side."""
    axes = [torch.linspace(-1, 1, n) * (n - 1) / (max(shape) - 1) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.5


def damaged(*shape: int) -> torch.Tensor:
    """Noise with NaN, infinity of both signs, and samples that equal the level."""
    field = noise(*shape)
    for i, value in enumerate((torch.nan, torch.inf, -torch.inf, 0.125)):
        field[noise(*shape, seed=i + 1) < -0.4] = value
    return field


def is_manifold(vertices: torch.Tensor, faces: torch.Tensor) -> bool:
    """Each edge belongs to exactly two faces, which run along it in opposite directions; each vertex is used."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forth, back = (edges @ torch.tensor(pair) for pair in ((len(vertices), 1), (1, len(vertices))))
    unique = len(forth.unique()) == len(forth)
    return unique and torch.equal(forth.sort().values, back.sort().values) and len(faces.unique()) == len(vertices)


def euler_number(vertices: torch.Tensor, faces: torch.Tensor) -> int:
    return len(vertices) - len(faces) * 3 // 2 + len(faces)


def assert_equal(got, wanted) -> None:
    for name in ("vertices", "faces", "axes"):
        assert torch.equal(getattr(got, name).cpu(), getattr(wanted, name)), name
    assert got.nans == wanted.nans
    assert np.array_equal([got.least, got.most], [wanted.least, wanted.most], equal_nan=True)


@pytest.mark.parametrize("joined", [False, True])
def test_table_separates_inside_from_outside(joined):
    """Along each loop of segments that a case draws on the cube, inside corners lie on the left seen from outside."""
    table = triangle_table(joined)
    assert len(table) == 256 and table[0] == table[255] == () and len(table[1]) == 1
    middles = [np.array(start) + 0.5 * np.eye(3)[axis] for axis, start in edge_table()]
    for case, triangles in enumerate(table):
        inside = [case >> c & 1 for c in range(8)]
        crossed = {
            e
            for e, (axis, (x, y, z)) in enumerate(edge_table())
            if inside[x + 2 * y + 4 * z] != inside[x + 2 * y + 4 * z + (1 << axis)]
        }
        assert {e for t in triangles for e in t} == crossed
        for a, b, c in triangles:  # a lone inside corner lies behind its triangle
            if len(triangles) == 1 and sum(inside) == 1:
                corner = np.array([inside.index(1) >> i & 1 for i in range(3)])
                normal = np.cross(middles[b] - middles[a], middles[c] - middles[a])
                assert normal @ (corner - middles[a]) < 0
    assert packed_triangles(joined)[:, 15].max() == 5


@pytest.mark.parametrize("joined", [False, True])
def test_every_case_closes_up(joined):
    """A grid of random signs holds every case; its surface has no hole and no edge with four triangles."""
    field = noise(24, 25, 40)
    inside = (field > 0).long()
    corners = itertools.product((0, 1), repeat=3)
    code = sum(inside[i : 23 + i, j : 24 + j, k : 39 + k] << (i + 2 * j + 4 * k) for i, j, k in corners)
    assert len(code.unique()) == 256
    vertices, faces = marching_cubes(field, closed=True, joined=joined)
    assert is_manifold(vertices, faces)
    open_vertices, open_faces = marching_cubes(field, joined=joined)
    edges = open_faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges, times = edges.sort(dim=1).values.unique(dim=0, return_counts=True)
    assert times.max() == 2
    ends = open_vertices[edges[times == 1]]  # single edges lie on the border
    assert ((ends == 0) | (ends == torch.tensor(field.shape) - 1)).all(dim=1).any(dim=1).all()


def test_diagonals_are_joined_or_kept_apart():
    field = torch.full((4, 4, 4), -1.0)
    field[1, 1, 1] = field[1, 2, 2] = 1.0
    for joined, pieces in ((True, 1), (False, 2)):
        vertices, faces = marching_cubes(field, joined=joined)
        assert is_manifold(vertices, faces) and int(face_components(faces, len(vertices)).max()) + 1 == pieces


def test_sphere():
    n = 50
    distance = 0.7 - grid(n, n, n).norm(dim=-1)
    vertices, faces = marching_cubes(distance)
    assert vertices.dtype == torch.float32 and faces.dtype == torch.int64
    points = vertices / (n - 1) * 2 - 1
    assert (points.norm(dim=1) - 0.7).abs().max() < 1e-3
    assert is_manifold(vertices, faces) and euler_number(vertices, faces) == 2
    a, b, c = points[faces].unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    assert ((normals * (a + b + c)).sum(-1) > 0).all()  # outwards
    assert float(signed_volumes(points, faces).sum()) == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=3e-3)


def test_torus_in_a_box():
    p = grid(40, 61, 80)
    distance = 0.12 - torch.hypot(torch.hypot(p[..., 1], p[..., 2]) - 0.5, p[..., 0])
    vertices, faces = marching_cubes(distance, level=0.02)
    assert is_manifold(vertices, faces) and euler_number(vertices, faces) == 0
    points = (vertices - (torch.tensor(p.shape[:3]) - 1) / 2) / 79 * 2
    error = torch.hypot(torch.hypot(points[:, 1], points[:, 2]) - 0.5, points[:, 0]) - 0.1
    assert error.abs().max() < 2e-3


def test_positions_are_linear_and_in_grid_steps():
    field = torch.full((3, 4, 5), -3.0)
    field[1, 2, 3] = 1.0
    vertices, faces = marching_cubes(field, level=0.0)
    offsets = sorted((vertices - torch.tensor([1.0, 2.0, 3.0])).tolist())
    # 3 and not 4 in z: the sample at z = 4 is the last, and the border is open beyond it.
    assert offsets == [[-0.25, 0, 0], [0, -0.25, 0], [0, 0, -0.25], [0, 0, 0.25], [0, 0.25, 0], [0.25, 0, 0]]
    assert len(faces) == 8


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("shape", [(7, 9, 40), (13, 4, 31), (2, 2, 65), (5, 33, 64)])
def test_slabs_do_not_change_a_bit(shape, closed):
    field = damaged(*shape)
    wanted = grid_surface(field, 0.125, closed=closed, backend="reference")
    assert len(wanted.faces) > 0
    for backend in ("reference", "cpu"):
        for slab in (1, 2, 5, None):
            assert_equal(grid_surface(field, 0.125, slab=slab, closed=closed, backend=backend), wanted)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("joined", [False, True])
def test_back_ends_agree_to_the_last_bit(backend, joined):
    device = "cuda" if backend == "triton" else "cpu"
    for shape, closed in (((33, 17, 129), False), ((33, 17, 129), True), ((1, 1, 1), True), ((6, 1, 64), True)):
        for field in (damaged(*shape), noise(*shape), (4 * noise(*shape)).round(), torch.full(shape, 0.5)):
            wanted = grid_surface(field, 0.125, closed=closed, joined=joined, backend="reference")
            for slab in (None, 4):
                got = grid_surface(field.to(device), 0.125, slab=slab, closed=closed, joined=joined, backend=backend)
                assert got.vertices.device.type == device
                assert_equal(got, wanted)


def test_triton_kernels_in_the_interpreter():
    """On a GPU the test above runs them; here Triton's interpreter does, slowly."""
    triton = pytest.importorskip("bozzetto.surface.marching_cubes.triton")
    if not triton.INTERPRETED:
        pytest.skip("compiled")
    field = damaged(3, 2, 33)
    wanted = grid_surface(field, 0.125, closed=True, backend="reference")
    assert_equal(grid_surface(field, 0.125, slab=2, closed=True, backend="triton"), wanted)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_samples(backend, dtype):
    field = noise(9, 10, 40).to("cuda" if backend == "triton" else "cpu", dtype)
    assert_equal(grid_surface(field, backend=backend), grid_surface(field.float().cpu(), backend="reference"))


@pytest.mark.parametrize("backend", COMPILED)
def test_samples_need_not_be_contiguous(backend):
    field = noise(12, 11, 40).permute(2, 0, 1)[::2]
    given = field.cuda() if backend == "triton" else field
    assert_equal(grid_surface(given, slab=3, backend=backend), grid_surface(field.contiguous(), backend="reference"))


def test_function_of_samples_may_reuse_its_memory():
    field, asked = noise(11, 8, 9), []
    buffer = torch.empty(3, 8, 9)

    def samples(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return buffer[: stop - start].copy_(field[start:stop])

    seen = []
    got = marching_cubes(samples, shape=(11, 8, 9), slab=3, progress=seen.append)
    assert asked == [(0, 3), (3, 6), (6, 9), (9, 11)] and seen == sorted(seen) and seen[-1] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(got, marching_cubes(field), strict=True))


def test_nan_is_outside_and_reported():
    field = noise(8, 8, 8)
    field[2, 3, 4] = field[5, 5, 5] = torch.nan
    with pytest.warns(RuntimeWarning, match="2 samples are NaN"):
        vertices, faces = marching_cubes(field, closed=True)
    assert torch.isfinite(vertices).all() and is_manifold(vertices, faces)
    field[:] = torch.nan
    field[3, 3, 3] = 2.0
    vertices = grid_surface(field).vertices - 3
    assert len(vertices) == 6 and torch.equal(vertices.norm(dim=1), torch.full((6,), 0.5))  # midway


def test_infinity_keeps_its_sign():
    field = torch.full((4, 4, 4), -torch.inf)
    field[1:3, 1:3, 1:3] = torch.inf
    vertices, faces = marching_cubes(field)
    assert torch.isfinite(vertices).all() and is_manifold(vertices, faces) and euler_number(vertices, faces) == 2
    assert torch.equal(vertices.amin(0), torch.full((3,), 0.5)) and torch.equal(vertices.amax(0), torch.full((3,), 2.5))


def test_lids():
    """Everything inside: a box around the samples, whose lids lie on the first and the last ones."""
    vertices, faces = marching_cubes(torch.ones(3, 4, 5), closed=True)
    assert is_manifold(vertices, faces) and euler_number(vertices, faces) == 2
    assert torch.equal(vertices.amin(0), torch.zeros(3)) and torch.equal(vertices.amax(0), torch.tensor([2.0, 3, 4]))
    assert float(signed_volumes(vertices, faces).sum()) == pytest.approx(2 * 3 * 4)


@pytest.mark.parametrize("backend", COMPILED)
def test_no_surface_is_said(backend):
    device = "cuda" if backend == "triton" else "cpu"
    for field, level in ((torch.zeros(4, 5, 6), 0.0), (noise(4, 5, 6), 2.0), (noise(4, 5, 6), -2.0)):
        with pytest.raises(MeshError, match=f"never cross the level {level:g} .*they lie in {float(field.min()):.4g}"):
            marching_cubes(field.to(device), level, backend=backend)
    surface = grid_surface(torch.full((3, 3, 3), torch.nan, device=device), backend=backend)
    assert surface.nans == 27 and len(surface.faces) == len(surface.vertices) == 0


def test_arguments_are_checked():
    good = torch.zeros(4, 4, 4)
    with pytest.raises(MeshError, match="at least two samples"):
        marching_cubes(torch.zeros(1, 4, 4))
    with pytest.raises(MeshError, match="at least two samples"):
        marching_cubes(torch.zeros(4, 4))
    with pytest.raises(MeshError, match="shape"):
        marching_cubes(lambda start, stop: good[start:stop])
    with pytest.raises(MeshError, match=r"samples\(0, 2\) must give planes \(2, 4, 4\), got \(4, 4, 4\)"):
        marching_cubes(lambda start, stop: good, shape=(4, 4, 4), slab=2)
    with pytest.raises(MeshError, match="slab"):
        marching_cubes(good, slab=0)
    with pytest.raises(MeshError, match="finite"):
        marching_cubes(good, float("nan"))
    with pytest.raises(MeshError, match="known: auto, reference, cpu, triton"):
        marching_cubes(good, backend="cuda")


@pytest.mark.parametrize("backend", ["reference", *COMPILED])
def test_numbers_beyond_32_bits(backend):
    """As if planes with 2^40 vertices lay before the slab: numbers are 64-bit and count on from there."""
    from bozzetto.surface.marching_cubes import api

    field = noise(6, 5, 40)
    device = torch.device("cuda" if backend == "triton" else "cpu")
    wanted = grid_surface(field, closed=True, backend="reference")
    slabs = api.BACKENDS[backend]()((6, 5, 40), 0.0, True, True, device)
    slabs.vertices = 1 << 40
    pieces = [piece for part in field.to(device).split(2) for piece in slabs.add(part)]
    faces = torch.cat([faces for _, _, faces in pieces]).cpu()
    assert faces.dtype == torch.int64 and torch.equal(faces - (1 << 40), wanted.faces)
    assert torch.equal(torch.cat([vertices for vertices, _, _ in pieces]).cpu(), wanted.vertices)


def test_sizes_of_large_planes_stay_whole_numbers():
    """A plane of 2^34 samples: no size is rounded or wraps."""
    size = Words.of((3, 1 << 17, (1 << 17) + 1), closed=True)
    assert (size.rows, size.words, size.bits) == ((1 << 17) + 2, (1 << 12) + 2, (1 << 17) + 34)
    assert size.row0 == 1 and size.bit0 == 32


@pytest.mark.parametrize("slab", [None, 7])
def test_reference_field_of_shap_e(shared, slab):
    """Vertices of the published marching cubes on a stored field; the same number of faces, the same body."""
    golden = np.load(shared / "parity" / "shap_e" / "marching_cubes.npz")
    field = torch.from_numpy(golden["field"])
    vertices, faces = marching_cubes(field, joined=False, slab=slab)
    placed = vertices.numpy() / (np.array(field.shape) - 1) * golden["size"] + golden["min_point"]
    order, wanted = np.lexsort(placed.round(6).T), np.lexsort(golden["verts"].round(6).T)
    assert np.abs(placed[order] - golden["verts"][wanted]).max() < 2e-6 * np.abs(golden["size"]).max()
    assert len(faces) == len(golden["faces"]) and is_manifold(vertices, faces)


def test_as_scikit_image_finds_it():
    """The vertices of an independent program on a smooth field, and as many faces."""
    measure = pytest.importorskip("skimage.measure")
    p = grid(40, 41, 42)
    field = torch.sin(6 * p[..., 0]) * torch.cos(5 * p[..., 1]) + torch.sin(4 * p[..., 2]) * torch.cos(6 * p[..., 0])
    vertices, faces = marching_cubes(field, 0.1)
    wanted, wanted_faces, _, _ = measure.marching_cubes(-field.numpy(), -0.1, method="lorensen")
    assert len(faces) == len(wanted_faces)
    from scipy.spatial import cKDTree

    assert cKDTree(wanted).query(vertices.numpy())[0].max() < 1e-4
    assert cKDTree(vertices.numpy()).query(wanted)[0].max() < 1e-4
