"""Micro checkpoint of Stable Diffusion in the diffusers layout, for GaussianDreamer's whole-path tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from micro_mvdream import SCHEDULER, TEXT_ENCODER, VAE, Fill, published_state, seeded_fill, write_tokenizer

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "cross_attention_dim": 48,
    "attention_head_dim": [2, 4],
    "use_linear_projection": True,
}
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def write_stable_diffusion(folder: Path, fill: Fill = seeded_fill) -> Path:
    """A whole folder as ``stabilityai/stable-diffusion-2-1-base`` has it, its VAE with the attention names of its day."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel.from_config(UNET), AutoencoderKL.from_config(VAE)
        text_encoder = CLIPTextModel(CLIPTextConfig.from_dict(TEXT_ENCODER))
    parts = {
        "unet": (UNET, published_state(unet, fill), "diffusion_pytorch_model.fp16.safetensors"),
        "vae": (VAE, _old_names(published_state(vae, fill)), "diffusion_pytorch_model.fp16.safetensors"),
        "text_encoder": (TEXT_ENCODER, published_state(text_encoder, fill, "text_model."), "model.fp16.safetensors"),
    }
    for name, (config, state, file) in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
        save_file(state, folder / name / file, metadata={"format": "pt"})
    write_tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def _old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    out = {}
    for key, tensor in state.items():
        for new, old in OLD_NAMES.items():
            if ".attentions." in key:
                key = key.replace(f".{new}.", f".{old}.")
        out[key] = tensor
    return out


def write_micro_gaussian_dreamer(folder: Path, fill: Fill = seeded_fill) -> dict[str, Path]:
    """The diffusion model under ``folder``: zoo entry name -> its folder. Shap-E's part is that system's micro."""
    return {"sd21-base": write_stable_diffusion(Path(folder) / "sd21-base", fill)}
