"""Measures of pictures and meshes with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from eval_shapes import box_mesh, cube, sphere

from bozzetto import Cameras, Mesh
from bozzetto.errors import MeshError
from bozzetto.evaluation.alignment import align, refine, similarity
from bozzetto.evaluation.distances import compare_surfaces
from bozzetto.evaluation.geometry import (
    SurfacePoints,
    is_watertight,
    mesh_arrays,
    sample_surface,
    seen_from_outside,
)
from bozzetto.evaluation.intervals import bootstrap
from bozzetto.evaluation.mesh_pictures import draw_mesh
from bozzetto.evaluation.meshes import TruthSurface, mesh_of, score_mesh
from bozzetto.evaluation.pictures import score_pictures
from bozzetto.evaluation.protocol import around_cameras, grid_cameras
from bozzetto.training.perceptual import ARCHITECTURES, FeatureNet, PerceptualDistance

# ---- pictures


def test_psnr_of_the_whole_picture_and_of_the_foreground():
    truth = torch.zeros(2, 20, 20, 4)
    truth[:, 5:15, 5:15] = torch.tensor([0.2, 0.4, 0.6, 1.0])
    drawn = torch.ones(2, 20, 20, 3)
    drawn[:, 5:15, 5:15] = torch.tensor([0.3, 0.5, 0.7])  # 0.1 off on a quarter of the picture
    scores = score_pictures(drawn, truth)
    assert torch.allclose(scores.foreground, torch.full((2,), 20.0), atol=1e-4)
    assert torch.allclose(scores.psnr, torch.full((2,), 20 + 10 * math.log10(4)), atol=1e-4)
    assert bool((scores.ssim < 1).all()) and scores.perceptual is None
    same = score_pictures(truth[..., :3] * truth[..., 3:] + 1 - truth[..., 3:], truth)
    assert bool((same.psnr == 100).all()) and torch.allclose(same.ssim, torch.ones(2))


def test_errors_in_the_background_do_not_count_in_front():
    truth = torch.zeros(1, 20, 20, 4)
    truth[:, 5:15, 5:15] = 1.0
    drawn = torch.ones(1, 20, 20, 3)
    drawn[:, 0, :] = 0.0
    scores = score_pictures(drawn, truth)
    assert float(scores.foreground) == 100 and float(scores.psnr) < 14


def test_a_picture_without_the_object_has_no_foreground():
    empty = score_pictures(torch.ones(2, 16, 16, 3), torch.zeros(2, 16, 16, 4))
    assert bool(empty.foreground.isnan().all())
    truth = torch.zeros(2, 16, 16, 4)
    truth[0] = 1.0
    assert score_pictures(torch.ones(2, 16, 16, 3), truth).means()["foreground"] == 100


def test_nan_is_the_worst_and_not_nothing():
    """A mean leaves out NaN: a model that draws it would win by it."""
    truth = torch.ones(2, 16, 16, 4)
    drawn = torch.ones(2, 16, 16, 3)
    drawn[1] = float("nan")
    scores = score_pictures(drawn, truth)
    assert scores.psnr.tolist() == pytest.approx([100, 0]) and scores.foreground[1] == pytest.approx(0)
    assert scores.means()["psnr"] == pytest.approx(50)


def test_perceptual_distance_is_taken_where_it_is_given():
    torch.manual_seed(0)
    distance = PerceptualDistance(FeatureNet(ARCHITECTURES["efficientnet_lite0"]))
    truth = torch.rand(10, 32, 32, 4)
    truth[..., 3] = 1.0
    scores = score_pictures(truth[..., :3].flip(0), truth, distance)
    assert scores.perceptual.shape == (10,) and bool((scores.perceptual > 0).all())
    assert float(score_pictures(truth[..., :3], truth, distance).perceptual.max()) < 1e-6
    chosen = scores.select([1, 3])
    assert torch.equal(chosen.perceptual, scores.perceptual[[1, 3]]) and torch.equal(chosen.psnr, scores.psnr[[1, 3]])


def test_wrong_shapes():
    with pytest.raises(ValueError, match="expected"):
        score_pictures(torch.ones(2, 8, 8, 3), torch.ones(3, 8, 8, 4))


# ---- surfaces


def samples(mesh: Mesh, count: int = 20_000, seed: int = 0) -> SurfacePoints:
    return sample_surface(*mesh_arrays(mesh), count, seed)


def test_samples_are_uniform_and_repeat():
    mesh = box_mesh((2.0, 1.0, 1.0))
    one, again, other = samples(mesh), samples(mesh), samples(mesh, seed=1)
    assert np.array_equal(one.points, again.points) and not np.array_equal(one.points, other.points)
    ends = np.abs(np.abs(one.points[:, 0]) - 1) < 1e-6
    assert abs(ends.mean() - 2 / 10) < 0.01  # two of ten squares of area
    assert np.abs(np.abs(one.normals[ends][:, 0]) - 1).max() < 1e-6
    assert np.abs(one.points.mean(0)).max() < 0.02


def test_a_surface_without_area():
    with pytest.raises(MeshError, match="no area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]))


def test_distance_of_two_parallel_boxes():
    """The same box, moved by 0.03 along x: a third of the surface is 0.03 away, the rest lies on the other box."""
    truth, made = samples(box_mesh()), samples(box_mesh(centre=(0.03, 0, 0)), seed=1)
    scores = compare_surfaces(made, truth, unit=1.0)
    # Between 20,000 samples of an area of 6 lie about 0.009 even on one and the same surface.
    assert scores.chamfer == pytest.approx(0.03 / 3 + 0.009 * 2 / 3, abs=0.001)
    assert scores.f_score[0.05] == 1.0 and 0.6 < scores.f_score[0.02] < 0.72
    assert scores.normal_consistency > 0.93
    double = compare_surfaces(made, truth, unit=2.0)
    assert double.chamfer == pytest.approx(scores.chamfer / 2) and double.f_score[0.02] > 0.999
    same = compare_surfaces(samples(box_mesh(), seed=3), truth, unit=1.0)
    assert same.chamfer == pytest.approx(0.5 * math.sqrt(6 / 20_000), abs=0.001) and same.f_score[0.05] == 1.0


def test_a_missing_half_costs_recall_only():
    truth = samples(box_mesh((1.0, 1.0, 4.0)))
    half = truth.select(truth.points[:, 2] > 0)
    scores = compare_surfaces(half, truth, unit=4.0)
    recall = scores.f_score[0.01] / (2 - scores.f_score[0.01])  # where precision is 1
    assert recall == pytest.approx(0.5, abs=0.02)
    wanted = truth.points[:, 2] > 0
    assert compare_surfaces(half, truth, 4.0, wanted).f_score[0.01] == 1.0


def test_what_is_inside_cannot_be_asked_for():
    outer, inner = cube(0.4), cube(0.2)
    outer.vertices = np.concatenate([outer.vertices, inner.vertices])
    outer.faces = np.concatenate([outer.faces, inner.faces + len(outer.vertices) - len(inner.vertices)])
    for name in ("uvs", "normals"):
        setattr(outer, name, np.concatenate([getattr(outer, name), getattr(inner, name)]))
    outer.material = np.concatenate([outer.material, inner.material])
    points = sample_surface(outer.vertices, outer.faces, 5000)
    seen = seen_from_outside(points, outer, Cameras.cat([grid_cameras(), around_cameras()]))
    hidden = np.abs(points.points).max(1) < 0.3
    assert not seen[hidden].any() and seen[~hidden].mean() > 0.999


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (0.001, 0.002, 0.001), (500.0, 300.0, 400.0)])
def test_watertight(size):
    vertices, faces = mesh_arrays(box_mesh(size))
    assert is_watertight(vertices, faces)
    assert not is_watertight(vertices, faces[1:])
    assert is_watertight(vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))  # seams are no holes
    assert not is_watertight(vertices, np.concatenate([faces, faces[:1]]))  # an edge of three triangles
    turned = faces.copy()
    turned[0] = turned[0, ::-1]
    assert not is_watertight(vertices, turned)
    assert not is_watertight(vertices, faces[:0])


def turn_y(degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    out = np.eye(4)
    out[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    return out


def test_similarity_of_paired_points():
    points = np.random.default_rng(0).normal(size=(50, 3))
    matrix = 1.7 * turn_y(40)
    matrix[:3, 3], matrix[3, 3] = [1, 2, 3], 1
    assert np.allclose(similarity(points, points @ matrix[:3, :3].T + matrix[:3, 3]), matrix)


def test_alignment_undoes_turn_scale_and_shift():
    """An L of three boxes, which looks the same from no two sides."""
    boxes = [
        ((1.0, 0.4, 0.4), (0.0, 0.0, 0.0)),
        ((0.3, 1.0, 0.3), (0.5, 0.5, 0.0)),
        ((0.2, 0.2, 0.9), (-0.4, 0.2, 0.3)),
    ]
    parts = [mesh_arrays(box_mesh(*b)) for b in boxes]
    vertices = np.concatenate([v for v, _ in parts])
    faces = np.concatenate([f + 8 * i for i, (_, f) in enumerate(parts)])
    truth, made = sample_surface(vertices, faces, 20_000), sample_surface(vertices, faces, 20_000, seed=1)
    matrix = turn_y(127)
    matrix[:3, :3] *= 3
    matrix[:3, 3] = [4, -1, 2]
    moved = made.moved(matrix)
    back = moved.moved(align(moved, truth))
    assert np.linalg.norm(back.points - made.points, axis=1).mean() < 0.01
    assert np.abs(back.normals - made.normals).mean() < 0.02
    assert compare_surfaces(back, truth, 1.5).f_score[0.02] > 0.99
    assert np.linalg.norm(refine(made.points[:500], made.points[:500], np.eye(4)) - np.eye(4)) < 1e-6


def test_a_perfect_mesh_scores_perfectly_and_a_broken_one_is_counted():
    obj = sphere(rings=24, segments=32)
    cameras = around_cameras()
    truth = TruthSurface.of(obj, cameras)
    assert truth.unit == pytest.approx(1.0, abs=0.02)
    pictures = draw_mesh(mesh_of(obj), cameras, 64)
    scores = score_mesh(lambda: mesh_of(obj), truth, pictures, cameras, posed=True)
    assert scores["f_score_0.02"] == scores["aligned_f_score_0.02"] == 1.0 and scores["chamfer"] < 0.005
    assert scores["texture_psnr"] == 100 and scores["faces"] == len(obj.faces) and scores["failed"] == 0
    alone = score_mesh(lambda: mesh_of(obj), truth, pictures, cameras, posed=False)
    assert "chamfer" not in alone and alone["aligned_chamfer"] < 0.005

    def fails() -> Mesh:
        raise MeshError("nothing")

    assert score_mesh(fails, truth, pictures, cameras, posed=True) == {"failed": 1.0}


def test_mesh_colours_are_drawn_as_they_are():
    mesh = box_mesh((0.6, 0.6, 0.6))
    mesh.colors = torch.tensor([0.8, 0.3, 0.1]).expand(8, 3)
    drawn = draw_mesh(mesh, Cameras.orbit([0.0]), 32)[0]
    assert torch.allclose(drawn[16, 16], torch.tensor([0.8, 0.3, 0.1]), atol=2 / 255)
    assert torch.equal(drawn[0, 0], torch.ones(3))


# ---- intervals


def test_bootstrap():
    rng = np.random.default_rng(0)
    values = rng.normal(20, 2, 100)
    found = bootstrap(values)
    assert found.mean == pytest.approx(values.mean()) and found.count == 100
    half = 1.96 * values.std() / 10
    assert found.low == pytest.approx(found.mean - half, abs=0.1) and found.high == pytest.approx(
        found.mean + half, abs=0.1
    )
    assert bootstrap(values) == found
    groups = bootstrap({"a": [1.0, 1.0], "b": [3.0] * 50})
    assert (groups.mean, groups.low, groups.high) == (2.0, 2.0, 2.0)  # the mean of means
    assert bootstrap([5.0, float("nan")]).mean == 5.0
    assert math.isnan(bootstrap([]).mean)
