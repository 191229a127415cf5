"""Charts of a mesh: flat enough, none over itself or another, packed tightly."""

import pytest
import shapes
import torch

from bozzetto.surface.atlas.flatten import flatten
from bozzetto.surface.atlas.pack import pack
from bozzetto.surface.atlas.segment import FLATNESS, SMALL_FLATNESS, STEEPEST, chart_faces, connected_charts, dual_edges
from bozzetto.surface.bake import fill_texture
from bozzetto.surface.coverage import covered_pixels, covered_texels
from bozzetto.surface.marching import marching_cubes
from bozzetto.surface.unwrap import PADDING, chart_padding, unwrap


def volume_mesh(distance, n: int = 40):
    axis = torch.linspace(-0.7, 0.7, n)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return marching_cubes(distance(grid), torch.full((3,), -0.7), 1.4 / (n - 1))


def helix(turns: int = 3, steps: int = 200):
    """A ramp that winds over itself."""
    t = torch.linspace(0, turns * 2 * torch.pi, steps)
    vertices = torch.cat([torch.stack([r * t.cos(), r * t.sin(), 0.02 * t], dim=-1) for r in (0.5, 1.0)])
    k = torch.arange(steps - 1)
    faces = [torch.stack([k, k + steps, k + steps + 1], dim=-1), torch.stack([k, k + steps + 1, k + 1], dim=-1)]
    return vertices, torch.cat(faces)


def soup(count: int = 300):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 1, 3, generator=generator) * 4 + torch.rand(count, 3, 3, generator=generator)
    return corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3)


MESHES = {
    "ball": lambda: volume_mesh(shapes.sphere().distance),
    "torus": lambda: volume_mesh(shapes.torus().distance),
    "chair": lambda: volume_mesh(shapes.chair().distance, 60),
    "helix": helix,
    "soup": soup,
}


def stretch(vertices, faces, uvs, index):
    """Singular values [F, 2] of the map from the picture to the surface, unit: their root mean square over the area."""
    p, q = vertices[faces].double(), uvs[index].double()
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    x = torch.nn.functional.normalize(e1, dim=-1)
    normal = torch.linalg.cross(e1, e2)
    y = torch.nn.functional.normalize(torch.linalg.cross(normal, e1), dim=-1)
    flat = torch.stack([torch.stack([(e * x).sum(-1), (e * y).sum(-1)], -1) for e in (e1, e2)], dim=2)
    picture = torch.stack([q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]], dim=2)
    area = normal.norm(dim=-1)
    whole = area > 1e-4 * area.mean()
    values = torch.linalg.svdvals(flat[whole] @ torch.linalg.inv(picture[whole]))
    mean = (values.square().sum(-1) * area[whole]).sum() / (2 * area[whole].sum())
    return values / mean.sqrt(), torch.linalg.det(picture[whole])


@pytest.mark.parametrize("name", MESHES)
def test_atlas(name):
    vertices, faces = MESHES[name]()
    size = 512
    source, index, uvs = unwrap(vertices, faces, size)
    assert torch.equal(source[index], faces)
    assert uvs.min() >= 0 and uvs.max() <= 1
    face, texel, weights = covered_pixels(uvs[index] * size, size, size)
    inside = weights.amin(dim=1) > 1e-2
    assert torch.bincount(texel[inside]).max() == 1  # no texel belongs to two places of the surface
    assert len(torch.unique(texel)) / size**2 > {"soup": 0.3}.get(name, 0.5)
    values, determinants = stretch(vertices, faces, uvs, index)
    assert (determinants < 0).all()  # seen from outside, v down: no chart is mirrored
    assert float(values[:, 0].quantile(0.95)) < 1.6
    assert float(values[:, 0].max()) < 1.5 / STEEPEST
    assert float(values[:, 1].quantile(0.05)) > 0.6
    # Padding: two texels of different charts are no neighbours.
    owner = torch.full((size * size,), -1)
    first, second, _ = dual_edges(uvs, index)

    chart = connected_charts(torch.zeros(len(faces), dtype=torch.long), first, second)
    owner[texel] = chart[face]
    owner = owner.reshape(size, size)
    for a, b in ((owner[:, 1:], owner[:, :-1]), (owner[1:], owner[:-1]), (owner[1:, 1:], owner[:-1, :-1])):
        both = (a >= 0) & (b >= 0)
        assert torch.equal(a[both], b[both])


def level_errors(uvs, index, size, levels):
    """Charts of colours of their own, seen at box-filtered mip levels: root mean square error over the charts' area, 0..1.

    What is seen anywhere on a chart, bilinearly, should be the chart's colour.
    """
    first, second, _ = dual_edges(uvs, index)
    chart = connected_charts(torch.zeros(len(index), dtype=torch.long), first, second)
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(int(chart.max()) + 1, 3, generator=generator)
    corners = uvs[index]
    texel, face, _ = covered_texels(corners * size, size)
    picture = fill_texture(colours[chart[face]], texel, size).permute(2, 0, 1)[None]
    a, b = (corners[:, 1:] - corners[:, :1]).unbind(dim=1)
    area = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs()
    face = torch.multinomial(area, 50_000, replacement=True, generator=generator)
    share = -torch.rand(len(face), 3, generator=generator).log()
    at = (corners[face] * (share / share.sum(dim=1, keepdim=True))[..., None]).sum(dim=1)
    errors = []
    for _ in range(levels):
        grid = (at * 2 - 1)[None, :, None]
        seen = torch.nn.functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)[0, :, :, 0].T
        errors.append(float((seen - colours[chart[face]]).square().mean().sqrt()))
        picture = torch.nn.functional.avg_pool2d(picture, 2)
    return errors


@pytest.mark.parametrize("name", ["torus", "chair"])
def test_mip_levels_keep_charts_apart(name):
    """With 3 texels between charts levels 2 and 3 had 0.003 and 0.011 (torus), 0.006 and 0.017 (chair); with gaps left black
    level 0 has 0.03.
    """
    _, index, uvs = unwrap(*MESHES[name](), 1024)
    for error, most in zip(level_errors(uvs, index, 1024, 5), (1e-4, 1e-4, 1e-3, 0.01, 0.03), strict=True):
        assert error < most


def test_padding_is_a_share_of_the_picture_unless_charts_are_many():
    assert chart_padding(64, 1) == chart_padding(256, 100) == PADDING
    assert chart_padding(1024, 100) == 8 and chart_padding(2048, 100) == 16
    assert PADDING < chart_padding(1024, 900) < 8
    assert chart_padding(1024, 100_000) == PADDING


@pytest.mark.parametrize("name", ["torus", "chair"])
def test_charts_are_flat_and_connected(name):
    vertices, faces = MESHES[name]()
    chart, axes = chart_faces(vertices, faces)
    corners = vertices[faces]
    vectors = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
    area = vectors.norm(dim=-1)
    cosine = (vectors * axes[chart]).sum(-1) / area
    assert float(cosine.min()) > STEEPEST - 0.15  # straight borders move a chart's plane a little
    share = torch.zeros(len(axes)).index_add_(0, chart, area * cosine) / torch.zeros(len(axes)).index_add_(
        0, chart, area
    )
    assert float(share.min()) > SMALL_FLATNESS - 0.1
    assert float((area * cosine).sum() / area.sum()) > FLATNESS
    assert len(axes) < 80
    first, second, _ = dual_edges(vertices, faces)

    assert int(connected_charts(chart, first, second).max()) + 1 == len(axes)


def test_a_chart_that_winds_over_itself_is_cut():
    vertices, faces = helix()
    chart, flat, extent = flatten(vertices, faces, 1 << 16)
    assert int(chart.max()) + 1 == len(extent) > 3
    for c in range(len(extent)):
        corners = flat[chart == c]
        assert (corners >= 0).all() and (corners <= extent[c] + 1e-9).all()
        _, pixel, weights = covered_pixels(corners.float() * 100, 256, 256)
        assert torch.bincount(pixel[weights.amin(dim=1) > 0.05]).max() == 1


@pytest.mark.parametrize("seed", [0, 3, 4])
def test_no_face_of_a_rough_surface_is_mirrored(seed):
    """A sharp fold in a small chart hardly changes the chart's plane, which shows it from behind."""
    vertices, faces = volume_mesh(lambda p: p.norm(dim=-1) - 0.6, 24)
    vertices = vertices + 0.03 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(seed))
    _, index, uvs = unwrap(vertices, faces, 512)
    a, b = (uvs[index][:, 1:] - uvs[index][:, :1]).unbind(dim=1)
    assert bool((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0).all())


def test_damaged_faces_and_tiny_pictures():
    needle = torch.tensor([[0.0, 0, 0], [1, 1e-6, 0.3], [2, 0, 0.6]])
    for vertices in (torch.zeros(3, 3), needle, torch.rand(3, 3)):
        source, index, uvs = unwrap(vertices, torch.tensor([[0, 1, 2]]), 16)
        assert torch.equal(source[index], torch.tensor([[0, 1, 2]])) and bool(torch.isfinite(uvs).all())
    vertices, faces = soup(1000)  # more charts than the picture has room for with whole padding
    _, index, uvs = unwrap(vertices, faces, 16)
    assert float(uvs.min()) >= 0 and float(uvs.max()) <= 1
    assert len(torch.unique(uvs, dim=0)) == 3000


def test_squares_are_packed_tightly():
    """Sixteen equal squares, no padding to speak of."""
    square = torch.tensor([[[0.0, 0], [1, 0], [1, 1]], [[0.0, 0], [1, 1], [0, 1]]], dtype=torch.float64)
    flat = square.repeat(16, 1, 1)
    chart = torch.arange(16).repeat_interleave(2)
    places = pack(chart, flat, torch.ones(16, 2, dtype=torch.float64), 1024, 1.0)
    corners = places.reshape(16, 6, 2)
    side = (corners.amax(dim=1) - corners.amin(dim=1)).mean()
    assert float(side) > 0.225
    low = corners.amin(dim=1)
    gap = (low[:, None] - low[None]).abs().amax(dim=-1) + torch.eye(16)
    assert float(gap.min()) > float(side)
