"""The diffusion models as priors: loading, prompts, gradients through the encoder, cameras."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bozzetto import Cameras
from bozzetto.errors import CheckpointError, InputError
from bozzetto.systems.gaussian_dreamer.diffusion_prior import (
    load_mvdream_prior,
    load_stable_diffusion,
    mvdream_cameras,
    token_counter,
)
from bozzetto.systems.gaussian_dreamer.prompts import fit_prompt, suffix
from bozzetto.systems.mvdream.cameras import diffusion_cameras

pytest.importorskip("diffusers")
sys.path.insert(0, str(Path(__file__).resolve().parent))
from micro_gaussian_dreamer import write_micro_gaussian_dreamer
from micro_mvdream import write_micro_mvdream


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("priors")
    return {**write_micro_gaussian_dreamer(folder), **write_micro_mvdream(folder / "mvdream")}


@pytest.fixture(scope="module")
def sd(folders):
    return load_stable_diffusion(folders["sd21-base"])


def test_the_four_directions_get_texts_of_their_own(sd):
    texts, used = sd.embed("a red cat", "ugly")
    assert used == "a red cat" and texts.text.shape == texts.negative.shape == (4, 77, 48)
    distances = torch.cdist(texts.text.flatten(1), texts.text.flatten(1))
    assert float((distances + 10 * torch.eye(4)).min()) > 0.1
    assert torch.equal(texts.negative[0], texts.negative[3])
    other, _ = sd.embed("a red dog", "ugly")
    assert not torch.equal(texts.text, other.text) and torch.equal(texts.negative, other.negative)


@pytest.mark.parametrize("prompt", ["cat " * 300, "猫" * 500, "a" * 9000, "cat"])
def test_a_long_prompt_leaves_room_for_the_direction(sd, prompt):
    count = token_counter(sd.tokenizer)
    used = fit_prompt(prompt.strip(), count, 77)
    assert prompt.startswith(used) and used
    assert all(count(used + suffix(d)) <= 77 for d in ("side", "front", "back", "overhead"))
    assert used == prompt.strip() or count(used + prompt[len(used) : len(used) + 8] + suffix("overhead")) > 77
    texts, _ = sd.embed(prompt.strip(), "")
    assert not torch.equal(texts.text[1], texts.text[2])


def gradient(prior, rgb: torch.Tensor, noise: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rgb = rgb.clone().requires_grad_()
    latents = prior.encode(rgb, noise)
    (latents * weights).sum().backward()
    return latents.detach(), rgb.grad


def test_gradients_through_the_encoder(folders, sd):
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, sd.size, sd.size, generator=generator)
    noise, weights = (torch.randn(sd.latent_shape(2), generator=generator) for _ in range(2))
    latents, plain = gradient(sd, rgb, noise, weights)
    assert latents.dtype == torch.float32 and float(plain.abs().max()) > 0
    mean, std = sd.vae.encode(rgb * 2 - 1)
    assert torch.allclose(latents, (mean + std * noise) * 0.18215, atol=1e-5)
    # against a difference quotient
    step = torch.randn(rgb.shape, generator=generator)
    moved = [(sd.encode(rgb + s * 1e-2 * step, noise) * weights).sum().item() for s in (1, -1)]
    assert (moved[0] - moved[1]) / 2e-2 == pytest.approx((plain * step).sum().item(), rel=2e-2)
    sd.save_memory = True
    less, same = gradient(sd, rgb, noise, weights)
    sd.save_memory = False
    assert torch.allclose(less, latents, atol=1e-5) and torch.allclose(same, plain, atol=1e-5)
    half = load_stable_diffusion(folders["sd21-base"], dtype=torch.float16)
    tiny = 1e-6  # under this the gradients inside would be zero in float16 without the scale
    _, scaled = gradient(half, rgb, noise, tiny * weights)
    assert float((scaled / tiny - plain).norm() / plain.norm()) < 0.15


def test_noise_is_predicted_per_text(sd):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    texts, _ = sd.embed("a red cat", "ugly")
    predict = sd.epsilon(Cameras.orbit([0.0, 90.0]))
    with torch.no_grad():
        a = predict(x, torch.tensor([100, 500]), texts.text[:2])
        b = predict(x, torch.tensor([100, 500]), texts.negative[:2])
        swapped = predict(x.flip(0), torch.tensor([500, 100]), texts.text[:2].flip(0))
    assert a.shape == x.shape and not torch.allclose(a, b, atol=1e-4)
    assert torch.allclose(swapped.flip(0), a, atol=1e-5)


def test_mvdream_sees_the_front_at_its_azimuth_90():
    ring = Cameras.orbit([-90.0, 0.0, 90.0, 180.0], 20.0, 3.0)
    assert torch.allclose(mvdream_cameras(ring), diffusion_cameras(20.0), atol=1e-5)


def test_mvdream_views_see_each_other(folders):
    prior = load_mvdream_prior(folders["mvdream"])
    texts, _ = prior.embed("a red cat", "ugly")
    assert torch.equal(texts.text[0], texts.text[2])
    x = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 10.0, 3.0)
    t, context = torch.full((8,), 300), torch.cat([texts.text, texts.negative])
    changed = x.clone()
    changed[1] += 1
    with torch.no_grad():
        predict = prior.epsilon(cameras)
        before, after = predict(x, t, context), predict(changed, t, context)
        turned = prior.epsilon(Cameras.orbit([45.0, 135.0, 225.0, 315.0], 10.0, 3.0))(x, t, context)
    assert float((before - after)[3].abs().max()) > 1e-4 and torch.equal(before[4:], after[4:])
    assert not torch.allclose(before, turned, atol=1e-4)


def test_the_wrong_folder_is_named(folders, tmp_path):
    with pytest.raises(CheckpointError, match="multi-view diffusion model"):
        load_stable_diffusion(folders["mvdream"])
    with pytest.raises(CheckpointError, match="UNet2DConditionModel"):
        load_mvdream_prior(folders["sd21-base"])
    with pytest.raises(InputError, match="ImageDream"):
        load_mvdream_prior(folders["imagedream"])
    with pytest.raises(CheckpointError, match="no folder"):
        load_stable_diffusion(tmp_path / "none")
