"""Gaussians fitted to pictures: known answers, schedules, starts, bad input."""

from __future__ import annotations

import struct

import pytest
import torch

from bozzetto import Cameras, Gaussians
from bozzetto.camera.colmap_points import read_colmap_points
from bozzetto.data.procedural import HELD_OUT_SEEDS, generate_object
from bozzetto.data.render import Lights, SceneBatch, render_objects
from bozzetto.errors import CameraError, ForegroundError, InputError
from bozzetto.fitting import DensitySchedule, Rates, fit_gaussians
from bozzetto.fitting.density import DensificationStats, densify_and_prune, reset_opacity, screen_radii
from bozzetto.fitting.fit import scene_extent
from bozzetto.fitting.parameters import GaussianParameters
from bozzetto.fitting.start import gaussians_on_points, random_points, viewed_sphere, with_sh_degree
from bozzetto.raster import rasterize
from bozzetto.training.losses import psnr

GOLDEN = 137.50776405


def spread_cameras(count: int, **more) -> Cameras:
    elevations = [-30 + 90 * (k + 0.5) / count for k in range(count)]
    return Cameras.orbit([GOLDEN * k % 360 for k in range(count)], elevations, **more)


def pictures(cameras: Cameras, size: int, seed: int = HELD_OUT_SEEDS[3]) -> torch.Tensor:
    """[V, size, size, 4] of a procedural object."""
    scene = SceneBatch.pack([generate_object(seed)])
    return render_objects(scene, cameras, size, Lights.default(1), outputs=("rgba",)).rgba[0]


def white(rgba: torch.Tensor) -> torch.Tensor:
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def quality(gaussians: Gaussians, cameras: Cameras, truth: torch.Tensor) -> float:
    drawn = rasterize(gaussians, cameras, truth.shape[1], (1.0, 1.0, 1.0)).rgb.clamp(0, 1)
    return float(psnr(drawn, white(truth), dims=(1, 2, 3)).mean())


def test_a_short_run_converges_and_repeats():
    train, test = spread_cameras(12), Cameras.orbit([10.0, 100.0, 190.0, 280.0], [5.0, 25.0, -10.0, 40.0])
    images, held_out = pictures(train, 48), pictures(test, 48)
    losses = []
    options = {"steps": 120, "points": 600, "seed": 1}
    first = fit_gaussians(images, train, on_step=lambda step, loss: losses.append(float(loss)), **options)
    assert sum(losses[-24:]) < 0.85 * sum(losses[:24])
    start = gaussians_on_points(*random_points(images, train, 600, 1))
    assert quality(first, test, held_out) > quality(start, test, held_out) + 1.5
    assert len(first) > 600  # some were cloned or split
    again = fit_gaussians(images, train, **options)
    assert all(torch.equal(a, b) for a, b in zip(first.tensors(), again.tensors()))


@pytest.mark.slow
def test_a_small_object_is_fitted_to_30_db():
    """At 128 pixels from 32 views, seen from eight others; about half a minute of one core.

    33.7 to 34.0 dB over four seeds, the same for one thread and two. The object matters more: HELD_OUT_SEEDS[3], whose texture is
    finer than 128 pixels show, ends at 28.4 dB (29.0 in the pictures that it was fitted to, with twice the steps).
    """
    train, seed = spread_cameras(32), HELD_OUT_SEEDS[5]
    test = Cameras.orbit([20 + 45 * k for k in range(8)], [-15.0, 5.0, 25.0, 45.0] * 2)
    fitted = fit_gaussians(pictures(train, 128, seed), train, steps=600)
    assert quality(fitted, test, pictures(test, 128, seed)) >= 32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_a_cpu():
    train, test = spread_cameras(12), Cameras.orbit([10.0, 100.0, 190.0, 280.0], [5.0, 25.0, -10.0, 40.0])
    images, held_out = pictures(train, 48), pictures(test, 48)
    options = {"steps": 120, "points": 600, "batch": 2, "sh_degree": 1}
    found = {d: fit_gaussians(images, train, device=d, **options) for d in ("cpu", "cuda")}
    assert found["cuda"].device.type == "cuda"
    quality_of = {d: quality(g.to("cpu"), test, held_out) for d, g in found.items()}
    assert abs(quality_of["cuda"] - quality_of["cpu"]) < 1


def test_view_dependent_colour_is_found():
    """A single splat whose colour turns with the eye: degree 0 cannot show it, degree 1 can."""
    true = Gaussians(
        torch.zeros(1, 3), torch.full((1, 3), 0.3), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0.95]),
        torch.zeros(1, 4, 3),
    )  # fmt: skip
    true.sh[0, 3, 0], true.sh[0, 1, 2] = 0.8, 0.8
    cameras = spread_cameras(16)
    images = rasterize(true, cameras, 32).rgb
    errors = {}
    for degree in (0, 1):
        flat = with_sh_degree(true, 0)
        fitted = fit_gaussians(
            images, cameras, init=flat, steps=150, sh_degree=degree, densify=False, rates=Rates(f_dc=0.02, f_rest=0.02)
        )
        assert fitted.sh_degree == degree
        errors[degree] = float((rasterize(fitted, cameras, 32).rgb - images).square().mean())
    assert errors[1] < 0.3 * errors[0]


def test_what_is_transparent_stays_empty():
    """Random backgrounds: nothing white is left in front of a white object's surroundings."""
    cameras = spread_cameras(8)
    images = pictures(cameras, 32)
    images[..., :3] = 1.0
    fitted = fit_gaussians(images, cameras, steps=60, points=300)
    alpha = rasterize(fitted, cameras, 32).alpha
    assert float(alpha[images[..., 3] == 0].mean()) < 0.08
    assert float(alpha[images[..., 3] == 1].mean()) > 0.6


def test_other_worlds_and_sizes():
    """A world a hundred times as large, moved away, with pictures of two sizes: the same quality."""
    matrix = torch.eye(4)
    matrix[:3, :3] *= 100
    matrix[:3, 3] = torch.tensor([500.0, -30.0, 20.0])
    cameras = spread_cameras(8)
    images = [p if i % 2 else p[::2, ::2] for i, p in enumerate(pictures(cameras, 48))]
    fitted = fit_gaussians(images, cameras.transformed(matrix), steps=40, points=400)
    own = fit_gaussians(images, cameras, steps=40, points=400)
    home = fitted.transformed(torch.linalg.inv(matrix))
    test = Cameras.orbit([33.0, 200.0], 10.0)
    truth = pictures(test, 48)
    assert quality(home, test, truth) > quality(own, test, truth) - 1


def test_the_published_schedule_and_short_ones():
    full = DensitySchedule.for_steps(30_000)
    assert full == DensitySchedule()
    assert [s for s in range(1000) if full.due(s)] == [600, 700, 800, 900]
    assert full.resets(3000) and not full.resets(0) and not full.resets(15_000)
    short = DensitySchedule.for_steps(600)
    assert 0 < short.start < short.stop == 300 and short.every == 40
    rates = Rates()
    assert rates.xyz(0, 2.0) == pytest.approx(3.2e-4) and rates.xyz(30_000, 1.0) == pytest.approx(1.6e-6)


def test_opacity_reset():
    parameters = GaussianParameters.from_gaussians(
        gaussians_on_points(torch.rand(10, 3), torch.rand(10, 3), opacity=0.5), 1.0
    )
    g = parameters.gaussians()
    (g.opacities.sum() + g.means.sum()).backward()
    parameters.step()
    reset_opacity(parameters)
    assert torch.allclose(parameters.gaussians().opacities, torch.full((10,), 0.01), atol=1e-5)
    moments = parameters.optimizer.state[parameters.groups["opacity"]]
    assert float(moments["exp_avg"].abs().max()) == 0
    kept = parameters.optimizer.state[parameters.groups["xyz"]]
    assert float(kept["exp_avg"].abs().min()) > 0  # only the opacities forget


def test_pruning_keeps_what_is_above_the_paper_s_floor():
    gaussians = gaussians_on_points(torch.rand(10, 3), torch.rand(10, 3))
    gaussians.opacities[:5] = 0.004
    gaussians.opacities[5:] = 0.02
    parameters = GaussianParameters.from_gaussians(gaussians, 1.0)
    densify_and_prune(parameters, DensificationStats.zeros(10), max_gradient=1.0)
    assert len(parameters) == 5


def test_screen_radii_of_pictures_that_are_not_square():
    gaussians = gaussians_on_points(torch.rand(50, 3) * 0.5 - 0.25, torch.rand(50, 3))
    cameras = Cameras.from_fov(Cameras.orbit([0.0, 90.0]).camera_to_world, 40.0, aspect=2.0)
    wide = screen_radii(gaussians, cameras, (40, 80))
    square = screen_radii(gaussians, Cameras.orbit([0.0, 90.0], fov_y=40.0), 40)
    assert torch.equal(torch.where(square > 0, wide, 0), square) and bool((wide >= square).all())


def test_starts():
    cameras = spread_cameras(10)
    centre, radius = viewed_sphere(cameras)
    assert float(centre.norm()) < 1e-5 and 0.6 < radius < 0.65
    images = pictures(cameras, 64)
    points, rgb = random_points(images, cameras, 500)
    assert points.shape == rgb.shape == (500, 3) and float(rgb.amin()) >= 0 and float(rgb.amax()) <= 1
    vertices = torch.from_numpy(generate_object(HELD_OUT_SEEDS[3]).vertices)
    assert bool((points >= vertices.amin(0) - 0.15).all()) and bool((points <= vertices.amax(0) + 0.15).all())
    inside = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 0.0, 1e-3)  # standing together, looking at each other's backs
    assert viewed_sphere(inside)[1] > 0
    assert scene_extent(cameras, gaussians_on_points(points, rgb)) == pytest.approx(1.65, rel=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "no pictures"),
        ({"images": [torch.rand(16, 16, 3)]}, "cameras"),
        ({"images": torch.rand(3, 16, 16, 2)}, "3 or 4"),
        ({"images": torch.rand(3, 16, 16, 3) * 255}, "divide"),
        ({"images": torch.full((3, 16, 16, 3), float("nan"))}, "0 to 1"),
        ({"steps": 0}, "steps"),
        ({"sh_degree": 4}, "sh_degree"),
        ({"init": "magic"}, "init"),
        ({"init": Gaussians.empty()}, "at least one"),
        ({"init": (torch.rand(2, 3), torch.rand(2, 3))}, "at least 4"),
        ({"init": (torch.full((9, 3), float("inf")), torch.rand(9, 3))}, "NaN"),
    ],
)
def test_bad_input(change, message):
    arguments = {"images": torch.rand(3, 16, 16, 3), "cameras": spread_cameras(3), "steps": 1} | change
    with pytest.raises(InputError, match=message):
        fit_gaussians(**arguments)


def test_masks_without_a_common_place():
    images = torch.zeros(3, 16, 16, 4)
    with pytest.raises(ForegroundError, match="no place in space"):
        fit_gaussians(images, spread_cameras(3), steps=1)


def test_points_of_colmap(tmp_path):
    assert read_colmap_points(tmp_path) is None
    text = "# a comment\n1 0.5 -1 2 255 0 51 0.3 1 2 3 4\n7 1 2 3 0 0 0 0.1\n"
    (tmp_path / "points3D.txt").write_text(text)
    points, rgb = read_colmap_points(tmp_path)
    assert points.tolist() == [[0.5, -1.0, 2.0], [1.0, 2.0, 3.0]]
    assert torch.allclose(rgb[0], torch.tensor([1.0, 0.0, 0.2]))
    sparse = tmp_path / "project" / "sparse" / "0"
    sparse.mkdir(parents=True)
    rows = [struct.pack("<Q3d3BdQ", 1, 0.5, -1.0, 2.0, 255, 0, 51, 0.3, 1) + struct.pack("<II", 2, 3)]
    rows += [struct.pack("<Q3d3BdQ", 7, 1.0, 2.0, 3.0, 0, 0, 0, 0.1, 0)]
    (sparse / "points3D.bin").write_bytes(struct.pack("<Q", 2) + b"".join(rows))
    again = read_colmap_points(tmp_path / "project")
    assert torch.equal(again[0], points) and torch.equal(again[1], rgb)
    (sparse / "points3D.bin").write_bytes(struct.pack("<Q", 2) + rows[0])
    with pytest.raises(CameraError, match="in the middle"):
        read_colmap_points(tmp_path / "project")
    (tmp_path / "points3D.txt").write_text("1 0.5 -1\n")
    with pytest.raises(CameraError, match="line 1"):
        read_colmap_points(tmp_path)
