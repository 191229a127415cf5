"""--method and --mesh-method: which way from Gaussians to a mesh, and where there is no choice."""

import pytest
import torch

from bozzetto import Gaussians, Mesh, image_to_3d
from bozzetto.app.cli import main
from bozzetto.errors import InputError


@pytest.fixture
def splats(tmp_path):
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(1500, 3, generator=generator), dim=1) * 0.4
    colours = (means > 0).float() * 0.8 + 0.1
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(1500, 1)
    ball = Gaussians.from_rgb(means, torch.full((1500, 3), 0.03), quats, torch.full((1500,), 0.9), colours)
    ball.save(tmp_path / "ball.ply")
    return tmp_path / "ball.ply"


@pytest.mark.slow
def test_a_mesh_by_nerf(splats, tmp_path):
    small = ["--steps", "64", "--picture-size", "72", "--resolution", "40", "--faces", "800", "--texture", "64"]
    target = tmp_path / "m.glb"
    assert (
        main(["mesh", str(splats), "-o", str(target), "--method", "nerf", "--device", "cpu", "--seed", "2", *small])
        == 0
    )
    mesh = Mesh.load(target)
    assert 100 < len(mesh.faces) <= 800 and mesh.texture.shape == (64, 64, 3)
    assert float(mesh.vertices.norm(dim=1).mean()) == pytest.approx(0.47, abs=0.05)  # where the splats are half opaque


def test_options_without_effect_are_refused(splats, tmp_path, capsys):
    target = str(tmp_path / "m.glb")
    assert main(["mesh", str(splats), "-o", target, "--seed", "1"]) == 2
    assert "--method nerf" in capsys.readouterr().err
    assert main(["mesh", str(splats), "-o", target, "--method", "nerf", "--steps", "1000000"]) == 2
    folder = str(tmp_path / "out")
    assert main(["image", "photo.png", "-o", folder, "--no-mesh", "--mesh-method", "nerf"]) == 2
    assert not (tmp_path / "m.glb").exists() and not (tmp_path / "out").exists()


def test_models_with_a_mesh_of_their_own_have_no_choice():
    picture = torch.zeros(32, 32, 4)
    with pytest.raises(InputError, match="its own field"):
        image_to_3d(picture, model="triposr", mesh_method="nerf", device="cpu")
    with pytest.raises(InputError, match="mesh method"):
        image_to_3d(picture, mesh_method="magic", device="cpu")
