"""LGM's network against the reference outputs under deterministic weights, and against the published key lists."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bozzetto import Cameras
from bozzetto.systems.lgm.blocks import DownBlock, MidBlock, MVAttention, ResnetBlock, UpBlock
from bozzetto.systems.lgm.heads import activate_lgm, lgm_head
from bozzetto.systems.lgm.inputs import lgm_inputs
from bozzetto.systems.lgm.network import LGM, LGMConfig
from bozzetto.systems.lgm.presets import MINI, preset

TOLERANCE = 1e-4  # absolute, stated by the reference data
MICRO = LGMConfig(
    input_size=32,
    down_channels=(32, 32, 64, 64),
    down_attention=(False, False, True, True),
    up_channels=(64, 64, 32),
    up_attention=(True, True, False),
    splat_size=16,
    output_size=32,
)


def ring(batch: int) -> Cameras:
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0])
    return Cameras.cat([cameras[None]] * batch)


@pytest.mark.parametrize("name", ["big", "small", "tiny"])
def test_state_dict_has_the_published_keys(shared, name):
    manifest = json.loads((shared / f"parity/lgm/manifest_lgm_{name}.json").read_text())
    with torch.device("meta"):
        model = LGM(preset(name))
    ours = [(k, list(v.shape)) for k, v in model.state_dict().items()]
    assert ours == [(e["key"], e["shape"]) for e in manifest["entries"]]


def test_parameter_counts():
    def count(config: LGMConfig) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in LGM(config).parameters())

    assert count(preset("big")) == 415_042_848
    assert count(preset("small")) == 412_958_240
    assert count(preset("tiny")) == 59_743_360
    assert 9e6 < count(MINI) < 12e6


BLOCKS = {
    "resnet_same": lambda: ResnetBlock(32, 32),
    "resnet_change": lambda: ResnetBlock(32, 64),
    "resnet_up": lambda: ResnetBlock(32, 64, resample="up"),
    "resnet_down": lambda: ResnetBlock(32, 64, resample="down"),
}


@pytest.mark.parametrize("name", list(BLOCKS))
def test_residual_blocks(shared, fill, name):
    golden = np.load(shared / "parity/lgm/lgm_blocks.npz")
    block = BLOCKS[name]()
    fill.fill_module(block)
    shape = (4, 32, 4, 4) if name == "resnet_up" else (4, 32, 8, 8)
    with torch.no_grad():
        out = block(torch.from_numpy(fill.test_input(f"blocks/{name}", shape, -1.0, 1.0)))
    assert np.abs(out.numpy() - golden[name]).max() < TOLERANCE


def test_attention_and_level_blocks(shared, fill):
    golden = np.load(shared / "parity/lgm/lgm_blocks.npz")

    def x(name, *shape):
        return torch.from_numpy(fill.test_input(f"blocks/{name}", shape, -1.0, 1.0))

    attention, down, mid = MVAttention(64, 16), DownBlock(32, 64), MidBlock(64)
    # The reference block was wired with the previous level's 32 channels: all three skips have 32.
    up = UpBlock(64, 32, 32)
    for block in (attention, down, mid, up):
        fill.fill_module(block)
    with torch.no_grad():
        got = {
            "mv_attention": attention(x("mv_attention", 4, 64, 4, 4), 4),
            "mid_block": mid(x("mid_block", 4, 64, 4, 4), 4),
            "up_block": up(x("up_block.x", 4, 64, 2, 2), [x(f"up_block.skip{i}", 4, 32, 2, 2) for i in range(3)], 4),
        }
        got["down_block.x"], skips = down(x("down_block", 4, 32, 8, 8), 4)
    got |= {f"down_block.skip{i}": s for i, s in enumerate(skips)}
    for name, value in got.items():
        assert np.abs(value.numpy() - golden[name]).max() < TOLERANCE, name


@pytest.fixture(scope="module")
def micro(shared, fill):
    model = LGM(MICRO).eval()
    fill.fill_module(model)
    images = torch.from_numpy(fill.test_input("micro/images", (2, 4, 3, 32, 32), 0.0, 1.0))
    with torch.no_grad():
        inputs = lgm_inputs(images, ring(2), 32)
        unet = model.unet(inputs.flatten(0, 1), 4)
        raw = model(inputs)
    return model, inputs, unet, raw


def test_whole_micro_network(shared, micro):
    golden = np.load(shared / "parity/lgm/lgm_micro.npz")
    _, inputs, unet, raw = micro
    assert np.abs(inputs.numpy() - golden["input"]).max() < 1e-6
    assert np.abs(unet.numpy() - golden["unet_raw"]).max() < TOLERANCE
    assert np.abs(raw.flatten(0, 1).numpy() - golden["after_1x1"]).max() < TOLERANCE
    assert np.abs(activate_lgm(raw).numpy() - golden["gaussians"]).max() < TOLERANCE


def test_legacy_rotation(shared, micro):
    golden = np.load(shared / "parity/lgm/lgm_micro_legacy_rotation.npz")["rotation"]
    raw = micro[3]
    assert np.abs(activate_lgm(raw, "legacy")[..., 7:11].numpy() - golden).max() < 1e-6
    quats = lgm_head(raw, "legacy").quats  # made drawable: unit length, close to no rotation
    assert torch.allclose(quats.norm(dim=-1), torch.ones(2, 1024), atol=1e-6)
    assert float(quats[..., 0].min()) > 0.99


def test_input_channels_resize_and_normalise(shared, fill):
    golden = np.load(shared / "parity/lgm/lgm_input.npz")["input"]
    views = torch.from_numpy(fill.test_input("input/mv", (4, 40, 40, 3), 0.0, 1.0)).permute(0, 3, 1, 2)
    got = lgm_inputs(views[None], ring(1), 32)[0]
    assert np.abs(got.numpy() - golden).max() < 2e-6


@pytest.mark.parametrize("views", range(1, 9))
def test_any_number_of_views(micro, views):
    model = micro[0]
    cameras = Cameras.orbit([45.0 * i for i in range(views)])[None]
    with torch.no_grad():
        raw = model(lgm_inputs(torch.rand(1, views, 3, 32, 32), cameras, 32))
    assert raw.shape == (1, views, 14, 16, 16) and bool(torch.isfinite(raw).all())
    assert lgm_head(raw).batch_shape == (1,) and len(lgm_head(raw)) == views * 256


def test_attention_reaches_across_views_but_not_across_objects(micro):
    model, inputs = micro[0], micro[1]
    changed = inputs.clone()
    changed[0, 1] += 0.5
    with torch.no_grad():
        before, after = model(inputs), model(changed)
    assert float((before[0, 3] - after[0, 3]).abs().max()) > 1e-3
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(micro, dtype):
    model, inputs, _, raw = micro
    with torch.no_grad(), torch.autocast("cpu", dtype):
        half = model(inputs).float()
    relative = float((half - raw).norm() / raw.norm())
    assert relative < (3e-2 if dtype == torch.bfloat16 else 5e-3)


def test_wrong_input_shape_is_named():
    model = LGM(MICRO)
    with pytest.raises(ValueError, match="multiples of 8"):
        model(torch.zeros(1, 1, 9, 30, 30))


def test_arithmetic_by_network(monkeypatch):
    """Where the accelerator's default is bf16, LGM still computes as published: positions near 1 would lose a pixel."""
    from bozzetto.systems.lgm import reconstruct as module

    monkeypatch.setattr(module, "autocast_dtype", lambda device: torch.bfloat16)
    seen = {}
    for name, config in (("lgm", MICRO), ("mini", preset("debug"))):
        model = LGM(config).eval()
        model.conv.register_forward_hook(lambda *args, name=name: seen.__setitem__(name, args[-1].dtype))
        cameras = Cameras.orbit([0.0, 90.0], 0.0, 1.5, 49.1)[None]
        module.reconstruct(model, torch.rand(1, 2, 4, 32, 32), cameras)
    assert seen == {"lgm": torch.float32, "mini": torch.bfloat16}
