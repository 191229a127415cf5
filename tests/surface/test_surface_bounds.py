"""The object's box in spite of floaters, backdrops, scale and place."""

import pytest
import shapes
import torch

from bozzetto.errors import MeshError
from bozzetto.gaussians import Gaussians
from bozzetto.surface.bounds import normalise_object


def blob(position, scale: float = 0.02, opacity: float = 0.9) -> Gaussians:
    identity = torch.tensor([[1.0, 0, 0, 0]])
    return Gaussians.from_rgb(
        torch.tensor([position], dtype=torch.float32), torch.full((1, 3), scale), identity, torch.tensor([opacity]),
        torch.rand(1, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def ball() -> Gaussians:
    return shapes.sphere(5000).gaussians()


def test_box_of_a_clean_object(ball):
    found = normalise_object(ball)
    assert found.scale == pytest.approx(0.5 * 3**0.5, rel=0.06)
    assert float(found.half_extent.norm()) == pytest.approx(1, abs=1e-5)
    back = found.to_world(found.gaussians.means)
    assert torch.allclose(back, ball.means, atol=1e-5)


@pytest.mark.parametrize("position", [(9.0, 0, 0), (1e15, -1e15, 0), (0, 0.9, 0)])
def test_floaters_are_dropped(ball, position):
    found = normalise_object(Gaussians.cat([ball, blob(position)]))
    assert len(found.gaussians) == len(ball)


def test_backdrops_are_dropped(ball):
    assert len(normalise_object(Gaussians.cat([ball, blob((0, 0, 0), 500.0)])).gaussians) == len(ball)


def test_a_second_body_is_kept(ball):
    other = ball.transformed(torch.tensor([[1.0, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert len(normalise_object(Gaussians.cat([ball, other])).gaussians) == 2 * len(ball)


def test_thin_parts_are_kept():
    """A pole with 1 % of the splats sticks out of a ball."""
    ball, pole = shapes.sphere(20000).gaussians(), shapes.boxes([((0, 0.8, 0), (0.01, 0.35, 0.01))], 200).gaussians()
    assert len(normalise_object(Gaussians.cat([ball, pole])).gaussians) == len(ball) + len(pole)


def test_unusable_gaussians(ball):
    broken = ball._map(torch.clone)
    broken.means[0] = torch.nan
    broken.scales[1] = torch.inf
    broken.sh[2] = torch.nan
    broken.quats[3] = 0
    broken.opacities[4] = 0
    assert len(normalise_object(broken).gaussians) == len(ball) - 5
    for nothing in (Gaussians.empty(), blob((0, 0, 0), opacity=0.001), blob((0, 0, 0), scale=0.0)):
        with pytest.raises(MeshError, match="no surface to mesh"):
            normalise_object(nothing)
    with pytest.raises(MeshError, match="pick one of the batch"):
        normalise_object(ball._map(lambda t: t[None]))


def test_an_object_that_float32_cannot_hold_is_refused(ball):
    far = ball._map(torch.clone)
    far.means += 1e6
    with pytest.raises(MeshError, match="move it to the origin"):
        normalise_object(far)
    far.means[:] = ball.means + 1e3
    assert len(normalise_object(far).gaussians) == len(ball)
