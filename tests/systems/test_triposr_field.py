"""TripoSR's triplane, its renderer and its mesh: against reference outputs, and in house axes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from bozzetto.camera import Cameras
from bozzetto.camera.conventions import world_to_triposr
from bozzetto.errors import InputError, MeshError
from bozzetto.job import Job
from bozzetto.surface.field_mesh import field_surface, query_colour
from bozzetto.systems.triposr.checkpoint import load_triposr
from bozzetto.systems.triposr.config import RendererConfig, read_config
from bozzetto.systems.triposr.field import TriposrField
from bozzetto.systems.triposr.network import TripoSR
from bozzetto.systems.triposr.options import PhotoOptions
from bozzetto.systems.triposr.pipeline import field_mesh, photos_to_fields
from bozzetto.systems.triposr.render import intersect_cube
from bozzetto.systems.triposr.triplane import query_triplane, triplane_features

sys.path.insert(0, str(Path(__file__).resolve().parent))
from micro_triposr import write_config, write_micro_triposr


def close(value, golden, tolerance=1e-3):
    golden = torch.from_numpy(np.asarray(golden)).float()
    assert value.shape == golden.shape
    error = float((value - golden).abs().max() / golden.std().clamp_min(1e-6))
    assert error < tolerance, error


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "parity" / "triposr"


@pytest.fixture(scope="module")
def micro(folder):
    return json.loads((folder / "micro.json").read_text())


@pytest.fixture(scope="module")
def decoder(fill, tmp_path_factory):
    network = TripoSR(read_config(write_config(tmp_path_factory.mktemp("micro"))))
    fill.fill_module(network)
    return network.decoder.requires_grad_(False)


CONFIG = RendererConfig(num_samples_per_ray=32)


@pytest.fixture(scope="module")
def triplane(fill, micro):
    return torch.from_numpy(fill.test_input("triposr/triplane", *micro["inputs"]["triposr/triplane"]))


@pytest.fixture(scope="module")
def scene(folder):
    return torch.from_numpy(np.load(folder / "image_to_triplane.npz")["scene_codes"][0])


def views(spec):
    azimuth = [360.0 * i / spec["n_views"] for i in range(spec["n_views"])]
    aspect = spec["width"] / spec["height"]
    poses = Cameras.orbit(azimuth, spec["elevation_deg"], spec["camera_distance"]).camera_to_world
    return Cameras.from_fov(poses, spec["fovy_deg"], aspect), (spec["height"], spec["width"])


@pytest.mark.parametrize("chunk", [0, 100])
def test_query(folder, fill, micro, decoder, triplane, scene, chunk):
    golden = np.load(folder / "render.npz")
    points = torch.from_numpy(fill.test_input("triposr/points", *micro["inputs"]["triposr/points"]))
    for planes, prefix in ((triplane, "query_"), (scene, "query_scene_")):
        answer = query_triplane(decoder, planes, points, CONFIG, chunk)
        for name in ("density", "features", "density_act", "color"):
            close(answer[name], golden[prefix + name])


def test_rays_and_cube(folder, micro):
    """The house's orbit cameras are TripoSR's spherical cameras in other axes."""
    golden = np.load(folder / "render.npz")
    for spec, prefix, valid in ((micro["views"], "t_", "rays_valid"), (micro["wide_views"], "wide_t_", "wide_valid")):
        cameras, size = views(spec)
        cameras = Cameras(world_to_triposr(cameras.camera_to_world), cameras.intrinsics)
        origins, directions = cameras.rays(size)
        if prefix == "t_":
            close(origins, golden["rays_o"], 1e-5)
            close(directions, golden["rays_d"], 1e-5)
        near, far, hits = intersect_cube(origins, directions, CONFIG.radius)
        close(near[..., None], golden[prefix + "near"], 1e-4)
        close(far[..., None], golden[prefix + "far"], 1e-4)
        assert np.array_equal(hits.numpy(), golden[valid])
    assert not hits.all() and hits.any()


def test_rendering(folder, micro, decoder, triplane, scene):
    golden = np.load(folder / "render.npz")
    cameras, size = views(micro["views"])
    for planes, name in ((triplane, "image"), (scene, "image_scene")):
        for chunk in (1 << 17, 999):
            picture = TriposrField(planes, decoder, CONFIG, chunk).render(cameras, size, fast=False)
            close(picture, golden[name])


def test_mesh_of_the_triplane(folder, micro, decoder, triplane):
    golden = np.load(folder / "density_grid.npz")
    expected = micro["derived"]["mesh"]
    field = TriposrField(triplane, decoder, CONFIG)
    n = expected["resolution"]
    axis = torch.linspace(-CONFIG.radius, CONFIG.radius, n)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    close(field.density(grid.reshape(-1, 3)).reshape(n, n, n), golden["density_act"])
    vertices, faces = field_surface(field.density, field.bounds, n, expected["threshold"], closed=False)
    assert abs(len(faces) - expected["n_faces"]) <= 4  # densities differ in rounding
    tree = cKDTree(vertices.numpy())
    distance, nearest = tree.query(golden["mesh_vertices_sorted"])
    assert distance.max() < 1e-4
    colours = query_colour(field.colour, vertices)[torch.from_numpy(nearest)]
    assert (colours - torch.from_numpy(golden["mesh_colors_sorted"])).abs().max() < 2e-3


def test_mean_of_the_planes():
    planes, points = torch.rand(3, 5, 8, 8), torch.rand(11, 3) - 0.5
    concatenated = triplane_features(planes, points, 0.87).reshape(11, 3, 5)
    assert torch.allclose(triplane_features(planes, points, 0.87, "mean"), concatenated.mean(1), atol=1e-6)


class Formula(torch.nn.Module):
    """Stands in for the decoder: a plane holds its own coordinate, the features are a formula of the position."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, features):
        # The last channel is 1 inside and fades at the cube's border as the coordinates do.
        x, y, z = features[:, 0] / features[:, 2], features[:, 1] / features[:, 2], features[:, 7] / features[:, 8]
        return self.formula(torch.stack([x, y, z], dim=-1))


def formula_field(formula, samples=128):
    """A field in TripoSR's frame whose raw outputs are ``formula(points [N, 3]) -> [N, 4]``."""
    n = 64
    centre = ((torch.arange(n) + 0.5) / n * 2 - 1) * 0.87
    column, row = centre.expand(n, n), centre[:, None].expand(n, n)
    planes = torch.stack([torch.stack([column, row, torch.ones(n, n)])] * 3)  # [3, 3, n, n]
    return TriposrField(planes, Formula(formula), RendererConfig(num_samples_per_ray=samples))


def marked_ball(p):
    """A ball below the middle; its side towards TripoSR's photo camera (+x) is red, its right (+y) green, its top (+z) blue."""
    distance = 0.4 - (p - p.new_tensor([0.0, 0.0, -0.1])).norm(dim=-1, keepdim=True)
    return torch.cat(
        [1 + np.log(25) + 100 * distance, torch.where(p > p.new_tensor([0.3, 0.3, 0.2]), 6.0, -6.0)], dim=-1
    )


def test_photo_side_faces_the_front_upright_and_not_mirrored():
    field = formula_field(marked_ball)
    front, right, back = field.render(Cameras.orbit([0.0, 90.0, 180.0], 0.0, 1.9, 40.0), 64)
    seen = (front.amin(-1) < 0.5).nonzero().float().mean(0)
    assert seen[0] > 34  # the ball hangs low: row 0 is the top
    assert front[33, 32].tolist() == pytest.approx([1, 0, 0], abs=0.05)  # the photo's side
    edge = (front[34].amin(-1) < 0.5).nonzero()[:, 0]
    assert front[34, edge[-3]].tolist() == pytest.approx([0, 1, 0], abs=0.15)  # +y of TripoSR is the picture's right
    assert front[34, edge[2]].tolist() == pytest.approx([0, 0, 0], abs=0.15)
    top = (front[:, 32].amin(-1) < 0.5).nonzero()[0, 0]
    assert front[top + 1, 32, 2] > 0.9
    assert right[34, 32].tolist() == pytest.approx([0, 1, 0], abs=0.05)
    assert back[34, 32].tolist() == pytest.approx([0, 0, 0], abs=0.05)

    mesh = field_mesh(field, PhotoOptions(resolution=48, texture="vertex"), Job(torch.device("cpu")))
    assert (mesh.vertices - torch.tensor([0.0, -0.1, 0.0])).norm(dim=-1).sub(0.4).abs().max() < 0.02
    assert (mesh.colors[:, 0] > 0.5).eq(mesh.vertices[:, 2] > 0.3).float().mean() > 0.98  # red: front, +z
    assert (mesh.colors[:, 1] > 0.5).eq(mesh.vertices[:, 0] > 0.3).float().mean() > 0.98  # green: right, +x
    assert (mesh.colors[:, 2] > 0.5).eq(mesh.vertices[:, 1] > 0.2).float().mean() > 0.98  # blue: top, +y
    outwards = (mesh.normals * (mesh.vertices - torch.tensor([0.0, -0.1, 0.0]))).sum(-1)
    assert outwards.min() > 0.3


def test_leaving_samples_out_changes_next_to_nothing():
    field = formula_field(marked_ball)
    cameras = Cameras.orbit([20.0, 200.0], 15.0, 1.9, 40.0)
    difference = (
        field.render(cameras, 48, (0.2, 0.4, 0.6)) - field.render(cameras, 48, (0.2, 0.4, 0.6), fast=False)
    ).abs()
    assert difference.max() < 0.02 and difference.mean() < 5e-4


def test_few_samples_are_asked_for():
    counted = []

    def formula(p):
        counted.append(len(p))
        return marked_ball(p)

    field = formula_field(formula)
    field.framing()
    counted.clear()
    field.render(Cameras.orbit([0.0], 0.0, 1.9, 40.0), 64)
    assert sum(counted) < 0.1 * 64 * 64 * 128


def test_rays_that_miss_show_the_background():
    field = formula_field(marked_ball)
    cameras = Cameras.orbit([0.0], 0.0, 1.9, 110.0)
    for fast in (True, False):
        picture = field.render(cameras, (10, 14), (0.1, 0.2, 0.3), fast)[0]
        assert torch.allclose(picture[0, 0], torch.tensor([0.1, 0.2, 0.3]))
    away = Cameras.orbit([0.0], 0.0, 1.9, 40.0)
    away.camera_to_world[0, :3, :3] *= torch.tensor([-1.0, 1.0, -1.0])  # turned round: every ray misses
    assert torch.equal(field.render(away, 4), torch.ones(1, 4, 4, 3))


def test_framing_holds_the_object():
    centre, radius = formula_field(marked_ball).framing()
    assert np.allclose(centre, (0.0, -0.1, 0.0), atol=0.03)
    assert 0.4 < radius < 0.4 + 0.15
    centre, radius = formula_field(lambda p: torch.full((len(p), 4), -9.0)).framing()
    assert centre == (0.0, 0.0, 0.0) and radius == pytest.approx(0.87 * 3**0.5)


def test_no_surface_says_what_to_do():
    empty = formula_field(lambda p: torch.zeros(len(p), 4))
    with pytest.raises(MeshError, match=r"never reaches 25 .*lower the threshold"):
        field_mesh(empty, PhotoOptions(resolution=32), Job(torch.device("cpu")))


def test_results_that_are_not_finite_are_caught(tmp_path):
    write_micro_triposr(tmp_path)
    network = load_triposr(tmp_path)
    network.post_processor.upsample.bias[0] = torch.inf
    with pytest.raises(InputError, match="NaN or infinity"):
        photos_to_fields(network, [torch.rand(20, 20, 4)])


def test_photos_of_different_sizes_in_one_batch(tmp_path):
    write_micro_triposr(tmp_path)
    network = load_triposr(tmp_path)
    photos = []
    for size in ((40, 30), (64, 90)):
        rgba = torch.rand(*size, 4, generator=torch.Generator().manual_seed(size[0]))
        rgba[..., 3] = 0
        rgba[8:-8, 8:-8, 3] = 1
        photos.append(rgba)
    together = photos_to_fields(network, photos)
    points = torch.rand(50, 3) - 0.5
    for photo, field in zip(photos, together, strict=True):
        alone = photos_to_fields(network, [photo])[0]
        assert torch.allclose(field.density(points), alone.density(points), rtol=1e-3)
    assert not torch.allclose(together[0].density(points), together[1].density(points), rtol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(tmp_path):
    write_micro_triposr(tmp_path)
    photo = torch.rand(40, 30, 4, generator=torch.Generator().manual_seed(0))
    photo[..., 3] = 0
    photo[6:-6, 6:-6, 3] = 1
    fields = [photos_to_fields(load_triposr(tmp_path, d), [photo])[0] for d in ("cpu", "cuda")]
    assert fields[1].device.type == "cuda"
    # Convolutions take TensorFloat-32 on CUDA.
    assert float((fields[1].triplane.cpu() - fields[0].triplane).norm() / fields[0].triplane.norm()) < 1e-2
    moved = TriposrField(fields[0].triplane.cuda(), fields[1].decoder, fields[0].config)
    points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    assert torch.allclose(moved.density(points.cuda()).cpu(), fields[0].density(points), rtol=1e-3)
    cameras = Cameras.orbit([30.0], 10.0, 1.9, 40.0)
    for fast in (True, False):
        pictures = [f.render(cameras, 48, fast=fast).cpu() for f in (fields[0], moved)]
        assert float((pictures[0] - pictures[1]).abs().mean()) < 1e-3
    options = PhotoOptions(resolution=40, texture_size=64)
    meshes = [field_mesh(f, options, Job(f.device)) for f in (fields[0], moved)]
    assert len(meshes[0].faces) == pytest.approx(len(meshes[1].faces), rel=0.01)
    assert meshes[1].texture.device.type == "cpu" and moved.framing()[1] == pytest.approx(fields[0].framing()[1], 0.05)
    half = photos_to_fields(load_triposr(tmp_path, "cuda", torch.float16), [photo])[0]
    assert float((half.triplane.cpu() - fields[0].triplane).norm() / fields[0].triplane.norm()) < 5e-2
