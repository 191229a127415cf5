"""Micro checkpoints of MVDream and ImageDream: the published folders' layout with tiny networks.

The files hold the key names of the published ones, whatever names the installed transformers uses.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

UNET = {
    "_class_name": "MultiViewUNetModel",
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2, 1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2, 2],
    "num_head_channels": 16,
    "transformer_depth": 1,
    "context_dim": 48,
    "use_checkpoint": False,
    "camera_dim": 16,
    "ip_weight": 1.0,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [32, 32, 64, 64],
    "latent_channels": 4,
    "layers_per_block": 1,
    "scaling_factor": 0.18215,
}
TEXT_ENCODER = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "vocab_size": 520,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-05,
    "projection_dim": 48,
    "bos_token_id": 518,
    "eos_token_id": 519,
    "pad_token_id": 0,
}
IMAGE_ENCODER = {
    "architectures": ["CLIPVisionModel"],
    "model_type": "clip_vision_model",
    "hidden_size": 1280,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "image_size": 28,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-05,
    "projection_dim": 64,
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
FEATURE_EXTRACTOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 28},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 28, "width": 28},
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}
Fill = Callable[[str, tuple[int, ...]], torch.Tensor]


def seeded_fill(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Random weights of unit gain, a function of the key's letters and the shape."""
    generator = torch.Generator().manual_seed(sum((i + 1) * ord(c) for i, c in enumerate(key)))
    values = torch.randn(shape, generator=generator)
    if len(shape) >= 2:
        return values / max(int(torch.tensor(shape[1:]).prod()), 1) ** 0.5
    return 1 + 0.1 * values if key.endswith("weight") else 0.05 * values


def published_state(module: nn.Module, fill: Fill, prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights for ``module`` under published names: ``prefix`` is put back where the installed library dropped it."""
    state = {}
    for key, tensor in module.state_dict().items():
        key = key if key.startswith(prefix) else prefix + key
        state[key] = fill(key, tuple(tensor.shape)).contiguous()
    return state


def bytes_to_letters() -> list[str]:
    """The letters that byte-level BPE writes for the 256 byte values, in the order of CLIP's vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def write_tokenizer(folder: Path) -> None:
    """CLIP's byte-level tokenizer with all 256 letters, six merges, and the published files' special tokens."""
    letters = bytes_to_letters()
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>")]
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(m) for m in merges]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "!",
        "unk_token": "<|endoftext|>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True})
    )


def _write(folder: Path, config: dict, state: dict[str, torch.Tensor], name: str) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / name, metadata={"format": "pt"})


def write_folder(folder: Path, image: bool, fill: Fill = seeded_fill) -> Path:
    """A whole diffusers-style folder, of ImageDream (``image``) or MVDream."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    from bozzetto.systems.mvdream.checkpoint import unet_config
    from bozzetto.systems.mvdream.network import MultiViewUNet

    unet = {**UNET, "ip_dim": 4 if image else 0}
    with torch.device("meta"):
        networks = {
            "unet": (unet, MultiViewUNet(unet_config(unet)), "", "diffusion_pytorch_model.safetensors"),
            "vae": (VAE, AutoencoderKL.from_config(VAE), "", "diffusion_pytorch_model.safetensors"),
            "text_encoder": (
                TEXT_ENCODER,
                CLIPTextModel(CLIPTextConfig.from_dict(TEXT_ENCODER)),
                "text_model.",
                "model.safetensors",
            ),
        }
        if image:
            vision = CLIPVisionModel(CLIPVisionConfig.from_dict(IMAGE_ENCODER))
            networks["image_encoder"] = (IMAGE_ENCODER, vision, "vision_model.", "model.safetensors")
    for name, (config, module, prefix, file) in networks.items():
        _write(folder / name, config, published_state(module, fill, prefix), file)
    write_tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    if image:
        (folder / "feature_extractor").mkdir()
        (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(FEATURE_EXTRACTOR))
    index = {"_class_name": "MVDreamPipeline", "_diffusers_version": "0.25.0"}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_micro_mvdream(folder: Path, fill: Fill = seeded_fill) -> dict[str, Path]:
    """Both micro models under ``folder``: zoo entry name -> its folder."""
    return {
        "mvdream": write_folder(Path(folder) / "mvdream", False, fill),
        "imagedream": write_folder(Path(folder) / "imagedream", True, fill),
    }
