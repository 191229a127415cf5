"""Published folders -> :class:`MultiViewDiffusion`. The published UNet keys equal our module names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError
from ...nn.layout import for_inference
from ...zoo.identify import refuse_other_system
from ...zoo.libraries import PARTS, check_parts, find_weights, load_component, load_tokenizer, modern_keys, read_config
from ...zoo.loading import place_state, read_tensors
from .diffusion import MultiViewDiffusion
from .network import MultiViewUNet, UNetConfig
from .pictures import ClipPreprocess
from .schedule import NoiseSchedule
from .vae import VAE, VAEConfig

# Variants that the class behind the published files could be asked for and that no published file has.
_FIXED = {
    "dims": 2,
    "conv_resample": True,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "num_classes": None,
    "adm_in_channels": None,
    "n_embed": None,
    "num_attention_blocks": None,
}


def unet_config(config: Mapping[str, Any]) -> UNetConfig:
    """The network's shape from ``unet/config.json``; raises :class:`CheckpointError` for networks of another kind."""
    if "model_channels" not in config:
        name = config.get("_class_name", "an unknown class")
        raise CheckpointError(
            f"unet/config.json describes {name}, not a multi-view diffusion network (MVDream, ImageDream)"
        )
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"unet/config.json asks for {key}={config[key]!r}; only {value!r} is supported")
    known = {f.name for f in fields(UNetConfig)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in known and v is not None}
    if isinstance(values.get("num_res_blocks"), tuple):
        if len(set(values["num_res_blocks"])) != 1:
            raise CheckpointError(
                "unet/config.json has different num_res_blocks per level; only one number is supported"
            )
        values["num_res_blocks"] = values["num_res_blocks"][0]
    return UNetConfig(**values)


def load_unet(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> MultiViewUNet:
    """The multi-view UNet from ``config.json`` and weights in ``folder``, in evaluation mode, without gradients."""
    config = unet_config(read_config(folder))
    path = find_weights(folder)
    with torch.device("meta"):
        unet = MultiViewUNet(config)
    tensors = read_tensors(path, device)
    refuse_other_system(path, tensors, "mvdream")
    return for_inference(place_state(unet, tensors, str(path), device=device, dtype=dtype))


def load_vae(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> VAE:
    """The autoencoder from ``config.json`` and weights in ``folder`` (diffusers layout), evaluation mode, without gradients."""
    config = VAEConfig.from_config(read_config(folder))
    path = find_weights(folder)
    with torch.device("meta"):
        vae = VAE(config)
    state = modern_keys(read_tensors(path, device), vae)
    return for_inference(place_state(vae, state, str(path), device=device, dtype=dtype))


def load_mvdream(
    folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    offload: bool = False,
) -> MultiViewDiffusion:
    """A folder laid out as ``ashawkey/mvdream-sd2.1-diffusers`` or ``ashawkey/imagedream-ipmv-diffusers``.

    Args:
        device: where to compute. dtype: None takes float16 on CUDA (as published) and float32 on a CPU.
        offload: on CUDA, keep the text encoder, the image encoder and the VAE in main memory while they are not in use.

    Raises:
        CheckpointError: a missing file, weights that do not fit, or a folder of another system (named).
        MissingDependencyError: transformers is not installed.
    """
    folder, device = Path(folder), torch.device(device)
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    check_parts(folder, PARTS, "MVDream or ImageDream")
    config = unet_config(read_config(folder / "unet"))
    parked = torch.device("cpu") if offload else device
    image_encoder = preprocess = None
    if config.ip_dim:
        check_parts(folder, ("image_encoder", "feature_extractor"), "ImageDream")
        image_encoder = load_component("transformers.CLIPVisionModel", folder / "image_encoder", parked, dtype)
        preprocess = ClipPreprocess.from_config(read_config(folder / "feature_extractor", "preprocessor_config.json"))
    return MultiViewDiffusion(
        unet=load_unet(folder / "unet", device, dtype),
        vae=load_vae(folder / "vae", parked, dtype),
        text_encoder=load_component("transformers.CLIPTextModel", folder / "text_encoder", parked, dtype),
        tokenizer=load_tokenizer(folder / "tokenizer"),
        schedule=NoiseSchedule.from_config(read_config(folder / "scheduler", "scheduler_config.json")),
        image_encoder=image_encoder,
        preprocess=preprocess,
        device=device,
        offload=offload,
    )
