"""A few steps of optimisation on the pictures that a network was given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bozzetto.camera import Cameras
from bozzetto.errors import InputError
from bozzetto.fitting import RefinementRates, refine, refine_gaussians
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize

SIZE = 48


def ball(count: int = 900, seed: int = 0) -> Gaussians:
    """Splats on a coloured sphere of radius 0.5."""
    random = torch.Generator().manual_seed(seed)
    where = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=-1)
    quats = torch.tensor([1.0, 0, 0, 0]).expand(count, 4)
    return Gaussians.from_rgb(
        0.5 * where, torch.full((count, 3), 0.04), quats, torch.full((count,), 0.9), 0.5 + 0.4 * where
    )


def seen(gaussians: Gaussians, cameras: Cameras) -> torch.Tensor:
    """[V, 4, SIZE, SIZE], straight alpha."""
    drawn = rasterize(gaussians, cameras, SIZE)
    rgb = (drawn.rgb / drawn.alpha[..., None].clamp_min(1e-4)).clamp(0, 1)
    return torch.cat([rgb, drawn.alpha[..., None]], dim=-1).permute(0, 3, 1, 2)


def error(gaussians: Gaussians, truth: Gaussians, cameras: Cameras) -> float:
    a, b = (rasterize(g, cameras, SIZE, (1.0, 1.0, 1.0)).rgb for g in (gaussians, truth))
    return float((a - b).square().mean())


@pytest.fixture(scope="module")
def case():
    truth = ball()
    random = torch.Generator().manual_seed(3)
    moved = truth.means * 1.06 + 0.02 * torch.randn(truth.means.shape, generator=random)
    wrong = Gaussians(moved, truth.scales * 1.2, truth.quats, truth.opacities * 0.8, truth.sh + 0.2)
    given, new = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 0.0), Cameras.orbit([45.0, 200.0, 300.0], 20.0)
    return SimpleNamespace(truth=truth, wrong=wrong, given=given, new=new, rgba=seen(truth, given))


def test_given_and_new_views_become_better(case):
    kept = [t.clone() for t in case.wrong.tensors()]
    better = refine_gaussians(case.wrong, case.rgba, case.given, 20)
    assert error(better, case.truth, case.given) < 0.4 * error(case.wrong, case.truth, case.given)
    assert error(better, case.truth, case.new) < 0.6 * error(case.wrong, case.truth, case.new)
    assert len(better) == len(case.wrong) and not any(t.requires_grad for t in better.tensors())
    assert all(torch.equal(a, b) for a, b in zip(kept, case.wrong.tensors()))


def test_scale_of_the_world_does_not_matter(case):
    matrix = torch.diag(torch.tensor([7.0, 7.0, 7.0, 1.0]))
    matrix[:3, 3] = torch.tensor([3.0, -2.0, 1.0])
    there = refine_gaussians(case.wrong.transformed(matrix), case.rgba, case.given.transformed(matrix), 6)
    here = refine_gaussians(case.wrong, case.rgba, case.given, 6).transformed(matrix)
    assert torch.allclose(there.means, here.means, atol=7 * 2e-3) and torch.allclose(there.sh, here.sh, atol=2e-2)


def test_a_tiny_world_is_seen(case):
    matrix = torch.diag(torch.tensor([1e-3, 1e-3, 1e-3, 1.0]))
    there = refine_gaussians(case.wrong.transformed(matrix), case.rgba, case.given.transformed(matrix), 3)
    here = refine_gaussians(case.wrong, case.rgba, case.given, 3).transformed(matrix)
    assert torch.allclose(there.sh, here.sh, atol=1e-3) and not torch.equal(there.sh, case.wrong.sh)


def test_what_no_camera_sees_stays(case):
    behind = Gaussians.from_rgb(
        torch.tensor([[0.0, 50.0, 0.0]]), torch.full((1, 3), 0.1), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0.7]),
        torch.full((1, 3), 0.3),
    )  # fmt: skip
    together = Gaussians(*(torch.cat(pair) for pair in zip(case.wrong.tensors(), behind.tensors())))
    last = refine_gaussians(together, case.rgba, case.given, 5).select(torch.tensor([len(case.wrong)]))
    for made, was in zip(last.tensors(), behind.tensors()):
        assert torch.allclose(made, was, atol=1e-5)


def test_callers_without_gradients_and_no_steps(case):
    with torch.no_grad():
        one = refine_gaussians(case.wrong, case.rgba, case.given, 2)
    with torch.inference_mode():
        two = refine_gaussians(case.wrong, case.rgba, case.given, 2)
    assert torch.allclose(one.means, two.means) and not torch.equal(one.means, case.wrong.means)
    assert all(
        a is b or torch.equal(a, b)
        for a, b in zip(refine_gaussians(case.wrong, case.rgba, case.given, 0).tensors(), case.wrong.tensors())
    )
    still = refine_gaussians(case.wrong, case.rgba, case.given, 2, rates=RefinementRates(0, 0, 0, 0, 0))
    assert torch.allclose(still.means, case.wrong.means) and torch.allclose(
        still.opacities, case.wrong.opacities, atol=1e-5
    )
    assert len(refine_gaussians(Gaussians.empty(), case.rgba, case.given, 2)) == 0


def test_what_was_made_in_inference_mode_is_copied(case, monkeypatch):
    """Autograd cannot keep such tensors, and the kernels on a GPU keep cameras as they are given."""
    met = []

    def looked_at(gaussians, cameras, size, **more):
        met.append((cameras.camera_to_world, cameras.intrinsics))
        return rasterize(gaussians, cameras, size, **more)

    monkeypatch.setattr(refine, "rasterize", looked_at)
    with torch.inference_mode():
        cameras = case.given.to("cpu", torch.float64).to("cpu", torch.float32)
        assert cameras.camera_to_world.is_inference()
        refine_gaussians(case.wrong, case.rgba.clone(), cameras, 1)
    assert len(met) == 1 and not any(t.is_inference() for t in met[0])


def test_bad_input_is_refused(case):
    with pytest.raises(InputError, match="as many cameras"):
        refine_gaussians(case.wrong, case.rgba[:2], case.given, 2)
    with pytest.raises(InputError, match="pictures"):
        refine_gaussians(case.wrong, case.rgba[:, :3], case.given, 2)
    for steps in (-1, 1001, 2.0, True):
        with pytest.raises(InputError, match="whole number"):
            refine_gaussians(case.wrong, case.rgba, case.given, steps)
    with pytest.raises(InputError, match="one object"):
        refine_gaussians(Gaussians(*(t[None] for t in case.wrong.tensors())), case.rgba, case.given, 2)


def test_values_that_are_not_finite_do_not_come_back(case):
    bad = case.rgba.clone()
    bad[0, 0, 10, 10] = float("nan")
    back = refine_gaussians(case.wrong, bad, case.given, 2)
    assert all(torch.equal(a, b) for a, b in zip(back.tensors(), case.wrong.tensors()))
