"""The Gaussians type: validation, subsets, and motion that also turns view-dependent colour."""

from __future__ import annotations

import math

import pytest
import torch

from bozzetto.gaussians import (
    SH_C0,
    Gaussians,
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_to_matrix,
)
from bozzetto.sh import rotate_sh, sh_basis


def some(n: int = 20, degree: int = 3, batch: tuple[int, ...] = (), seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        torch.randn(*batch, n, 3, generator=g),
        torch.rand(*batch, n, 3, generator=g) * 0.1 + 0.01,
        torch.randn(*batch, n, 4, generator=g),
        torch.rand(*batch, n, generator=g),
        torch.randn(*batch, n, (degree + 1) ** 2, 3, generator=g),
    )


def directions(n: int = 50) -> torch.Tensor:
    g = torch.Generator().manual_seed(7)
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=g, dtype=torch.float64), dim=-1)


def rotation(axis: list[float], degrees: float) -> torch.Tensor:
    """Rodrigues' formula, float64."""
    x, y, z = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0).tolist()
    k = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    a = math.radians(degrees)
    return torch.eye(3, dtype=torch.float64) + math.sin(a) * k + (1 - math.cos(a)) * k @ k


def similarity(turn: torch.Tensor, scale: float = 1.0, move: tuple[float, float, float] = (0, 0, 0)) -> torch.Tensor:
    out = torch.eye(4, dtype=torch.float64)
    out[:3, :3] = turn * scale
    out[:3, 3] = torch.tensor(move)
    return out


def covariances(g: Gaussians) -> torch.Tensor:
    axes = quaternion_to_matrix(g.quats.double()) * g.scales.double()[..., None, :]
    return axes @ axes.transpose(-1, -2)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("means", (19, 3)),
        ("scales", (20, 2)),
        ("quats", (20, 3)),
        ("sh", (20, 5, 3)),
        ("sh", (20, 3)),
        ("opacities", (20, 1)),
    ],
)
def test_wrong_shapes_are_refused(name, shape):
    tensors = dict(zip(("means", "scales", "quats", "opacities", "sh"), some().tensors()))
    with pytest.raises(ValueError, match="must be"):
        Gaussians(**{**tensors, name: torch.zeros(shape)})


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_shape_properties(degree):
    g = some(5, degree, (2, 3))
    assert (len(g), g.batch_shape, g.sh_degree) == (5, (2, 3), degree)
    assert f"SH degree {degree}" in repr(g) and "batch (2, 3)" in repr(g)
    assert g[1].batch_shape == (3,) and torch.equal(g[1, 2].sh, g.sh[1, 2])
    assert len(Gaussians.empty(degree)) == 0 and Gaussians.empty(degree).sh_degree == degree
    with pytest.raises(IndexError, match="select"):
        g[0, 0][0]
    with pytest.raises(ValueError, match="unbatched"):
        g.select(torch.tensor([0]))


def test_rgb():
    colours = torch.rand(20, 3)
    g = Gaussians.from_rgb(*some().tensors()[:4], colours)
    torch.testing.assert_close(g.rgb, colours)
    assert abs(SH_C0 - float(sh_basis(torch.tensor([0.0, 0, 1]), 0))) < 1e-7


def test_select_prune_crop():
    g = some()
    picked = g.select(torch.tensor([3, 1]))
    assert torch.equal(picked.means, g.means[[3, 1]]) and torch.equal(picked.sh, g.sh[[3, 1]])
    g.opacities[:4] = torch.tensor([0.0049, 0.0051, 0.0, 1.0])
    g.opacities[4:] = 0.5
    g.scales[5, 1], g.means[6, 0], g.sh[7, 9, 2], g.opacities[8] = math.nan, math.inf, math.nan, math.nan
    kept = g.prune()
    assert len(kept) == 20 - 2 - 4
    assert all(bool(torch.isfinite(t).all()) for t in kept.tensors()) and float(kept.opacities.min()) >= 0.005
    assert len(Gaussians.empty(2).prune()) == 0
    g = some(500)
    inside = g.crop((-1, 0, -0.5), (0.5, 2, 1))
    low, high = torch.tensor([-1, 0, -0.5]), torch.tensor([0.5, 2, 1])
    assert 0 < len(inside) < 500 and bool(((inside.means >= low) & (inside.means <= high)).all())
    assert len(inside) == sum(all(low[i] <= m[i] <= high[i] for i in range(3)) for m in g.means)


def test_cat_pads_the_lower_degree():
    a, b = some(3, 1), some(4, 3, seed=1)
    both = Gaussians.cat([a, b])
    assert len(both) == 7 and both.sh_degree == 3
    assert torch.equal(both.sh[:3, :4], a.sh) and not both.sh[:3, 4:].any() and torch.equal(both.sh[3:], b.sh)
    assert torch.equal(both.quats[3:], b.quats)
    assert len(Gaussians.cat([])) == 0
    batch = Gaussians.cat([some(3, 0, (2,)), some(2, 1, (2,))])
    assert batch.batch_shape == (2,) and len(batch) == 5 and batch.sh.shape == (2, 5, 4, 3)


# ---- rotations ----


@pytest.mark.parametrize("degrees", [0, 1e-4, 30, 90, 179.9999, 180, 270])
@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, -2, 0.5]])
def test_quaternions_and_matrices(axis, degrees):
    turn = rotation(axis, degrees)
    quat = matrix_to_quaternion(turn)
    assert float(quat[0]) >= 0 and abs(float(quat.norm()) - 1) < 1e-12
    torch.testing.assert_close(quaternion_to_matrix(quat), turn, atol=1e-9, rtol=0)
    other = rotation([0, 1, 1], 50)
    product = quaternion_multiply(quat, matrix_to_quaternion(other))
    torch.testing.assert_close(quaternion_to_matrix(product), turn @ other, atol=1e-9, rtol=0)


def test_sh_basis_is_orthonormal():
    """Monte Carlo over the sphere: the mean of Y_i Y_j is the identity over 4 pi."""
    g = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=g, dtype=torch.float64), dim=-1)
    y = sh_basis(points, 3)
    torch.testing.assert_close(y.T @ y / len(y) * 4 * math.pi, torch.eye(16, dtype=torch.float64), atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="degree 0 to 3"):
        sh_basis(points, 4)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_rotated_sh_shows_the_same_colours(degree):
    """What an eye sees along R d after turning the object by R is what it saw along d before."""
    turn, sh, d = rotation([1, 2, -0.7], 77), some(6, degree).sh.double(), directions()
    before = torch.einsum("dk,nkc->ndc", sh_basis(d, degree), sh)
    after = torch.einsum("dk,nkc->ndc", sh_basis(d @ turn.T, degree), rotate_sh(sh, turn))
    torch.testing.assert_close(after, before, atol=1e-10, rtol=0)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_transformed(degree):
    g = some(20, degree)
    turn, scale, move = rotation([0.3, 1, 0.2], 130), 1.7, (0.1, -2.0, 3.0)
    moved = g.transformed(similarity(turn, scale, move))
    expected = (g.means.double() @ turn.T * scale + torch.tensor(move)).float()
    torch.testing.assert_close(moved.means, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(covariances(moved), scale**2 * turn @ covariances(g) @ turn.T, atol=1e-7, rtol=1e-5)
    assert torch.equal(moved.opacities, g.opacities)
    d = directions()
    before = torch.einsum("dk,nkc->ndc", sh_basis(d, degree), g.sh.double())
    after = torch.einsum("dk,nkc->ndc", sh_basis(d @ turn.T, degree), moved.sh.double())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_transformed_back_and_batched():
    g = some(10, 2, (3,))
    matrix = similarity(rotation([1, 1, 0], 200), 0.4, (1, 2, 3))
    moved = g.transformed(matrix)
    assert moved.batch_shape == (3,)
    torch.testing.assert_close(moved[1].means, g[1].transformed(matrix).means)
    back = moved.transformed(torch.linalg.inv(matrix))
    torch.testing.assert_close(back.means, g.means, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(back.sh, g.sh, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(covariances(back), covariances(g), atol=1e-7, rtol=1e-4)


def test_transformed_keeps_gradients():
    g = some(5, 1)
    g.means.requires_grad_()
    g.transformed(similarity(rotation([0, 1, 0], 90), 2.0)).means.sum().backward()
    assert bool((g.means.grad.abs().sum(-1) > 1).all())


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (torch.diag(torch.tensor([1.0, 1, -1, 1])), "mirror"),
        (torch.diag(torch.tensor([1.0, 0, 1, 1])), "singular"),
        (torch.diag(torch.tensor([1.0, 2, 1, 1])), "stretches"),
        (torch.full((4, 4), math.nan), "finite"),
    ],
)
def test_transformed_refuses(matrix, match):
    with pytest.raises(ValueError, match=match):
        some().transformed(matrix)


def test_to_and_detach():
    g = some().to(torch.float64)
    assert all(t.dtype == torch.float64 for t in g.tensors())
    g.means.requires_grad_()
    assert not g.detach().means.requires_grad and g.device.type == "cpu"
