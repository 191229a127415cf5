"""MVDream and ImageDream as a whole: what generation promises, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from micro_mvdream import write_micro_mvdream

from bozzetto.errors import BozzettoError, CheckpointError, InputError
from bozzetto.systems.mvdream.checkpoint import load_mvdream, unet_config

SIZE = 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_micro_mvdream(tmp_path_factory.mktemp("micro"))


@pytest.fixture(scope="module")
def mvdream(folders):
    return load_mvdream(folders["mvdream"])


@pytest.fixture(scope="module")
def imagedream(folders):
    return load_mvdream(folders["imagedream"])


@pytest.fixture(scope="module")
def photos():
    return torch.rand(2, 40, 40, 3, generator=torch.Generator().manual_seed(5))


def close(ours, theirs, tolerance=1e-4) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=tolerance)


# ---------------------------------------------------------------------------------------------- what generation promises


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_prompts_together_equal_prompts_alone(mvdream, solver):
    arguments = {"steps": 3, "size": SIZE, "seed": 7, "solver": solver, "negative": "dog"}
    prompts = ["a red cat", "", "赤い猫"]
    together = mvdream.generate(prompts, candidates=2, batch=4, **arguments)
    assert together.shape == (3, 2, 4, SIZE, SIZE, 3) and together.dtype == torch.float32
    assert together.min() >= 0 and together.max() <= 1
    for i, prompt in enumerate(prompts):
        close(mvdream.generate([prompt], candidates=2, batch=1, **arguments)[0], together[i])
    # Candidate c starts from seed + c alone.
    close(mvdream.generate(prompts[:1], **{**arguments, "seed": 8})[0, 0], together[0, 1])
    # ... and prompts, candidates and views do differ.
    assert (together[0] - together[1]).abs().max() > 0.01
    assert (together[:, 0] - together[:, 1]).abs().max() > 0.1


def test_pictures_together_equal_pictures_alone(imagedream, photos):
    arguments = {"steps": 2, "size": SIZE, "seed": 3}
    together = imagedream.generate(["cat", "dog"], photos, candidates=2, batch=3, **arguments)
    assert together.shape == (2, 2, 4, SIZE, SIZE, 3)
    for i, prompt in enumerate(["cat", "dog"]):
        close(imagedream.generate([prompt], [photos[i]], candidates=2, **arguments)[0], together[i])
    close(imagedream.generate("cat", photos[0], **{**arguments, "seed": 4})[0, 0], together[0, 1])
    swapped = imagedream.generate(["cat", "dog"], photos.flip(0), **arguments)
    assert (swapped[:, 0] - together[:, 0]).abs().max() > 0.01  # the picture matters


def test_a_seed_repeats_exactly_and_a_generator_draws_one(mvdream):
    arguments = {"steps": 2, "size": SIZE}
    first = mvdream.generate("cat", seed=1, **arguments)
    assert torch.equal(first, mvdream.generate("cat", seed=1, **arguments))
    drawn = [mvdream.generate("cat", generator=torch.Generator().manual_seed(s), **arguments) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_every_argument_has_an_effect(mvdream):
    base = {"prompts": "cat", "steps": 3, "size": SIZE}
    plain = mvdream.generate(**base)
    for change in ({"negative": "dog"}, {"guidance": 2.0}, {"elevation": 40.0}, {"solver": "dpm++"}, {"steps": 4}):
        assert (mvdream.generate(**{**base, **change}) - plain).abs().max() > 1e-3, change


def test_weak_guidance_runs_the_conditional_half_alone(mvdream, imagedream, photos):
    sizes = []
    hooks = [
        m.unet.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
        for m in (mvdream, imagedream)
    ]
    arguments = {"steps": 2, "size": SIZE}
    one = mvdream.generate("cat", guidance=1.0, **arguments)
    assert torch.equal(one, mvdream.generate("cat", guidance=0.0, negative="dog", **arguments))
    imagedream.generate("cat", photos[:1], guidance=1.0, **arguments)
    assert sizes == [4, 4, 4, 4, 5, 5]
    # Guidance just above 1 runs both halves and comes close to the conditional half alone.
    nearly = mvdream.generate("cat", guidance=1 + 1e-6, **arguments)
    assert sizes[-1] == 8
    close(nearly, one)
    for hook in hooks:
        hook.remove()


def test_progress_rises_to_one(mvdream):
    shares = []
    mvdream.generate(["cat", "dog"], candidates=2, batch=3, steps=2, size=SIZE, progress=shares.append)
    assert shares == [0.375, 0.75, 0.875, 1.0]


def test_half_precision_follows_single_precision(folders, mvdream):
    half = load_mvdream(folders["mvdream"], dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    arguments = {"steps": 2, "size": SIZE, "guidance": 2.0}
    difference = half.generate("cat", **arguments) - mvdream.generate("cat", **arguments)
    assert difference.abs().mean() < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_offloaded_encoders_give_the_same_pictures(folders, photos):
    arguments = {"steps": 2, "size": SIZE, "candidates": 2}
    results = []
    for offload in (False, True):
        model = load_mvdream(folders["imagedream"], "cuda", offload=offload)
        assert model.dtype == torch.float16
        results.append(model.generate("cat", photos[:1], **arguments).cpu())
        place = "cpu" if offload else "cuda"
        parts = (model.vae, model.text_encoder, model.image_encoder)
        assert all(next(p.parameters()).device.type == place for p in parts)
    difference = (results[0] - results[1]).abs()  # a VAE that moves folds no upsampling: other roundings of float16
    assert difference.mean() < 1e-3 and difference.max() < 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_recorded_step_gives_the_same_pictures(folders, photos):
    """The first call runs eagerly at first, the second replays from its first step on; another prompt is not the first one's."""
    arguments = {"steps": 4, "size": SIZE}
    model = load_mvdream(folders["imagedream"], "cuda")
    first, second = (model.generate("cat", photos[:1], **arguments) for _ in range(2))
    assert model._run.reason is None and len(model._run._recordings) == 1
    close(first.cpu(), second.cpu(), 2e-3)
    single = load_mvdream(folders["imagedream"], "cuda", dtype=torch.float32).generate("cat", photos[:1], **arguments)
    assert float((first - single).abs().mean()) < 0.01
    other = model.generate("dog", photos[1:], **arguments)
    fresh = load_mvdream(folders["imagedream"], "cuda").generate("dog", photos[1:], **arguments)
    close(other.cpu(), fresh.cpu(), 2e-3)
    assert float((other - first).abs().max()) > 0.01


def test_encoders_are_put_away_after_use(mvdream, monkeypatch):
    places = []
    monkeypatch.setattr(mvdream, "offload", True)
    monkeypatch.setattr(mvdream.vae, "to", lambda place: places.append(str(place)))
    mvdream.decode(torch.zeros(1, 4, 8, 8))
    assert places == ["cpu", "cpu"]  # there, and back: on this model both are the CPU


# ---------------------------------------------------------------------------------------------- bad input


def test_nan_latents_are_reported(folders):
    model = load_mvdream(folders["mvdream"])
    calls = []

    def poison(module, inputs, output):
        calls.append(None)
        return output * float("nan") if len(calls) == 3 else output

    model.unet.register_forward_hook(poison)
    with pytest.raises(BozzettoError, match=r"between steps 3 and 5 \(timesteps 401 to 1\).*float32.*less guidance"):
        model.generate("cat", steps=5, size=SIZE)


def test_nan_pictures_are_reported(folders):
    model = load_mvdream(folders["mvdream"])
    model.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(BozzettoError, match="decoded pictures"):
        model.generate("cat", steps=1, size=SIZE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "no prompts"),
        ({"prompts": [None]}, "must be text"),
        ({"prompts": "x" * 10_001}, "10,001 characters"),
        ({"negative": "x" * 10_001}, "10,001 characters"),
        ({"images": torch.zeros(1, 8, 8, 3)}, "text only"),
        ({"steps": 0}, "steps"),
        ({"solver": "euler"}, "unknown solver"),
        ({"guidance": float("nan")}, "guidance"),
        ({"elevation": 91}, "elevation"),
        ({"elevation": float("nan")}, "elevation"),
        ({"candidates": 0}, "candidates"),
        ({"batch": 0}, "batch"),
        ({"size": 100}, "multiple of 32"),
        ({"size": 0}, "multiple of 32"),
    ],
)
def test_arguments_that_are_refused(mvdream, arguments, message):
    with pytest.raises(InputError, match=message):
        mvdream.generate(**{"prompts": "cat", "steps": 1, "size": SIZE, **arguments})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "needs a picture"),
        (torch.zeros(2, 8, 8, 3), "1 prompts but 2 pictures"),
        (torch.zeros(1, 8, 8, 4), r"\[H, W, 3\]"),
        ([torch.zeros(8, 8, 3, dtype=torch.uint8)], "floats"),
        ([torch.full((8, 8, 3), float("nan"))], "finite"),
        (["cat.png"], "str"),
    ],
)
def test_pictures_that_are_refused(imagedream, images, message):
    with pytest.raises(InputError, match=message):
        imagedream.generate("cat", images, steps=1, size=SIZE)


def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_folders_that_are_no_multi_view_model(folders, tmp_path):
    with pytest.raises(CheckpointError, match="no folder"):
        load_mvdream(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="lacks unet/, vae/"):
        load_mvdream(tmp_path)
    folder = copy(folders["mvdream"], tmp_path)
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel", "cross_attention_dim": 1024}')
    with pytest.raises(CheckpointError, match="UNet2DConditionModel, not a multi-view"):
        load_mvdream(folder)


def test_damaged_folders(folders, tmp_path):
    folder = copy(folders["imagedream"], tmp_path)
    (folder / "vae" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"vae.*not readable JSON"):
        load_mvdream(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(folders["mvdream"] / "unet" / weights.name, weights)  # the other model's weights
    with pytest.raises(CheckpointError, match=r"missing.*image_embed"):
        load_mvdream(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="no weights in"):
        load_mvdream(folder)
    shutil.rmtree(folder / "image_encoder")
    with pytest.raises(CheckpointError, match="image_encoder"):
        load_mvdream(folder)


def test_unsupported_network_variants_are_named():
    with pytest.raises(CheckpointError, match="resblock_updown"):
        unet_config({"model_channels": 32, "resblock_updown": True})
    assert unet_config({"model_channels": 32, "num_res_blocks": [2, 2], "_x": 1}).num_res_blocks == 2
