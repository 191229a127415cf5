"""Stable Diffusion's network in the multi-view one against the published class, with the same weights."""

from __future__ import annotations

import pytest
import torch
from micro_gaussian_dreamer import UNET

from bozzetto.errors import CheckpointError
from bozzetto.nn.layout import for_inference
from bozzetto.systems.gaussian_dreamer.stable_diffusion import network_config, network_keys
from bozzetto.systems.mvdream.network import MultiViewUNet

FOUR = {  # the published shape in small: four levels, the last without attention, two layers
    "block_out_channels": [32, 64, 64, 64],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "attention_head_dim": [2, 4, 4, 4],
}
FIRST = {
    "attention_head_dim": 8,
    "use_linear_projection": False,
}  # Stable Diffusion 1: eight heads everywhere, convolutions


@pytest.mark.parametrize("change", [{}, FOUR, FIRST, FOUR | FIRST], ids=["micro", "2.1", "micro 1.5", "1.5"])
def test_noise_is_that_of_the_published_class(change):
    diffusers = pytest.importorskip("diffusers")
    config = {**UNET, **change}
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel.from_config(config).eval().requires_grad_(False)
    for tensor in theirs.parameters():
        if tensor.dim() == 1:
            tensor += 0.1 * torch.randn_like(tensor)
    shape = network_config(config)
    ours = MultiViewUNet(shape)
    ours.load_state_dict(network_keys(theirs.state_dict(), shape))
    x, context = torch.randn(3, 4, 16, 8), torch.randn(3, 7, 48)
    t = torch.tensor([3, 500, 999])
    wanted = theirs(x, t, encoder_hidden_states=context).sample
    ours = for_inference(ours)
    torch.testing.assert_close(ours(x, t, context, views=1), wanted, atol=2e-5, rtol=0)
    # One picture does not see another.
    torch.testing.assert_close(ours(x[1:2], t[1:2], context[1:2], views=1), wanted[1:2], atol=2e-5, rtol=0)


def test_the_published_shape_has_the_published_number_of_parameters():
    config = {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": [5, 10, 20, 20]}
    shape = network_config(config | {"cross_attention_dim": 1024, "use_linear_projection": True})
    assert shape.num_head_channels == 64 and shape.attention_resolutions == (1, 2, 4)
    with torch.device("meta"):
        assert sum(p.numel() for p in MultiViewUNet(shape).parameters()) == 865_910_724


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"addition_embed_type": "text_time"}, "addition_embed_type"),
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "AttnDownBlock2D"),
        ({"block_out_channels": [32, 48], "attention_head_dim": [2, 3]}, "not Stable Diffusion's"),
        ({"attention_head_dim": [2, 8]}, "heads"),
        ({"transformer_layers_per_block": 2}, "SDXL"),
    ],
)
def test_other_networks_are_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        network_config({**UNET, **change})
