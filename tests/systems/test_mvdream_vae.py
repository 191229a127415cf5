"""The autoencoder against the published class, with the same weights: values, gradients, names."""

from __future__ import annotations

import pytest
import torch
from micro_mvdream import VAE as CONFIG

from bozzetto.errors import CheckpointError
from bozzetto.nn.layout import for_inference
from bozzetto.systems.mvdream.vae import VAE, VAEConfig

WIDER = {
    **CONFIG,
    "block_out_channels": [32, 64, 64],
    "layers_per_block": 2,
    "down_block_types": CONFIG["down_block_types"][:3],
    "up_block_types": CONFIG["up_block_types"][:3],
}


def pair(config: dict) -> tuple[torch.nn.Module, VAE]:
    """(theirs, ours) with one set of random weights, as strict loading allows."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL.from_config(config).eval().requires_grad_(False)
    for tensor in theirs.parameters():
        tensor.copy_(0.1 * torch.randn_like(tensor) + (tensor if tensor.dim() == 1 else 0))
    ours = VAE(VAEConfig.from_config(config)).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("config", [CONFIG, WIDER], ids=["four levels", "three levels"])
@pytest.mark.parametrize("laid_out", [False, True])
def test_values_and_gradients_are_the_published_ones(config, laid_out):
    theirs, ours = pair(config)
    if laid_out:
        ours = for_inference(ours)
    picture = (2 * torch.rand(2, 3, 48, 32) - 1).requires_grad_()
    posterior = theirs.encode(picture).latent_dist
    (wanted,) = torch.autograd.grad((posterior.mean + posterior.std).square().sum(), picture)
    mean, std = ours.encode(picture)
    (gradient,) = torch.autograd.grad((mean + std).square().sum(), picture)
    torch.testing.assert_close(mean, posterior.mean, atol=2e-5, rtol=0)
    torch.testing.assert_close(std, posterior.std, atol=2e-5, rtol=0)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-4
    latent = torch.randn(1, 4, 4, 6)
    torch.testing.assert_close(ours.decode(latent), theirs.decode(latent).sample, atol=1e-4, rtol=0)
    assert picture.shape[2] == mean.shape[2] * ours.factor


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_a_gpu_follows_the_cpu():
    torch.manual_seed(0)
    ours = VAE(VAEConfig(block_out_channels=(64, 64, 128, 128)))
    picture, latent = 2 * torch.rand(2, 3, 128, 128) - 1, torch.randn(2, 4, 16, 16)

    def run(module: VAE, x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = x.detach().requires_grad_()
        mean, std = module.encode(x)
        (gradient,) = torch.autograd.grad((mean.float() + std.float()).square().sum(), x)
        return mean.detach(), std.detach(), gradient, module.decode(z).detach()

    wanted = run(ours.requires_grad_(False), picture, latent)
    on_gpu = for_inference(ours, "cuda", torch.float16)
    for ours_, wanted_ in zip(run(on_gpu, picture.cuda().half(), latent.cuda().half()), wanted):
        assert float((ours_.cpu().float() - wanted_).norm() / wanted_.norm()) < 0.02


@pytest.mark.parametrize(
    "change", [{"shift_factor": 0.1}, {"use_quant_conv": False}, {"down_block_types": ["AttnDownEncoderBlock2D"]}]
)
def test_other_kinds_are_named(change):
    with pytest.raises(CheckpointError, match=next(iter(change)).replace("down_block_types", "AttnDown")):
        VAEConfig.from_config({**CONFIG, **change})
