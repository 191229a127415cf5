"""L4GM's network against the reference outputs under deterministic weights, and against the published key list."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bozzetto import Cameras
from bozzetto.camera import orbit_poses
from bozzetto.errors import CheckpointError
from bozzetto.nn.moments import Moments, recall, remember
from bozzetto.systems.l4gm.checkpoint import load_l4gm
from bozzetto.systems.l4gm.inputs import between, default_rays, l4gm_inputs, on_white, shrink
from bozzetto.systems.l4gm.network import L4GM, TemporalAttention
from bozzetto.systems.l4gm.repeated import Repeated
from bozzetto.systems.lgm.blocks import MVAttention
from bozzetto.systems.lgm.checkpoint import config_from_shapes, load_lgm, save_lgm
from bozzetto.systems.lgm.heads import activate_lgm
from bozzetto.systems.lgm.network import LGM, LGMConfig
from bozzetto.systems.lgm.presets import BIG, preset

TOLERANCE = 1e-4  # absolute, stated by the reference data for the whole micro network
BLOCK = 5e-6  # the same for single blocks ("about 1e-6")
MICRO = LGMConfig(
    input_size=32,
    down_channels=(32, 64, 64),
    down_attention=(False, True, True),
    up_channels=(64, 64),
    up_attention=(True, False),
    splat_size=16,
    output_size=32,
)


@pytest.fixture(scope="module")
def golden(shared):
    return lambda name: np.load(shared / f"parity/l4gm/{name}.npz")


@pytest.fixture(scope="module")
def micro(fill):
    model = L4GM(MICRO).eval().requires_grad_(False)
    fill.fill_module(model)
    return model


def test_state_dict_has_the_published_keys(shared):
    manifest = json.loads((shared / "parity/l4gm/manifest_big.json").read_text())
    entries = manifest["entries"] if isinstance(manifest, dict) else manifest
    with torch.device("meta"):
        model = L4GM(BIG)
    ours = {k: list(v.shape) for k, v in model.state_dict().items()}
    assert ours == {e["key"]: e["shape"] for e in entries}
    assert len(ours) == 456
    assert sum(v.numel() for v in model.state_dict().values()) == 466_464_544
    assert {k: tuple(s) for k, s in ours.items() if ".t_attns." not in k} == _shapes(LGM, BIG)


def test_micro_key_list(shared, micro):
    entries = json.loads((shared / "parity/l4gm/configs.json").read_text())["micro_manifest"]
    assert {k: list(v.shape) for k, v in micro.state_dict().items()} == {e["key"]: e["shape"] for e in entries}


def test_the_two_attentions(fill, golden):
    x = torch.from_numpy(fill.test_input("l4gm.attn.x", (24, 64, 6, 5), -1.0, 1.0))
    over_time, across_views = TemporalAttention(64), MVAttention(64)
    fill.fill_module(over_time)
    fill.fill_module(across_views)
    with torch.no_grad():
        assert np.abs(over_time(x, 3, 4).numpy() - golden("attention")["temp_out"]).max() < BLOCK
        assert np.abs(across_views(x, 4).numpy() - golden("attention")["mv_out"]).max() < BLOCK


@pytest.mark.parametrize("name, batch, frames", [("micro_t3", 2, 3), ("micro_t1", 1, 1)])
def test_whole_micro_network(fill, golden, micro, name, batch, frames):
    images = torch.from_numpy(fill.test_input(f"l4gm.{name}.images", (batch, frames * 4, 3, 32, 32)))
    inputs = l4gm_inputs(images.unflatten(1, (frames, 4)), MICRO)
    with torch.no_grad():
        unet = micro.unet(inputs.flatten(0, 2), frames, 4)
        raw = micro(inputs)
    assert np.abs(unet.numpy() - golden(name)["unet_raw"]).max() < TOLERANCE
    assert np.abs(activate_lgm(raw.flatten(0, 1)).numpy() - golden(name)["gaussians"]).max() < TOLERANCE


def test_interpolation_model(fill, golden, micro):
    expected = golden("micro_interp")
    frames = torch.from_numpy(fill.test_input("l4gm.interp.frames", (2, 32, 32, 3))).permute(0, 3, 1, 2)
    renders = torch.from_numpy(fill.test_input("l4gm.interp.renders", (2, 4, 32, 32, 3))).permute(0, 1, 4, 2, 3)
    ends = torch.cat([frames[:, None], renders[:, 1:]], dim=1)  # [2, V, 3, S, S]
    clip = between(ends[0], ends[1], 3)
    inputs = l4gm_inputs(clip[None], MICRO)
    with torch.no_grad():
        raw = micro(inputs)
    assert np.abs(clip.permute(0, 1, 3, 4, 2).numpy() - expected["clip"]).max() < 1e-6
    assert np.abs(inputs.flatten(1, 2).numpy() - expected["model_input"]).max() < 2e-6
    assert np.abs(activate_lgm(raw.flatten(0, 1)).numpy() - expected["gaussians"]).max() < TOLERANCE


def test_rays_and_poses(shared, golden):
    expected = golden("cameras")
    assert np.abs(default_rays(MICRO).numpy() - expected["default_rays"]).max() < 2e-6
    listed = json.loads((shared / "parity/l4gm/configs.json").read_text())["cameras"]["orbit_elev_azim"]
    elevation, azimuth = (torch.tensor([float(pair[i]) for pair in listed]) for i in (0, 1))
    # The reference's positive elevation is below the object; ours is above.
    assert np.abs(orbit_poses(azimuth, -elevation).numpy() - expected["orbit_poses"]).max() < 2e-6


def test_time_reaches_every_frame_but_no_other_clip(micro):
    inputs = l4gm_inputs(torch.rand(2, 3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), MICRO)
    changed = inputs.clone()
    changed[0, 2] += 0.5
    with torch.no_grad():
        before, after = micro(inputs), micro(changed)
    assert float((before[0, 0] - after[0, 0]).abs().max()) > 1e-4
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_any_number_of_frames(micro, frames):
    with torch.no_grad():
        raw = micro(l4gm_inputs(torch.rand(1, frames, 4, 3, 32, 32), MICRO))
    assert raw.shape == (1, frames, 4, 14, 16, 16) and bool(torch.isfinite(raw).all())


@pytest.mark.parametrize("batch, frames, same", [(1, 3, 3), (2, 3, 1), (2, 2, 4), (2, 1, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_views_that_do_not_move_are_computed_once(monkeypatch, micro, batch, frames, same, layout):
    pictures = torch.rand(batch, frames, 4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    pictures[:, :, 4 - same :] = pictures[:, :1, 4 - same :]
    inputs = l4gm_inputs(pictures, MICRO)
    seen = []
    hook = micro.unet.conv_in.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with torch.no_grad():
        expected, got = micro(inputs), micro(inputs, same)
    hook.remove()
    assert torch.allclose(got, expected, atol=1e-5) and float(got.std()) > 1e-3
    assert seen == [4 * batch * frames, batch * (frames * (4 - same) + same) if frames > 1 else 4 * batch]


@pytest.mark.parametrize("batch, moving, same", [(1, 1, 3), (2, 3, 1), (2, 0, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_repeated_maps_keep_layout_and_moments(layout, batch, moving, same):
    repeated, count = Repeated(batch, 3, moving, same), batch * 3 * moving
    maps = torch.rand(count + batch * same, 5, 2, 3).contiguous(memory_format=layout)
    moments = Moments(torch.rand(len(maps), 1, 5), torch.rand(len(maps), 1, 5))
    everywhere = repeated.everywhere(remember(maps, moments))
    assert everywhere.is_contiguous(memory_format=layout) and repeated.everywhere(everywhere) is everywhere
    kept = recall(everywhere) if layout is torch.channels_last else ()  # no other layout has any
    for result, distinct in ((everywhere, maps), *zip(kept, moments)):
        result = result.unflatten(0, (batch, 3, 4))
        assert torch.equal(result[:, :, :moving].flatten(0, 2), distinct[:count])
        assert all(torch.equal(result[:, t, moving:].flatten(0, 1), distinct[count:]) for t in range(3))


def test_wrong_input_shapes_are_named(micro):
    with pytest.raises(ValueError, match="5 cannot be the same"):
        micro(torch.zeros(1, 1, 4, 9, 32, 32), 5)
    with pytest.raises(ValueError, match="multiples of 4"):
        micro(torch.zeros(1, 1, 4, 9, 30, 30))
    with pytest.raises(ValueError, match="expected"):
        l4gm_inputs(torch.zeros(1, 1, 3, 3, 32, 32), MICRO)


def test_pictures_on_white_and_reduced():
    rgba = torch.zeros(1, 4, 4, 4)
    rgba[:, 0, :2] = 1.0
    rgba[:, 3, :2] = 1.0
    white = on_white(rgba)
    assert white[0, :, 0, 0].tolist() == [1, 0, 0] and white[0, :, 3, 3].tolist() == [1, 1, 1]
    assert shrink(white, 2)[0, 1].tolist() == [[0, 0], [1, 1]]
    stripes = torch.arange(4.0).expand(1, 3, 4, 4)
    assert shrink(stripes, 2)[0, 0, 0].tolist() == [0.5, 2.5]
    assert shrink(stripes, 2, nearest=True)[0, 0, 0].tolist() == [0, 2]


def _shapes(kind, config):
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in kind(config).state_dict().items()}


@pytest.mark.parametrize("name", ["big", "small", "tiny"])
def test_the_sizes_are_read_off_the_shapes(name):
    assert config_from_shapes(_shapes(LGM, preset(name)), name) == preset(name)
    assert config_from_shapes(_shapes(L4GM, preset(name)), name) == preset(name)


def test_checkpoints_of_other_systems_are_named(tmp_path, micro):
    from safetensors.torch import save_file

    config = LGMConfig(**{**MICRO.__dict__, "input_size": 256, "splat_size": 128, "output_size": 512})
    torch.manual_seed(0)
    lgm = LGM(config)
    save_lgm(lgm, tmp_path / "lgm.safetensors")
    save_lgm(micro, tmp_path / "l4gm.safetensors", dtype=torch.float32)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="an LGM checkpoint, not L4GM"):
        load_l4gm(tmp_path / "lgm.safetensors")
    with pytest.raises(CheckpointError, match="another network's"):
        load_l4gm(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="L4GM"):
        load_lgm(tmp_path / "l4gm.safetensors")
    loaded = load_l4gm(tmp_path / "l4gm.safetensors")
    assert loaded.config == config
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, micro.state_dict()[key])
    assert load_lgm(tmp_path / "lgm.safetensors").config == config
    assert load_l4gm(tmp_path / "l4gm.safetensors", dtype=torch.float16).conv.weight.dtype == torch.float16


def test_ring_of_views_is_lgms():
    assert torch.allclose(default_rays(MICRO), Cameras.orbit([0, 90, 180, 270]).plucker(32))
