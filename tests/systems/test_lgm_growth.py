"""A deeper network that starts as a smaller, trained one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bozzetto.errors import CheckpointError
from bozzetto.systems.lgm.checkpoint import save_lgm
from bozzetto.systems.lgm.growth import grown
from bozzetto.systems.lgm.inputs import PICTURE
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.plane_sweep import sweep_planes
from bozzetto.systems.lgm.presets import preset
from bozzetto.systems.lgm.recipe import MiniRecipe

SMALL = preset("debug-sweep")
SEVERAL = replace(SMALL, down_channels=(32, 64, 64), down_attention=(False, True, True), splat_size=16)
SEVERAL = replace(SEVERAL, up_channels=(64, 64, 32), up_attention=(True, True, False))


def trained(config) -> LGM:
    """Random weights of ordinary sizes; no layer is special."""
    torch.manual_seed(1)
    network = LGM(config)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network


@pytest.mark.parametrize("layers", [(1, 2), (1, 1), (2, 2), (2, 3)], ids=["deeper", "as deep", "two", "three"])
@pytest.mark.parametrize("config", [SMALL, SEVERAL], ids=["two levels", "three levels"])
def test_a_grown_network_does_what_the_small_one_did(config, layers):
    config = replace(config, layers_per_block=layers[0])
    small = trained(config)
    bigger = replace(config, layers_per_block=layers[1], in_channels=20, slots=5)
    torch.manual_seed(2)
    large = LGM(bigger)
    large.load_state_dict(grown(small.state_dict(), config, bigger))
    if layers[1] > layers[0]:
        assert sum(p.numel() for p in large.parameters()) > 1.2 * sum(p.numel() for p in small.parameters())
    x = torch.randn(1, 5, 20, 32, 32)
    with torch.no_grad():
        want, made = small(x[:, :, :15]), large(x)
    assert float((made - want).norm() / want.norm()) < 0.02
    # and all of it can learn: no gradient but those behind a zero layer is zero
    large(x).square().mean().backward()
    moving = [n for n, p in large.named_parameters() if p.grad is not None and bool(p.grad.any())]
    assert any(f"nets.{layers[1] - 1}.conv2.weight" in n for n in moving) and "conv.weight" in moving


def test_more_depths_on_each_ray_and_details_change_nothing_where_the_evidence_is_smooth():
    small = trained(SMALL)
    finer = replace(SMALL, detail=32, candidates=128, in_channels=PICTURE + sweep_planes(128))
    torch.manual_seed(2)
    large = LGM(finer)
    large.load_state_dict(grown(small.state_dict(), SMALL, finer))
    picture = torch.randn(1, 4, PICTURE, 32, 32)
    # evidence that is linear along the ray: interpolated, it says the same at every number of depths, but there is more of it
    slope, start = torch.randn(2, 1, 4, 2, 1, 8, 8)

    def along(depths: int, scale: float) -> torch.Tensor:
        numbers = scale * (start + slope * torch.linspace(-1, 1, depths)[:, None, None])  # [1, 4, 2, D, 8, 8]
        return torch.cat([picture, F.pixel_shuffle(numbers.flatten(2, 3), 4)], dim=2)

    with torch.no_grad():
        want, made = small(along(32, 1.0)), large(along(128, 1.0))
        without, other = small(along(32, 0.0)), large(along(128, 0.0))
    assert float((made - want).norm() / want.norm()) < 1e-4 and torch.allclose(without, other, atol=1e-5)
    assert float((want - without).norm() / want.norm()) > 0.05  # the evidence says something
    large(along(128, 1.0)).square().mean().backward()
    assert bool(large.detail.conv_out.weight.grad.any())


def test_only_more_layers_and_inputs_can_grow():
    small = trained(SMALL)
    with pytest.raises(CheckpointError, match="nothing else"):
        grown(small.state_dict(), SMALL, replace(SMALL, splat_size=8, unpatch=1))
    with pytest.raises(CheckpointError, match="nothing else"):
        grown(small.state_dict(), SMALL, replace(SMALL, token_layers=3))
    with pytest.raises(CheckpointError, match="not of the network"):
        grown({}, SMALL, replace(SMALL, layers_per_block=2))


def test_a_run_starts_from_a_smaller_networks_file(tmp_path):
    from bozzetto.training.checkpoint import load_training_state
    from bozzetto.zoo.loading import read_tensors

    small = trained(SMALL)
    save_lgm(small, tmp_path / "small.safetensors", dtype=torch.float32)
    recipe = MiniRecipe(preset="debug-detail", batch_size=1)
    model, ema = recipe.build(), recipe.build()
    load_training_state(tmp_path / "small.safetensors", model, ema, None, adapt=recipe.starting_weights)
    x = torch.zeros(1, 5, recipe.config.in_channels, 32, 32)
    x[:, :, :PICTURE] = torch.randn(1, 5, PICTURE, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(x), small(x[:, :, :15]), atol=1e-4) and torch.equal(model(x), ema(x))
    same = MiniRecipe(preset="debug-sweep", batch_size=1)
    weights = read_tensors(tmp_path / "small.safetensors")
    assert same.starting_weights(weights) is weights
    with pytest.raises(CheckpointError):
        MiniRecipe(preset="debug-tokens", batch_size=1).starting_weights(weights)


def test_the_command_line_trains_every_network_with_a_ray_head():
    from bozzetto.app.commands.train import MINI_PRESETS
    from bozzetto.systems.lgm.presets import PRESETS

    assert list(MINI_PRESETS) == [name for name, config in PRESETS.items() if config.head == "ray"]
