"""A TripoSR checkpoint of toy size in the published file layout, for tests of the whole path."""

from __future__ import annotations

import json
from pathlib import Path

import torch

VIT = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 192} | {
    "layer_norm_eps": 1e-12,
    "image_size": 48,
    "patch_size": 8,
    "num_channels": 3,
    "qkv_bias": True,
    "hidden_act": "gelu",
}

CONFIG = """\
cond_image_size: 64
image_tokenizer_cls: tsr.models.tokenizers.image.DINOSingleImageTokenizer
image_tokenizer:
  pretrained_model_name_or_path: "facebook/dino-vitb16"
tokenizer_cls: tsr.models.tokenizers.triplane.Triplane1DTokenizer
tokenizer:
  plane_size: 8
  num_channels: 64
backbone_cls: tsr.models.transformer.transformer_1d.Transformer1D
backbone:
  in_channels: ${tokenizer.num_channels}
  num_attention_heads: 4
  attention_head_dim: 16
  num_layers: 2
  cross_attention_dim: 48
post_processor_cls: tsr.models.network_utils.TriplaneUpsampleNetwork
post_processor:
  in_channels: 64
  out_channels: 8
decoder_cls: tsr.models.network_utils.NeRFMLP
decoder:
  in_channels: 24
  n_neurons: 32
  n_hidden_layers: 3
  activation: silu
renderer_cls: tsr.models.nerf_renderer.TriplaneNeRFRenderer
renderer:
  radius: 0.87
  feature_reduction: concat
  density_activation: exp
  density_bias: -1.0
  num_samples_per_ray: 32
"""


def write_config(folder: Path) -> Path:
    """``config.yaml``, and the ViT's ``config.json`` in the folder that it names. Returns the first."""
    vit = folder / "facebook" / "dino-vitb16"
    vit.mkdir(parents=True, exist_ok=True)
    (vit / "config.json").write_text(json.dumps(VIT))
    (folder / "config.yaml").write_text(CONFIG)
    return folder / "config.yaml"


def fill_seeded(module: torch.nn.Module, seed: int = 7) -> None:
    """Deterministic weights of unit gain."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            values = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim >= 2:
                values /= tensor[0].numel() ** 0.5
            else:
                values = 1 + 0.1 * values if key.endswith("weight") else 0.05 * values
            tensor.copy_(values)


def write_micro_triposr(folder: str | Path) -> dict[str, Path]:
    """``folder/config.yaml`` and ``folder/model.ckpt``; the density crosses the threshold of 25 inside of the cube."""
    from bozzetto.systems.triposr.config import read_config
    from bozzetto.systems.triposr.network import TripoSR

    folder = Path(folder)
    model = TripoSR(read_config(write_config(folder)))
    fill_seeded(model)
    last = model.decoder.layers[-1]
    with torch.no_grad():
        last.weight[0] *= 5.0  # from fog to something with a surface
        last.bias[0] = 0.0
        last.weight[1:] *= 8.0
    torch.save(model.state_dict(), folder / "model.ckpt")
    return {"triposr": folder}
