"""What a run can start from: every kind of file, its frame, and files that cannot be used."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bozzetto import Gaussians, Mesh
from bozzetto.errors import InputError
from bozzetto.files.ply_format import scalar_properties, write_ply_file
from bozzetto.systems.gaussian_dreamer.grow import grow_points
from bozzetto.systems.gaussian_dreamer.options import TextOptions
from bozzetto.systems.gaussian_dreamer.start import (
    POINT_SCALE,
    read_start,
    start_from_file,
    start_from_shap_e,
    surface_points,
)

GROW = {"candidates": 20_000, "reach": 0.03, "colour_noise": 0.2}


def cube(colors: bool = True) -> Mesh:
    """A box of 2 x 4 x 1 around (5, 6, 7); colours say where +y is."""
    corners = torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
    faces = [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
    ]
    faces += [[1, 5, 7], [1, 7, 3]]
    vertices = (corners - 0.5) * torch.tensor([2.0, 4, 1]) + torch.tensor([5.0, 6, 7])
    rgb = torch.stack([corners[:, 1], torch.zeros(8), 1 - corners[:, 1]], -1)
    return Mesh(vertices, torch.tensor(faces), colors=rgb if colors else None)


def write_points(path, points: np.ndarray, rgb: np.ndarray | None = None) -> None:
    columns = [(n, "<f4") for n in "xyz"] + ([(n, "u1") for n in ("red", "green", "blue")] if rgb is not None else [])
    rows = np.empty(len(points), columns)
    for i, n in enumerate("xyz"):
        rows[n] = points[:, i]
    lines = scalar_properties("xyz")
    if rgb is not None:
        for i, n in enumerate(("red", "green", "blue")):
            rows[n] = np.round(rgb[:, i] * 255)
        lines += scalar_properties(("red", "green", "blue"), "u1")
    write_ply_file(path, [("vertex", rows, lines)])


def cloud() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(1)
    return random.normal(size=(500, 3)) * [1, 2, 0.5] + [5, 6, 7], random.random_sample((500, 3))


@pytest.mark.parametrize("kind", ["glb", "obj", "mesh.ply", "points.ply", "grey.ply", "splats.ply", "splat"])
def test_every_kind_of_file(tmp_path, kind):
    """The start has the published size, and goes back to exactly where the file is."""
    path = tmp_path / f"start.{kind}"
    points, rgb = cloud()
    if kind in ("glb", "obj", "mesh.ply"):
        cube().save(path)
        points = cube().vertices.numpy()
    elif kind == "points.ply":
        write_points(path, points, rgb)
    elif kind == "grey.ply":
        write_points(path, points)
    else:
        quats = torch.tensor([1.0, 0, 0, 0]).expand(500, 4)
        gaussians = Gaussians.from_rgb(
            torch.from_numpy(points).float(),
            torch.full((500, 3), 0.05),
            quats,
            torch.full((500,), 0.7),
            torch.rand(500, 3),
        )
        gaussians.save(path)
    start = start_from_file(path, **GROW)
    half = (start.gaussians.means.amax(0) - start.gaussians.means.amin(0)).max() / 2
    assert float(half) == pytest.approx(1.0, rel=0.3 if "splat" in kind else 1e-3)
    back = start.gaussians.transformed(start.back).means.numpy()
    if "splat" in kind:
        assert len(back) == 500 and np.abs(np.sort(back, 0) - np.sort(points, 0)).max() < 1e-4
        assert start.source == "splats" and torch.allclose(start.gaussians.opacities, torch.tensor(0.7), atol=0.01)
    else:
        assert np.abs(back.min(0) - points.min(0)).max() < 0.02 and np.abs(back.max(0) - points.max(0)).max() < 0.02
        assert float(start.gaussians.opacities[0]) == pytest.approx(0.1)
        assert start.source == ("points" if kind in ("points.ply", "grey.ply") else "mesh")
    if kind == "glb":
        up = start.gaussians.means[:, 1] > 0.9
        assert float(start.gaussians.rgb[up, 0].mean()) > float(start.gaussians.rgb[~up, 0].mean()) + 0.2
    if kind == "grey.ply":
        tail = start.gaussians.rgb[-500:]
        assert float(tail.min()) >= 0.5 and float(tail.max()) < 0.502


def test_points_of_a_mesh_lie_on_it_evenly():
    points = surface_points(cube(), 20_000, seed=3).points - np.array([5, 6, 7])
    on_a_side = np.abs(np.abs(points) / [1, 2, 0.5] - 1).min(1)
    assert on_a_side.max() < 1e-6
    top = np.abs(points[:, 1] - 2) < 1e-6  # 2 x 1 of an area of 2 (8 + 4 + 2)
    assert top.mean() == pytest.approx(2 / 28, abs=0.01)
    again = surface_points(cube(), 20_000, seed=3).points
    assert np.array_equal(again - np.array([5, 6, 7]), points)


def test_a_texture_gives_the_colours():
    mesh = cube(colors=False)
    texture = torch.zeros(4, 4, 3)
    texture[..., 1] = 1.0
    mesh = dataclasses.replace(mesh, uvs=torch.rand(8, 2), texture=texture)
    assert np.allclose(surface_points(mesh, 100).rgb, [0, 1, 0])


def test_shap_e_points_are_turned_upright():
    """Shap-E: z up, front to -y. House: y up, front to +z; inside the unit cube when it comes back."""
    vertices = torch.tensor([[0.0, -0.5, 0.0], [0.0, 0.0, 0.6], [0.4, 0, 0], [0, 0.1, 0.1], [0.1, 0.1, -0.2]])
    start = start_from_shap_e(vertices, torch.rand(5, 3), candidates=0, reach=0.01, colour_noise=0.2)
    assert torch.allclose(start.gaussians.means[0], torch.tensor([0.0, 0.0, 0.5]) * POINT_SCALE, atol=1e-6)
    assert torch.allclose(start.gaussians.means[1], torch.tensor([0.0, 0.6, 0.0]) * POINT_SCALE, atol=1e-6)
    home = start.gaussians.transformed(start.back).means
    assert torch.allclose(home[:, 0], vertices[:, 0], atol=1e-6) and float(home.abs().max()) <= 1


def bad_files(folder):
    empty = folder / "empty.ply"
    empty.write_bytes(b"")
    text = folder / "note.txt"
    text.write_text("hello, this is not a start")
    none = folder / "none.ply"
    write_points(none, np.zeros((0, 3)))
    few = folder / "few.ply"
    write_points(few, np.eye(3))
    spot = folder / "spot.ply"
    write_points(spot, np.ones((10, 3)))
    nan = folder / "nan.ply"
    write_points(nan, np.full((10, 3), np.nan))
    cut = folder / "cut.ply"
    cube().save(folder / "whole.ply")
    cut.write_bytes((folder / "whole.ply").read_bytes()[:-20])
    nothing = folder / "nothing.ply"
    Gaussians.empty().save(nothing)
    return {
        folder / "absent.ply": "does not exist", folder: "folder", empty: "empty", text: "no start that can be read",
        none: "0 points", few: "3 points", spot: "one spot", nan: "NaN", cut: "truncated", nothing: "0 Gaussians",
    }  # fmt: skip


@pytest.mark.parametrize("index", range(10))
def test_bad_starts_say_what_is_wrong(tmp_path, index):
    path, message = list(bad_files(tmp_path).items())[index]
    with pytest.raises(InputError, match=message):
        start_from_file(path, **GROW)


def test_growing_without_points_or_candidates():
    with pytest.raises(InputError, match="no points"):
        grow_points(np.zeros((0, 3)), np.zeros((0, 3)))
    points, rgb = cloud()
    grown, colours = grow_points(points, rgb, candidates=0)
    assert np.array_equal(grown, points) and np.array_equal(colours, rgb)


def test_a_mesh_is_told_from_points_and_splats(tmp_path):
    cube().save(tmp_path / "a.ply")
    write_points(tmp_path / "b.ply", *cloud())
    assert [read_start(tmp_path / n)[0] for n in ("a.ply", "b.ply")] == ["mesh", "points"]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"steps": 0}, "--steps"),
        ({"batch": 6, "prior": "mvdream"}, "multiple of 4"),
        ({"prior": "mvdream", "perp_neg": "on"}, "--perp-neg"),
        ({"method": "sjc", "weighting": "uniform"}, "--weighting"),
        ({"start": " "}, "--start"),
        ({"start": "nowhere/fox.glb"}, "does not exist"),  # before any weights are fetched
        ({"start": "x" * 5000}, "does not exist"),
        ({"guidance": float("nan")}, "--guidance"),
        ({"prior": "flux"}, "--prior"),
    ],
)
def test_options_that_make_no_sense(given, message):
    with pytest.raises(InputError, match=message):
        TextOptions(**given)
