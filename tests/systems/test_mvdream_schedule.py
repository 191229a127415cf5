"""Schedules and solvers: against the published arrays, against diffusers, and against an exact solution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from bozzetto.errors import CheckpointError, InputError
from bozzetto.systems.mvdream.schedule import (
    DDIM,
    DPMSolver,
    NoiseSchedule,
    ddim_update,
    linear_steps,
    make_solver,
    predict_x0,
)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
# What a diffusers scheduler_config.json of these models says.
PUBLISHED = {**BETAS, "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False, "prediction_type": "epsilon"}


def test_schedule_and_ddim_match_the_published_arrays(shared, fill):
    arrays = np.load(shared / "parity" / "lgm" / "ddim.npz")
    schedule = NoiseSchedule()
    np.testing.assert_allclose(schedule.betas, arrays["betas"], rtol=1e-6)
    np.testing.assert_allclose(schedule.alphas_cumprod, arrays["alphas_cumprod"], rtol=1e-6)
    np.testing.assert_allclose(schedule.alphas_cumprod[0], arrays["final_alpha_cumprod"][0], rtol=1e-6)
    for steps in (30, 50, 7):
        assert DDIM(schedule, steps).timesteps == arrays[f"timesteps_{steps}"].tolist()
    x, eps = (torch.from_numpy(fill.test_input(f"ddim/{n}", (2, 4, 4, 4), -(3**0.5), 3**0.5)) for n in ("x", "eps"))
    for index in (0, 15, 29):
        ours, memory = DDIM(schedule, 30).step(index, x, eps)
        np.testing.assert_allclose(ours, arrays[f"step_30_index{index}"], rtol=1e-6, atol=2e-6)
        assert memory is None


def run(solver, x, network):
    memory = None
    for index, timestep in enumerate(solver.timesteps):
        x, memory = solver.step(index, x, network(x, timestep), memory)
    return x


@pytest.mark.parametrize(("name", "steps"), [("ddim", 30), ("ddim", 1), ("dpm++", 12), ("dpm++", 1)])
def test_steps_as_numbers_are_the_solvers_steps(name, steps):
    solver = make_solver(name, NoiseSchedule(), steps)
    numbers = linear_steps(solver)
    assert numbers.shape == (steps, 6)
    memory, past = None, torch.zeros(5, dtype=torch.float64)
    for index, (a, b, c, d, e, f) in enumerate(numbers):
        x, eps = torch.randn(2, 5, dtype=torch.float64)
        wanted, memory = solver.step(index, x, eps, memory)
        torch.testing.assert_close(a * x + b * eps + c * past, wanted, atol=1e-12, rtol=1e-12)
        past = d * x + e * eps + f * past
        torch.testing.assert_close(past, torch.zeros(5).double() if memory is None else memory, atol=1e-12, rtol=1e-12)


def curved(x: torch.Tensor, timestep: int) -> torch.Tensor:
    """A network that is not linear in anything."""
    return torch.sin(2 * x + timestep / 300) + 0.3 * x


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 15, 20, 33])
def test_dpm_solver_matches_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
    )
    ours = DPMSolver(NoiseSchedule(), steps)
    theirs.set_timesteps(timesteps=ours.timesteps)
    assert ours.timesteps == theirs.timesteps.tolist()
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = start.clone()
    for timestep in theirs.timesteps:
        expected = theirs.step(curved(expected, int(timestep)), timestep, expected).prev_sample
    torch.testing.assert_close(run(ours, start, curved), expected, rtol=1e-4, atol=1e-4)


def test_few_steps_are_placed_as_in_the_paper():
    aligned = pytest.importorskip("diffusers.schedulers").AysSchedules["StableDiffusionTimesteps"]
    assert DPMSolver(NoiseSchedule(), 10).timesteps == aligned
    for steps in (1, 2, 7, 30, 200, 999):
        timesteps = DPMSolver(NoiseSchedule(), steps).timesteps
        assert len(timesteps) == steps and timesteps[0] == 999 and timesteps[-1] >= 0
        assert all(a > b for a, b in itertools.pairwise(timesteps))


@pytest.mark.parametrize("steps", [1, 3, 30, 64])
def test_ddim_matches_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(**PUBLISHED, timestep_spacing="leading")
    theirs.set_timesteps(steps)
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = start.clone()
    for timestep in theirs.timesteps:
        expected = theirs.step(curved(expected, int(timestep)), timestep, expected, eta=0.0).prev_sample
    torch.testing.assert_close(run(DDIM(NoiseSchedule(), steps), start, curved), expected, rtol=1e-4, atol=1e-4)


def test_ten_steps_of_dpm_solver_are_nearer_to_the_truth_than_thirty_of_ddim():
    """For data ~ N(0, s^2) the exact noise is linear in x, and the exact path ends at x_T s / sqrt(alpha^2 s^2 + sigma^2)."""
    schedule, s = NoiseSchedule(), 0.5

    def variance(timestep: int) -> float:
        a = schedule.alphas_cumprod[timestep].item()
        return a * s * s + 1 - a

    def exact(x: torch.Tensor, timestep: int) -> torch.Tensor:
        return x * math.sqrt(1 - schedule.alphas_cumprod[timestep].item()) / variance(timestep)

    x = torch.tensor([1.0], dtype=torch.float64)

    def error(solver) -> float:
        return abs(run(solver, x, exact).item() / (s / math.sqrt(variance(solver.timesteps[0]))) - 1)

    assert error(DPMSolver(schedule, 10)) < 0.5 * error(DDIM(schedule, 30))
    assert error(DPMSolver(schedule, 40)) < error(DPMSolver(schedule, 10)) < 0.05


def test_noise_is_added_and_taken_away_again():
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(3, 4, 2, 2, generator=generator), torch.randn(3, 4, 2, 2, generator=generator)
    noisy = schedule.add_noise(x0, noise, torch.tensor([0, 500, 999]))
    for row, timestep in enumerate((0, 500, 999)):
        alpha = schedule.alphas_cumprod[timestep].item()
        torch.testing.assert_close(predict_x0(noisy[row], noise[row], alpha), x0[row], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ddim_update(noisy[row], noise[row], alpha, 1.0), x0[row], rtol=1e-4, atol=1e-4)


def test_published_config_and_others():
    schedule = NoiseSchedule.from_config({**PUBLISHED, "_class_name": "DDIMScheduler"})
    assert torch.equal(schedule.alphas_cumprod, NoiseSchedule().alphas_cumprod)
    for other in ({"prediction_type": "v_prediction"}, {"beta_schedule": "linear"}):
        with pytest.raises(CheckpointError, match=next(iter(other))):
            NoiseSchedule.from_config({**PUBLISHED, **other})


@pytest.mark.parametrize("steps", [0, -1, 1000, 2.5, True])
def test_impossible_numbers_of_steps(steps):
    for name in ("ddim", "dpm++"):
        with pytest.raises(InputError, match="steps"):
            make_solver(name, NoiseSchedule(), steps)


def test_unknown_solver():
    with pytest.raises(InputError, match="ddim, dpm"):
        make_solver("euler", NoiseSchedule(), 10)
