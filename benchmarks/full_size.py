"""Full-size checkpoints with made-up weights, in the published file layout, for measurements without the published weights.

``python benchmarks/full_size.py FOLDER NAME [NAME ...] [--device cuda]`` writes zoo entries into ``FOLDER/NAME``. Names,
shapes and dtypes of the tensors are those of the published files; numbers are drawn with a seed made from the tensor's name,
with scales that keep activations normal; some are then set by hand (``full_size_shapes.py``), so that an object of about the
usual size comes out. Time and memory do not depend on the numbers, apart from how many Gaussians or triangles come out.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import published_configs as published
import torch
from full_size_shapes import State, shape_lgm, shape_transmitter, shape_triposr
from torch import Tensor, nn

Spec = dict[str, tuple[tuple[int, ...], torch.dtype]]  # tensor name -> shape, dtype
HALF, FULL = torch.float16, torch.float32


@dataclass(frozen=True)
class Weights:
    """One weights file.

    Attributes:
        path: inside the entry's folder.
        spec: its tensors.
        shape: changes the drawn tensors in place, or None.
        note: metadata of a safetensors file.
        trained: the tensors lie under "model_state_dict", with Adam's moments beside them.
    """

    path: str
    spec: Spec
    shape: Callable[[State], None] | None = None
    note: dict[str, str] | None = None
    trained: bool = False


@dataclass(frozen=True)
class Layout:
    """All files of a zoo entry. ``single``: the entry is used by the path of its one file, not by its folder."""

    weights: list[Weights]
    texts: dict[str, str] = field(default_factory=dict)  # path -> content
    single: bool = False


def spec_of(module: nn.Module, dtype: torch.dtype, prefix: str = "") -> Spec:
    """The tensors of a module under published names: ``prefix`` is put back where the installed library dropped it."""
    state = module.state_dict()
    return {k if k.startswith(prefix) else prefix + k: (tuple(v.shape), dtype) for k, v in state.items()}


def layout(name: str) -> Layout:
    """The files of a zoo entry, without their numbers; networks are only made on the meta device."""
    with torch.device("meta"):
        if name == "lgm-big":
            from bozzetto.systems.lgm.network import LGM
            from bozzetto.systems.lgm.presets import BIG

            return Layout([Weights("model_fp16_fixrot.safetensors", spec_of(LGM(BIG), HALF), shape_lgm)], single=True)
        if name in ("l4gm-recon", "l4gm-interp"):
            from bozzetto.systems.l4gm.network import L4GM
            from bozzetto.systems.lgm.presets import BIG

            file = name.removeprefix("l4gm-") + ".safetensors"
            return Layout([Weights(file, spec_of(L4GM(BIG), FULL), shape_lgm)], single=True)
        if name == "triposr":
            from bozzetto.systems.triposr.config import TripoSRConfig
            from bozzetto.systems.triposr.network import TripoSR

            weights = Weights("model.ckpt", spec_of(TripoSR(TripoSRConfig()), FULL), shape_triposr)
            return Layout([weights], {"config.yaml": json.dumps(published.TRIPOSR, indent=1)})  # JSON is YAML
        if name in ("mvdream", "imagedream", "sd21-base"):
            return _diffusion(name)
        if name == "clip-vit-l14":
            return _clip()
        if name.startswith("shap-e-"):
            return _shap_e(name)
    raise ValueError(f"no full-size checkpoint called {name!r}; known: {', '.join(NAMES)}")


def _diffusion(name: str) -> Layout:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    from bozzetto.systems.mvdream.checkpoint import unet_config
    from bozzetto.systems.mvdream.network import MultiViewUNet

    variant = ".fp16" if name == "sd21-base" else ""
    if name == "sd21-base":
        config, unet = published.SD_UNET, UNet2DConditionModel.from_config(published.SD_UNET)
    else:
        config = {**published.UNET, "ip_dim": 16, "ip_weight": 1.0} if name == "imagedream" else published.UNET
        unet = MultiViewUNet(unet_config(config))
    text = spec_of(CLIPTextModel(CLIPTextConfig.from_dict(published.TEXT_ENCODER)), HALF, "text_model.")
    if name == "sd21-base":
        text["text_model.embeddings.position_ids"] = ((1, published.POSITIONS), torch.int64)
    parts = {
        f"unet/diffusion_pytorch_model{variant}": spec_of(unet, HALF),
        f"vae/diffusion_pytorch_model{variant}": spec_of(AutoencoderKL.from_config(published.VAE), HALF),
        f"text_encoder/model{variant}": text,
    }
    texts = {
        "unet/config.json": config,
        "vae/config.json": published.VAE,
        "text_encoder/config.json": published.TEXT_ENCODER,
    }
    texts |= {"scheduler/scheduler_config.json": published.SCHEDULER, "model_index.json": {"_class_name": name}}
    if name == "imagedream":
        vision = CLIPVisionModel(CLIPVisionConfig.from_dict(published.IMAGE_ENCODER))
        parts["image_encoder/model"] = spec_of(vision, HALF, "vision_model.")
        texts |= {"image_encoder/config.json": published.IMAGE_ENCODER}
        texts |= {"feature_extractor/preprocessor_config.json": published.FEATURE_EXTRACTOR}
    weights = [Weights(f"{path}.safetensors", spec, note={"format": "pt"}) for path, spec in parts.items()]
    return Layout(weights, {k: json.dumps(v) for k, v in texts.items()} | tokenizer_files("tokenizer/"))


def _clip() -> Layout:
    from transformers import CLIPConfig, CLIPModel

    spec = spec_of(CLIPModel(CLIPConfig.from_dict(published.CLIP)), FULL)
    spec["text_model.embeddings.position_ids"] = ((1, published.POSITIONS), torch.int64)
    vision = published.CLIP["vision_config"]
    places = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    spec["vision_model.embeddings.position_ids"] = ((1, places), torch.int64)
    weights = [Weights("model.safetensors", spec, note={"format": "pt"})]
    return Layout(weights, {"config.json": json.dumps(published.CLIP)} | tokenizer_files())


def _shap_e(name: str) -> Layout:
    from bozzetto.systems.shap_e.network import IMAGE300M, TEXT300M, LatentDiffusion
    from bozzetto.systems.shap_e.transmitter import Transmitter, TransmitterConfig

    if name == "shap-e-transmitter":
        config = TransmitterConfig()
        own = spec_of(Transmitter(config), FULL)
        spec = {("encoder." + k if k.startswith("params_proj.") else k): v for k, v in own.items()}
        for i in range(config.projected):  # stored, and replaced by the latent's weights
            spec[f"renderer.nerstf.mlp.{i}.weight"] = (config.layer_shape(i), FULL)
        spec |= {f"encoder.{k}": (shape, FULL) for k, shape in encoder_tensors(config.width)}
        return Layout([Weights("transmitter.pt", spec, shape_transmitter)], single=True)
    config = IMAGE300M if name == "shap-e-image" else TEXT300M
    spec = spec_of(LatentDiffusion(config), FULL)
    file = {"shap-e-text": "text_cond.pt", "shap-e-image": "image_cond.pt"}.get(name)
    return Layout([Weights(file or "shapE_finetuned_with_330kdata.pth", spec, trained=file is None)], single=True)


def encoder_tensors(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of Shap-E's encoder (point clouds and views -> latent), which only lies in the file."""

    def linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.weight", (outputs, inputs)), (f"{name}.bias", (outputs,)))

    def norms(*names: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.{end}", (width,)) for name in names for end in ("weight", "bias"))

    def block(name: str, projections: dict[str, int], number: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for projection, factor in projections.items():
            yield from linear(f"{name}.attn.{projection}", width, factor * width)
        yield from linear(f"{name}.mlp.c_fc", width, 4 * width)
        yield from linear(f"{name}.mlp.c_proj", 4 * width, width)
        yield from norms(*(f"{name}.ln_{i + 1}" for i in range(number)))

    yield "output_tokens", (width, width)
    for i in range(2):
        yield from block(f"encoder.{i}.resblocks.0", {"c_q": 1, "c_kv": 2, "c_proj": 1}, 3)
    for i in range(11):
        yield from block(f"processor.resblocks.{i}", {"c_qkv": 3, "c_proj": 1}, 2)
    yield from norms("ln_pre", "ln_post")
    yield from linear("output_proj", width, width)
    yield from linear("input_proj", 186, width)
    for i, inputs in enumerate((width + 3, width)):
        yield f"point_conv.mlp_convs.{i}.weight", (width, inputs, 8, 1)
        yield f"point_conv.mlp_convs.{i}.bias", (width,)
    yield "mv_pcl_embed.weight", (width // 2, 279, 3, 3)
    yield "mv_pcl_embed.bias", (width // 2,)
    yield "mv_pcl_embed.unk_token", (279,)
    yield "patch_emb.weight", (width, width // 2, 8, 8)
    yield "patch_emb.bias", (width,)


def tokenizer_files(prefix: str = "") -> dict[str, str]:
    """CLIP's byte-level tokenizer with few merges, filled up to the published number of tokens."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    merges = [("c", "h"), ("a", "i"), ("ai", "r</w>"), ("ch", "air</w>"), ("r", "e"), ("re", "d</w>")]
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges)]
    tokens += [f"unused-{i}" for i in range(published.VOCABULARY - 2 - len(tokens))]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "!" if prefix else "<|endoftext|>"
    config = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": published.POSITIONS,
        "do_lower_case": True,
    }
    return {
        f"{prefix}vocab.json": json.dumps(vocabulary),
        f"{prefix}merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
        f"{prefix}special_tokens_map.json": json.dumps(special),
        f"{prefix}tokenizer_config.json": json.dumps(config),
    }


NAMES = (
    "lgm-big",
    "imagedream",
    "mvdream",
    "triposr",
    "l4gm-recon",
    "l4gm-interp",
    "shap-e-transmitter",
    "shap-e-text",
    "shap-e-text-cap3d",
    "shap-e-image",
    "clip-vit-l14",
    "sd21-base",
)


def draw(key: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor on the CPU, drawn on ``device``: the same numbers every time for one name, shape and kind of device."""
    if not dtype.is_floating_point:
        return torch.arange(math.prod(shape)).reshape(shape)  # positions
    generator = torch.Generator(device).manual_seed(zlib.crc32(key.encode()))
    values = torch.randn(shape, generator=generator, device=device)
    if len(shape) >= 2:
        values /= math.prod(shape[1:]) ** 0.5
    elif key.endswith("weight"):  # gains of normalisations
        values = 1 + 0.1 * values
    else:
        values *= 0.05
    return values.to(dtype).cpu()


def write_full_size(name: str, folder: str | Path, device: torch.device | str = "cpu") -> Path:
    """Write the zoo entry ``name`` into ``folder``, one file in memory at a time; returns what ``--weights NAME=`` takes.

    Raises :class:`ValueError` for an unknown name.
    """
    from safetensors.torch import save_file

    plan, folder = layout(name), Path(folder)
    for path, content in plan.texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    for file in plan.weights:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        state: Any = {k: draw(k, shape, dtype, torch.device(device)) for k, (shape, dtype) in file.spec.items()}
        if file.shape is not None:
            file.shape(state)
        if path.suffix == ".safetensors":
            save_file(state, path, metadata=file.note)
            continue
        if file.trained:
            moments = [{"exp_avg": torch.zeros_like(v), "exp_avg_sq": torch.zeros_like(v)} for v in state.values()]
            optimiser = {"state": dict(enumerate(moments)), "param_groups": [{"params": list(range(len(moments)))}]}
            state = {"model_state_dict": state, "optimizer_state_dict": optimiser, "epoch": 0}
        torch.save(state, path)
    return folder / plan.weights[0].path if plan.single else folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    for name in options.names:
        begin = time.perf_counter()
        path = write_full_size(name, options.folder / name, options.device)
        size = sum(f.stat().st_size for f in (options.folder / name).rglob("*") if f.is_file())
        print(json.dumps({"name": name, "path": str(path), "bytes": size, "seconds": time.perf_counter() - begin}))


if __name__ == "__main__":
    main()
