"""Light of surroundings: the polynomial against the integral it stands for, and what random surroundings promise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from render_shapes import sphere

from bozzetto.camera import Cameras
from bozzetto.data.render import Lights, SceneBatch, render_objects
from bozzetto.data.render.environment import (
    FLOOR,
    even_directions,
    measured_environments,
    polynomial,
    random_environments,
    received,
    turned,
)


def test_polynomial_is_the_cosine_weighted_mean_of_the_surroundings():
    directions = even_directions(20_000)
    sky = torch.stack(
        [1 + directions[:, 1], (directions @ torch.tensor([0.6, 0.0, 0.8])).clamp_min(0) ** 2], -1
    )  # [N, 2]
    normals = F.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    cosine = (normals @ directions.T).clamp_min(0)
    exact = cosine @ sky * (4 / len(directions))  # 1 for surroundings of 1
    assert torch.allclose(polynomial(normals) @ received(sky, directions), exact, atol=0.02)


def test_turning_takes_front_to_the_right():
    directions = even_directions(5000)
    front = received((directions[:, 2:] > 0.9).float(), directions)[None]  # [1, 9, 1]
    right = turned(front, torch.tensor([math.pi / 2]))
    axes = torch.tensor([[0.0, 0, 1], [1.0, 0, 0]])
    before, after = (polynomial(axes) @ x[0] for x in (front, right))
    assert torch.allclose(before, after.flip(0), atol=1e-3) and before[0] > before[1]


def test_turned_surroundings_are_the_old_ones_seen_from_the_side():
    generator = torch.Generator().manual_seed(4)
    some, angle = torch.randn(5, 9, 3, generator=generator), torch.rand(5, generator=generator) * 6
    normals = even_directions(50)
    c, s = angle.cos(), angle.sin()
    zero, one = torch.zeros(5), torch.ones(5)
    turn = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).view(5, 3, 3)  # +z goes to +x
    there = torch.einsum("bij,nj->bni", turn, normals)
    assert torch.allclose(polynomial(there) @ turned(some, angle), polynomial(normals) @ some, atol=1e-5)


def test_random_surroundings_repeat_exactly():
    def made(k: int) -> torch.Tensor:
        return random_environments(2, torch.Generator().manual_seed(k))

    first = [made(k) for k in range(20)]
    assert all(torch.equal(made(k), first[k]) for k in reversed(range(20)))


def test_random_surroundings_are_bounded_and_varied():
    made = random_environments(64, torch.Generator().manual_seed(1))
    light = torch.einsum("nk,bkc->bnc", polynomial(even_directions()), made)
    assert light.amax((1, 2)).allclose(torch.ones(64), atol=1e-4) and light.min() > 0.9 * FLOOR
    assert made[:, 0].std(0).min() > 0.05
    assert measured_environments().shape[1:] == (9, 3) and len(measured_environments()) > 20


def test_a_ball_shows_the_light_of_its_normals():
    ball = sphere(40, 60)
    ball.textures[0][...] = 255
    ball.base_colors[...] = 1
    lights = Lights.default(1)
    for part in (lights.ambient, lights.sky, lights.ground, lights.colors):
        part.zero_()
    lights.environment = random_environments(1, torch.Generator().manual_seed(2))
    views = render_objects(SceneBatch.pack([ball]), Cameras.orbit([40.0]), 48, lights, supersample=1)
    inside = views.rgba[0, 0, ..., 3] == 1
    goal = polynomial(views.normals[0, 0][inside]) @ lights.environment[0]
    assert torch.allclose(views.rgba[0, 0, ..., :3][inside], goal, atol=2e-3)
