"""The Mesh type: validation, normals, motion."""

from __future__ import annotations

import math

import pytest
import torch

from bozzetto.errors import MeshError
from bozzetto.mesh import Mesh


def cube() -> Mesh:
    """A cube of side 2 with outward triangles."""
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return Mesh(corners, torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]))


def volume(mesh: Mesh) -> float:
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c, dim=-1)).sum() / 6)


def similarity_like() -> torch.Tensor:
    """Rotation by 90 degrees about z, then a stretch along x and a move."""
    return torch.tensor([[0.0, -3, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vertices": torch.zeros(8, 2)}, "vertices"),
        ({"faces": torch.zeros(2, 4, dtype=torch.long)}, "faces"),
        ({"faces": torch.tensor([[0, 1, 8]])}, r"outside 0\.\.7"),
        ({"faces": torch.tensor([[0, 1, -1]])}, "outside"),
        ({"normals": torch.zeros(7, 3)}, "normals"),
        ({"uvs": torch.zeros(8, 3)}, "uvs"),
        ({"colors": torch.zeros(8, 4)}, "colors"),
        ({"texture": torch.zeros(4, 4, 3)}, "needs uvs"),
        ({"uvs": torch.zeros(8, 2), "texture": torch.zeros(4, 4)}, "texture must be"),
        ({"uvs": torch.zeros(8, 2), "texture": torch.zeros(4, 4, 4)}, "texture must be"),
    ],
)
def test_bad_meshes_are_refused(change, match):
    with pytest.raises(MeshError, match=match):
        Mesh(**{"vertices": cube().vertices, "faces": cube().faces, **change})


def test_empty_mesh_is_allowed():
    mesh = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    assert "0 faces" in repr(mesh) and len(mesh.with_normals().normals) == 0


def test_normals_are_area_weighted_and_point_out():
    mesh = cube().with_normals()
    assert volume(mesh) == pytest.approx(8)
    assert bool(((mesh.normals * mesh.vertices).sum(-1) > 1).all())
    torch.testing.assert_close(mesh.normals.norm(dim=-1), torch.ones(8))
    # Two triangles at a right angle that share an edge; the one of thrice the area pulls the normal thrice as far.
    roof = Mesh(
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, -3], [0, -1, 0]]),
        torch.tensor([[0, 1, 2], [0, 3, 1]]),
    ).with_normals()
    torch.testing.assert_close(roof.normals[0], torch.tensor([0.0, 3, 1]) / math.sqrt(10))
    torch.testing.assert_close(roof.normals[2], torch.tensor([0.0, 1, 0]))


def test_normals_are_shared_across_seams():
    whole = cube().with_normals()
    split = Mesh(whole.vertices[whole.faces].reshape(-1, 3), torch.arange(36).reshape(12, 3)).with_normals()
    torch.testing.assert_close(split.normals, whole.normals[whole.faces].reshape(-1, 3))


def test_normals_of_lonely_and_flat_vertices_are_unit():
    mesh = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 9, 9]]), torch.tensor([[0, 1, 2]])).with_normals()
    torch.testing.assert_close(mesh.normals.norm(dim=-1), torch.ones(4))
    tiny = Mesh(cube().vertices * 1e-5, cube().faces).with_normals()
    torch.testing.assert_close(tiny.normals, cube().with_normals().normals)


def test_transformed_moves_vertices_and_normals():
    mesh = cube().with_normals()
    matrix = similarity_like()
    moved = mesh.transformed(matrix)
    expected = (matrix @ torch.cat([mesh.vertices, torch.ones(8, 1)], -1).T).T[:, :3]
    torch.testing.assert_close(moved.vertices, expected)
    assert volume(moved) == pytest.approx(24, rel=1e-5)
    torch.testing.assert_close(moved.normals.norm(dim=-1), torch.ones(8))
    # A normal stays perpendicular to what it was perpendicular to.
    tangent = torch.linalg.cross(mesh.normals, torch.tensor([[0.3, 1.0, 0.2]]).expand(8, 3), dim=-1)
    assert float(((tangent @ matrix[:3, :3].T) * moved.normals).sum(-1).abs().max()) < 1e-5
    assert bool(((moved.normals * (moved.vertices - matrix[:3, 3])).sum(-1) > 0).all())


@pytest.mark.parametrize("diagonal", [[1.0, 1, -1, 1], [1.0, 0, 1, 1], [1.0, math.nan, 1, 1]])
def test_transformed_refuses_mirrors(diagonal):
    with pytest.raises(ValueError, match="mirror"):
        cube().transformed(torch.diag(torch.tensor(diagonal)))
