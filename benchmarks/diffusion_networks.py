"""The diffusion models' networks at published sizes with random weights, for the benchmarks that time them."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import full_size
import full_size_shapes
import published_configs as published
import torch
from torch import nn

from bozzetto.nn.layout import for_inference
from bozzetto.systems.gaussian_dreamer.stable_diffusion import network_config
from bozzetto.systems.mvdream.checkpoint import unet_config
from bozzetto.systems.mvdream.diffusion import MultiViewDiffusion
from bozzetto.systems.mvdream.network import MultiViewUNet
from bozzetto.systems.mvdream.pictures import ClipPreprocess
from bozzetto.systems.mvdream.schedule import NoiseSchedule
from bozzetto.systems.mvdream.vae import VAE, VAEConfig
from bozzetto.zoo.libraries import load_tokenizer, materialize


def randomise(module: nn.Module) -> nn.Module:
    """Random weights that keep activations normal; frozen, in evaluation mode."""
    for name, tensor in module.named_parameters():
        if tensor.dim() >= 2:
            tensor.data.normal_(0.0, tensor[0].numel() ** -0.5)
        elif name.endswith("weight"):
            tensor.data.normal_(1.0, 0.1)
        else:
            tensor.data.normal_(0.0, 0.05)
    return module.eval().requires_grad_(False)


class Networks:
    """Networks of published sizes (or toy ones) with random weights on a device, each made once."""

    def __init__(self, device: str, micro: bool) -> None:
        self.device, self.micro = torch.device(device), micro
        self.dtype = torch.float16 if device == "cuda" else torch.float32
        self.made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.made:
            begin = time.perf_counter()
            self.made[name] = make()
            print(f"made {name} in {time.perf_counter() - begin:.1f} s", file=sys.stderr, flush=True)
        return self.made[name]

    def put(self, module: nn.Module) -> nn.Module:
        """A module of the meta device with memory and random weights."""
        torch.manual_seed(0)
        return randomise(materialize(module, self.device, self.dtype))

    def vae(self) -> VAE:
        small = {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1} if self.micro else {}

        def make() -> VAE:
            with torch.device("meta"):
                module = VAE(VAEConfig.from_config(published.VAE | small))
            return for_inference(self.put(module))

        return self.once("vae", make)

    def unet(self, kind: str) -> nn.Module:
        small = {"model_channels": 64, "channel_mult": [1, 1, 2, 2]} if self.micro else {}
        config = published.UNET | small | ({"ip_dim": 16} if kind == "imagedream" else {})

        def make() -> nn.Module:
            with torch.device("meta"):
                module = MultiViewUNet(unet_config(config))
            return for_inference(self.put(module))

        return self.once(f"unet {kind}", make)

    def sd_unet(self) -> nn.Module:
        small = {"block_out_channels": [64, 64, 128, 128], "attention_head_dim": [1, 1, 2, 2]} if self.micro else {}

        def make() -> nn.Module:
            with torch.device("meta"):
                module = MultiViewUNet(network_config(published.SD_UNET | small))
            return for_inference(self.put(module))

        return self.once("unet sd", make)

    def text_encoder(self) -> nn.Module:
        small = {"num_hidden_layers": 1} if self.micro else {}

        def make() -> nn.Module:
            import transformers

            with torch.device("meta"):
                config = transformers.CLIPTextConfig.from_dict(published.TEXT_ENCODER | small)
                module = transformers.CLIPTextModel(config)
            return self.put(module)

        return self.once("text", make)

    def image_encoder(self) -> nn.Module:
        small = {"num_hidden_layers": 2} if self.micro else {}

        def make() -> nn.Module:
            import transformers

            with torch.device("meta"):
                config = transformers.CLIPVisionConfig.from_dict(published.IMAGE_ENCODER | small)
                module = transformers.CLIPVisionModel(config)
            return self.put(module)

        return self.once("image", make)

    def tokenizer(self) -> Any:
        def make() -> Any:
            with tempfile.TemporaryDirectory() as folder:
                for path, content in full_size.tokenizer_files().items():
                    (Path(folder) / path).write_text(content, encoding="utf-8")
                return load_tokenizer(Path(folder))

        return self.once("tokenizer", make)

    def diffusion(self, kind: str) -> MultiViewDiffusion:
        """ImageDream or MVDream."""
        image = kind == "imagedream"
        return MultiViewDiffusion(
            self.unet(kind),
            self.vae(),
            self.text_encoder(),
            self.tokenizer(),
            NoiseSchedule.from_config(published.SCHEDULER),
            self.image_encoder() if image else None,
            ClipPreprocess.from_config(published.FEATURE_EXTRACTOR) if image else None,
            self.device,
        )

    def lgm(self) -> nn.Module:
        from bozzetto.systems.lgm.network import LGM, LGMConfig
        from bozzetto.systems.lgm.presets import BIG

        small = {"down_channels": (32, 32, 64, 64, 64, 64), "up_channels": (64, 64, 64, 64, 32)}

        def make() -> nn.Module:
            with torch.device("meta"):
                module = LGM(LGMConfig(**{**vars(BIG), **small}) if self.micro else BIG)
            module = self.put(module)
            full_size_shapes.shape_lgm(dict(module.named_parameters()))
            return for_inference(module)

        return self.once("lgm", make)
