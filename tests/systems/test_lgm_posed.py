"""Posed pictures through a network: when its answer is refined on them."""

from __future__ import annotations

import pytest
import torch

from bozzetto import Cameras, rasterize, views_to_3d
from bozzetto.errors import ForegroundError, InputError
from bozzetto.systems.lgm import posed
from bozzetto.systems.lgm.checkpoint import save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_lgm(LGM(preset("debug-cascade")), path)
    return str(path)


def given(count: int) -> tuple[list[torch.Tensor], Cameras]:
    """Pictures of a grey disc, [48, 48, 4], from all around."""
    row = torch.linspace(-1, 1, 48)
    disc = ((row[:, None] ** 2 + row**2) < 0.4).float()[..., None]
    return [torch.cat([0.5 * disc.expand(-1, -1, 3), disc], dim=-1)] * count, Cameras.orbit(
        [360.0 / count * k for k in range(count)], 5.0
    )


@pytest.mark.parametrize(
    ("count", "more", "done"),
    [(1, {}, 0), (1, {"refine": 3}, 0), (2, {}, 20), (6, {"refine": 3}, 3), (4, {"refine": 0}, 0)],
)
def test_several_pictures_are_refined_on_and_the_report_says_so(weights, monkeypatch, count, more, done):
    seen = []

    def refined(gaussians, rgba, cameras, steps, progress):
        seen.append((steps, len(rgba), *cameras.batch_shape))
        return gaussians

    monkeypatch.setattr(posed, "refine_gaussians", refined)
    asset = views_to_3d(*given(count), model=weights, mesh=False, device="cpu", **more)
    used = min(count, 4)
    assert asset.report["refine"] == done and seen == ([(done, used, used)] if done else [])
    assert ("refine" in asset.report["timings"]) == bool(done)


def test_refining_brings_the_splats_nearer_and_keeps_the_cameras_world(weights):
    matrix = torch.diag(torch.tensor([30.0, 30.0, 30.0, 1.0]))
    matrix[:3, 3] = torch.tensor([100.0, 0.0, -40.0])
    pictures, cameras = given(4)
    cameras = cameras.transformed(matrix)
    alone, refined = (
        views_to_3d(pictures, cameras, model=weights, mesh=False, device="cpu", refine=n).gaussians for n in (0, 10)
    )
    goal = pictures[0]
    errors = []
    for gaussians in (alone, refined):
        assert float((gaussians.means - matrix[:3, 3]).norm(dim=-1).median()) < 30
        drawn = rasterize(gaussians, cameras, 48).alpha
        errors.append(float((drawn - goal[..., 3]).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_a_number_of_steps_that_cannot_be_is_refused_before_any_work(weights):
    with pytest.raises(InputError, match="whole number of steps"):
        views_to_3d(*given(2), model=weights, refine=-1)


def test_the_picture_without_an_object_is_named(weights):
    pictures, cameras = given(2)
    with pytest.raises(ForegroundError, match=r"picture 1: .*fully transparent"):
        views_to_3d([pictures[0], torch.zeros(48, 48, 4)], cameras, model=weights, device="cpu")
