"""MVDream and ImageDream as a whole give the published pipelines' numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from micro_mvdream import published_state
from test_mvdream_pipeline import close

from bozzetto.systems.mvdream.checkpoint import unet_config
from bozzetto.systems.mvdream.denoising import Condition
from bozzetto.systems.mvdream.diffusion import MultiViewDiffusion
from bozzetto.systems.mvdream.network import MultiViewUNet
from bozzetto.systems.mvdream.pictures import ClipPreprocess
from bozzetto.systems.mvdream.schedule import NoiseSchedule
from bozzetto.systems.mvdream.vae import VAE, VAEConfig
from bozzetto.zoo.libraries import materialize, modern_keys
from bozzetto.zoo.loading import load_state


@pytest.fixture(scope="module")
def reference(shared, fill):
    """A model with the reference's deterministic weights, its golden's configuration and arrays."""

    def encoder(cls, config, prefix=""):
        with torch.device("meta"):
            module = cls(config)
        state = published_state(module, lambda k, s: torch.from_numpy(np.asarray(fill.fill_array(k, s))), prefix)
        module = materialize(module, "cpu", torch.float32)
        load_state(module, modern_keys(state, module), cls.__name__)
        return module.eval().requires_grad_(False)

    def make(name: str):
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

        folder = shared / "parity" / "lgm"
        config = json.loads((folder / "goldens_mvdream.json").read_text())[f"{name}.npz"]["config"]
        unet = MultiViewUNet(unet_config(config["unet"]))
        vae = VAE(VAEConfig.from_config(config["vae"]))
        fill.fill_module(unet)
        fill.fill_module(vae)
        image_encoder = preprocess = None
        if "image_encoder" in config:
            image_encoder = encoder(CLIPVisionModel, CLIPVisionConfig(**config["image_encoder"]), "vision_model.")
            extractor = config["feature_extractor"]
            preprocess = ClipPreprocess(extractor["resize_shortest_edge"], extractor["center_crop"])
            assert list(preprocess.mean) == extractor["mean"] and list(preprocess.std) == extractor["std"]
        model = MultiViewDiffusion(
            unet=unet.eval().requires_grad_(False),
            vae=vae.eval().requires_grad_(False),
            text_encoder=encoder(CLIPTextModel, CLIPTextConfig(**config["text_encoder"]), "text_model."),
            tokenizer=None,
            schedule=NoiseSchedule.from_config(config["scheduler"]),
            image_encoder=image_encoder,
            preprocess=preprocess,
        )
        return model, config, dict(np.load(folder / f"{name}.npz"))

    return make


def run_golden(model, config, arrays, latents, condition, negative):
    """Compare the first UNet output, every step's latents and the decoded pictures; returns nothing."""
    outputs, states = [], []
    hook = model.unet.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    steps = config["num_inference_steps"]
    guidance, elevation = config["guidance_scale"], config["elevation"]
    final = model.denoise(
        latents,
        condition,
        negative,
        steps=steps,
        guidance=guidance,
        elevation=elevation,
        on_step=lambda index, x: states.append(x.clone()),
    )
    hook.remove()
    close(outputs[0], arrays["unet_out_step0"])
    assert len(states) == len(outputs) == steps
    for ours, theirs in zip(states, arrays["latents_after_step"]):
        close(ours[0], theirs, 1e-4 * np.abs(theirs).max())
    pictures = model.decode(final)[0].numpy()
    stride = config["image_stride"]
    close(pictures[:, ::stride, ::stride], arrays["images_strided"])
    close(pictures.mean((1, 2)), arrays["images_mean"])
    close(pictures.std((1, 2)), arrays["images_std"])


def test_text_pipeline(reference, fill):
    model, config, arrays = reference("pipeline_text_micro")
    text = model.encode_tokens(torch.from_numpy(arrays["token_ids"]))
    close(text, arrays["prompt_embeds_neg_pos"])
    latents = torch.from_numpy(fill.test_input("pipe_text/latents", (4, 4, 8, 8), -(3**0.5), 3**0.5))
    run_golden(model, config, arrays, latents[None], Condition(text[1:]), Condition(text[:1]))


def test_image_pipeline(reference, fill):
    model, config, arrays = reference("pipeline_image_micro")
    text = model.encode_tokens(torch.from_numpy(arrays["token_ids"]))
    close(text, arrays["prompt_embeds_neg_pos"])
    picture = torch.from_numpy(fill.test_input("pipe_image/image", (72, 72, 3)))
    noise = torch.from_numpy(fill.test_input("pipe_image/vae_noise", (1, 4, 32, 32), -(3**0.5), 3**0.5))
    close(model.preprocess(picture)[None], arrays["pixel_values"])
    features, latent = model.encode_image(picture[None], config["height"], noise=noise)
    close(features, arrays["image_embeds"])
    close(latent, arrays["image_latents"])
    tokens = model.unet.image_embed(torch.cat([torch.zeros_like(features), features]))
    negative = Condition(text[:1], tokens[:1], torch.zeros_like(latent))
    start = torch.from_numpy(fill.test_input("pipe_image/latents", (5, 4, 32, 32), -(3**0.5), 3**0.5))
    run_golden(model, config, arrays, start[None], Condition(text[1:], tokens[1:], latent), negative)
