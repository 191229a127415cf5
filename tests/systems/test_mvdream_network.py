"""The multi-view UNet and its cameras against the published ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bozzetto.camera.cameras import orbit_poses
from bozzetto.nn.layout import for_inference
from bozzetto.systems.mvdream.cameras import AZIMUTHS, LGM_ORDER, camera_vectors, diffusion_cameras
from bozzetto.systems.mvdream.network import (
    Downsample,
    MultiViewUNet,
    ResBlock,
    SpatialTransformer3D,
    UNetConfig,
    Upsample,
    timestep_embedding,
)
from bozzetto.systems.mvdream.resampler import Resampler

ROOT3 = 3**0.5
MICRO = {
    "model_channels": 32,
    "attention_resolutions": (2, 1),
    "num_res_blocks": 1,
    "channel_mult": (1, 2, 2),
    "num_head_channels": 16,
    "context_dim": 48,
}


@pytest.fixture(scope="module")
def goldens(shared):
    index = json.loads((shared / "parity" / "lgm" / "goldens_mvdream.json").read_text())

    def read(name: str) -> tuple[dict, dict]:
        return index[f"{name}.npz"]["config"], dict(np.load(shared / "parity" / "lgm" / f"{name}.npz"))

    return read


@pytest.fixture(scope="module")
def given(fill):
    def make(name: str, *shape: int, bound: float = 1.0) -> torch.Tensor:
        return torch.from_numpy(fill.test_input(name, shape, -bound, bound))

    return make


def filled(module, fill):
    fill.fill_module(module)
    return module.eval().requires_grad_(False)


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=tolerance)


def micro_unet(fill, ip_dim: int) -> MultiViewUNet:
    return filled(MultiViewUNet(UNetConfig(**MICRO, ip_dim=ip_dim)), fill)


def image_inputs(given) -> dict[str, torch.Tensor | int]:
    return {
        "x": given("imagedream_micro/x", 10, 4, 8, 8, bound=ROOT3),
        "timesteps": torch.full((10,), 958.0),
        "context": given("imagedream_micro/context", 10, 7, 48),
        "cameras": diffusion_cameras(0, image_view=True).repeat(2, 1),
        "views": 5,
        "ip": given("imagedream_micro/ip", 10, 9, 1280),
        "ip_latent": given("imagedream_micro/ip_img", 2, 4, 8, 8),
    }


def test_timestep_embedding(goldens):
    config, arrays = goldens("mvdream_blocks")
    times = torch.tensor(config["timestep_embedding"]["timesteps"])
    close(timestep_embedding(times, 64), arrays["timestep_embedding_dim64"], 1e-4)  # one float32 step of exp, times 999
    close(timestep_embedding(times, 33), arrays["timestep_embedding_dim33"], 1e-4)


def test_blocks(goldens, given, fill):
    config, arrays = goldens("mvdream_blocks")

    def run(name, module, *inputs, **kwargs):
        assert list(module.state_dict()) == config[name]["keys"]
        close(filled(module, fill)(*inputs, **kwargs), arrays[name])

    for name, out in (("res_block", 64), ("res_block_same", 32)):
        x, emb = given(f"mvd_blocks/{name}.x", 4, 32, 8, 8), given(f"mvd_blocks/{name}.emb", 4, 128)
        block = ResBlock(32, 128, out)
        assert list(block.state_dict()) == config[name]["keys"]
        filled(block, fill)
        close(block(x, block.shift(emb)), arrays[name])
    for name, tokens, ip_dim in (("transformer", 7, 0), ("transformer_ip", 11, 4)):
        x, context = given(f"mvd_blocks/{name}.x", 8, 64, 4, 4), given(f"mvd_blocks/{name}.context", 8, tokens, 48)
        run(name, SpatialTransformer3D(64, 4, 16, 48, ip_dim=ip_dim), x, context, views=4)
    resampler = Resampler(dim=48, depth=2, head_dim=16, heads=3, num_queries=4, embedding_dim=40, output_dim=56)
    run("resampler", resampler, given("mvd_blocks/resampler.x", 2, 9, 40))
    run("downsample", Downsample(32), given("mvd_blocks/downsample.x", 2, 32, 8, 8))
    run("upsample", Upsample(32), given("mvd_blocks/upsample.x", 2, 32, 4, 4))


@torch.no_grad()
def test_mvdream_unet(goldens, given, fill):
    _, arrays = goldens("mvdream_unet_micro")
    x = given("mvdream_micro/x", 8, 4, 8, 8, bound=ROOT3)
    cameras = torch.from_numpy(arrays["camera"])
    out = micro_unet(fill, 0)(
        x, torch.from_numpy(arrays["timesteps"]), given("mvdream_micro/context", 8, 7, 48), cameras, views=4
    )
    close(out, arrays["out"])
    close(out.mean((2, 3)), arrays["out_mean"])
    close(out.std((2, 3)), arrays["out_std"])
    # The golden's cameras have elevation 15 of the kind where positive stands above or below; ours differ by that sign only.
    assert any(np.abs(diffusion_cameras(e).numpy() - arrays["camera"][:4]).max() < 1e-6 for e in (15, -15))


@torch.no_grad()
def test_imagedream_unet(goldens, given, fill):
    _, arrays = goldens("imagedream_unet_micro")
    unet, inputs = micro_unet(fill, 4), image_inputs(given)
    close(inputs["cameras"], arrays["camera"], 1e-6)
    out = unet(**inputs)
    close(out, arrays["out"])
    close(out.mean((2, 3)), arrays["out_mean"])
    close(out.std((2, 3)), arrays["out_std"])
    # Image tokens worked out beforehand give the same.
    inputs["ip_tokens"] = unet.image_embed(inputs.pop("ip"))
    close(unet(**inputs), out.numpy(), 1e-6)


@torch.no_grad()
def test_no_input_is_written_to(given, fill):
    unet, inputs = micro_unet(fill, 4), image_inputs(given)
    before = {k: v.clone() for k, v in inputs.items() if isinstance(v, torch.Tensor)}
    first = unet(**inputs)
    assert all(torch.equal(inputs[k], v) for k, v in before.items())
    assert torch.equal(unet(**inputs), first)


@torch.no_grad()
def test_samples_of_a_batch_do_not_see_each_other(given, fill):
    unet, inputs = micro_unet(fill, 4), image_inputs(given)
    both = unet(**inputs)
    second = {k: v[len(v) // 2 :] if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    close(unet(**second), both[5:].numpy())


def test_wrong_inputs_are_refused(given, fill):
    unet, inputs = micro_unet(fill, 4), image_inputs(given)
    with pytest.raises(ValueError, match="ip_latent"):
        unet(**{**inputs, "ip_latent": None})
    with pytest.raises(ValueError, match="multiples of 4"):
        unet(**{**inputs, "x": inputs["x"][..., :7]})
    with pytest.raises(ValueError, match=r"B\*4"):
        unet(**{**inputs, "views": 4})
    with pytest.raises(ValueError, match="cameras"):
        unet(**{**inputs, "cameras": None})
    with pytest.raises(ValueError, match="when the network takes an image"):
        micro_unet(fill, 0)(**inputs)


@pytest.mark.parametrize(("name", "ip_dim"), [("mvdream_unet", 0), ("imagedream_unet", 16)])
def test_published_keys_and_shapes(shared, name, ip_dim):
    manifest = json.loads((shared / "parity" / "lgm" / f"manifest_{name}.json").read_text())
    entries = next(v for v in manifest.values() if isinstance(v, list))
    with torch.device("meta"):
        unet = MultiViewUNet(UNetConfig(ip_dim=ip_dim))
    assert [(k, list(v.shape)) for k, v in unet.state_dict().items()] == [(e["key"], e["shape"]) for e in entries]
    assert sum(v.numel() for v in unet.state_dict().values()) == manifest["num_elements"]


def test_diffusion_cameras(shared):
    arrays = np.load(shared / "parity" / "lgm" / "cameras.npz")
    for elevation in (0, 15, -20):
        ours = diffusion_cameras(elevation, image_view=True)
        close(ours, arrays[f"diffusion_camera_release_elev{elevation}"], 1e-6)  # positive above, as ours
        lgm = diffusion_cameras(-elevation, image_view=True)
        close(lgm, arrays[f"diffusion_camera_lgm_elev{elevation}"], 1e-6)  # LGM's copy counts the other way


def test_cameras_at_any_distance_are_seen_on_the_unit_sphere():
    poses = orbit_poses([0.0, 90.0, 180.0, 270.0], 25.0, 2.7)
    close(camera_vectors(poses), diffusion_cameras(25).numpy(), 1e-6)
    assert camera_vectors(poses[None, None]).shape == (1, 1, 4, 16)


def test_a_raised_camera_stands_above():
    heights = diffusion_cameras(30).reshape(4, 4, 4)[:, 2, 3]  # z is up
    assert torch.allclose(heights, torch.full((4,), 0.5))
    assert [AZIMUTHS[i] for i in LGM_ORDER] == [90, 180, 270, 0]


def test_folded_weights_change_nothing_but_the_layout(given, fill):
    unet, inputs = micro_unet(fill, 4), image_inputs(given)
    keys, wanted = list(unet.state_dict()), unet(**inputs)
    folded = for_inference(unet)
    attention = folded.input_blocks[1][1].transformer_blocks[0].attn1
    assert attention._qkv is not None and attention.to_k.weight.data_ptr() == attention._qkv.chunk(3)[1].data_ptr()
    assert list(folded.state_dict()) == keys
    close(folded(**inputs), wanted.numpy(), 1e-5)
    attention.to_v.weight.zero_()  # the parts are the whole
    assert float((folded(**inputs) - wanted).abs().max()) > 1e-3
    folded.double().float()
    assert attention._qkv is None


@torch.no_grad()
def test_what_no_step_changes_may_be_worked_out_beforehand(given, fill):
    """Two samples of five views: a row of texts for each sample, a row of noise levels for each entry."""
    unet, inputs = micro_unet(fill, 4), image_inputs(given)
    text = inputs["context"][[0, 5]]
    ip = inputs.pop("ip")[[0, 5]]
    inputs |= {"context": text.repeat_interleave(5, 0), "ip_tokens": unet.image_embed(ip).repeat_interleave(5, 0)}
    wanted = unet(**inputs)
    shifts, memory = unet.shifts(inputs["timesteps"], inputs["cameras"]), unet.remember(text, unet.image_embed(ip))
    assert len(shifts) == len(unet.residual_blocks()) and memory[0][0].k.shape[0] == 2
    close(unet(inputs["x"], shifts, memory, views=5, ip_latent=inputs["ip_latent"]), wanted.numpy(), 1e-5)
    with pytest.raises(ValueError, match="image tokens"):
        unet.remember(text)
