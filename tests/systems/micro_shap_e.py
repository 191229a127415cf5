"""Shap-E checkpoints in the published file layout, for tests of the whole path: of toy size, or of the released size.

The transmitter is made such that its shapes are near-spheres whose dents and colours depend on the latent.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from bozzetto.systems.shap_e.network import IMAGE300M, TEXT300M, DiffusionConfig, LatentDiffusion
from bozzetto.systems.shap_e.transmitter import Transmitter, TransmitterConfig

WIDTH, HIDDEN = 32, 16
RADIUS = 0.6
EMBEDDING, TOWER = 24, 32

DIFFUSION_YAML = """\
name: SplitVectorDiffusion
inner:
  name: CLIPImage{grid}PointDiffusionTransformer
  width: 32
  layers: 2
  heads: {heads}
latent_ctx: 64
d_latent: 2048
"""


def micro_transmitter(seed: int = 0, width: int = WIDTH, hidden: int = HIDDEN) -> dict[str, Tensor]:
    """State dict of ``transmitter.pt`` in small, with a few of the encoder's tensors."""
    torch.manual_seed(seed)
    config = TransmitterConfig(width=width, hidden=hidden)
    with torch.device("meta"):
        model = Transmitter(config)
    state = {k: torch.randn(v.shape) / v.shape[-1] ** 0.5 for k, v in model.state_dict().items()}
    smooth = torch.zeros(93)
    smooth[[0, 1, 2, 3, 4, 5, 48, 49, 50]] = 1.0  # the coordinates, their sines, their cosines
    for i in range(config.projected):
        outputs, inputs = config.layer_shape(i)
        prefix = f"params_proj.projections.nerstf__mlp__{i}__weight"
        columns = smooth if i == 0 else torch.ones(inputs)
        # Channel 0 is cos x + cos y + cos z, handed on from layer to layer; the latent bends it a little.
        state[f"{prefix}.norm.weight"] = 0.05 * columns / columns.sum() ** 0.5
        state[f"{prefix}.norm.bias"] = torch.zeros(inputs)
        weight = torch.randn(outputs, inputs) * columns / columns.sum() ** 0.5
        weight[0] = 0
        weight[0, 48 : 51 if i == 0 else 0] = 1.0
        if i:
            weight[0, 0] = 1.0
        state[f"{prefix}.proj.bias"] = weight.flatten()
        state[f"renderer.nerstf.mlp.{i}.bias"] = torch.zeros(outputs)
    for i in (4, 5):
        state[f"renderer.nerstf.mlp.{i}.weight"][0] = 0
        state[f"renderer.nerstf.mlp.{i}.weight"][0, 0] = 1.0
        state[f"renderer.nerstf.mlp.{i}.bias"][0] = 0
    surface = torch.tensor(2 + torch.cos(torch.tensor(RADIUS)).item())
    for _ in range(6):
        surface = torch.nn.functional.silu(surface)
    head, bias = "renderer.nerstf.mlp.6.weight", "renderer.nerstf.mlp.6.bias"
    state[head][:3], state[bias] = 0, torch.zeros(12)
    for row, slope in enumerate((4.0, 200.0, 200.0)):  # signed distance, coarse and fine density
        state[head][row, 0], state[bias][row] = slope, -slope * surface
    state[head][3:, 0] = 0
    state["renderer.void.background"] = torch.zeros(3)
    published = {("encoder." + k if k.startswith("params_proj.") else k): v for k, v in state.items()}
    for i in range(config.projected):
        published[f"renderer.nerstf.mlp.{i}.weight"] = torch.randn(config.layer_shape(i))
    published["encoder.output_tokens"] = torch.randn(config.rows, width)
    published["encoder.ln_pre.weight"] = torch.randn(width)
    published["encoder.encoder.0.resblocks.0.attn.c_q.weight"] = torch.randn(width, width)
    return published


def micro_config(condition: str, heads: int) -> DiffusionConfig:
    """Shape of a toy text or image model."""
    size = {"context": 4 * HIDDEN, "channels": WIDTH, "width": WIDTH, "layers": 2}
    return DiffusionConfig(condition, heads=heads, embedding=EMBEDDING if condition == "text" else TOWER, **size)


def random_diffusion(config: DiffusionConfig, seed: int) -> dict[str, Tensor]:
    """State dict of ``text_cond.pt`` or ``image_cond.pt``."""
    torch.manual_seed(seed)
    return LatentDiffusion(config).state_dict()


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level vocabularies (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(256 - len(shown))]


def write_micro_clip(folder: Path, full: bool = False) -> Path:
    """A folder like ``openai/clip-vit-large-patch14``: config.json, model.safetensors, vocab.json, merges.txt."""
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    letters = byte_alphabet()
    merges = [("a", "b"), ("c", "h"), ("i", "r</w>"), ("a", "ir</w>"), ("ch", "air</w>")]
    words = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges]
    vocab = {w: i for i, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tower = {"num_hidden_layers": 2, "hidden_act": "quick_gelu", "hidden_size": TOWER, "intermediate_size": 4 * TOWER}
    ends = {
        "bos_token_id": len(vocab) - 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }  # the published config's wrong end token
    config = {
        "model_type": "clip",
        "projection_dim": EMBEDDING,
        "text_config": {**tower, **ends, "vocab_size": len(vocab), "num_attention_heads": 2},
        "vision_config": {**tower, "image_size": 32, "patch_size": 8, "num_attention_heads": 2},
    }
    if full:
        config["projection_dim"] = 768
        config["text_config"] |= {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        config["vision_config"] |= {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
        config["vision_config"] |= {"image_size": 224, "patch_size": 14, "num_hidden_layers": 24}
        config["text_config"]["num_hidden_layers"] = 12
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(3)
    state = CLIPModel(CLIPConfig.from_dict(config)).state_dict()
    state = {k: v.contiguous() for k, v in state.items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # published files hold these
    state["vision_model.embeddings.position_ids"] = torch.arange(257 if full else 17)[None]
    save_file(state, folder / "model.safetensors")
    return folder


def write_micro_shap_e(folder: Path, full: bool = False) -> dict[str, Path]:
    """All of Shap-E's zoo entries under ``folder``, in toy size or (``full``) the released one: entry name -> file or folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "shap-e-transmitter": folder / "transmitter.pt",
        "shap-e-text": folder / "text_cond.pt",
        "shap-e-image": folder / "image_cond.pt",
        "shap-e-text-cap3d": folder / "shapE_finetuned_with_330kdata.pth",
        "clip-vit-l14": write_micro_clip(folder / "clip", full),
    }
    text, image = (TEXT300M, IMAGE300M) if full else (micro_config("text", 4), micro_config("image", 2))
    torch.save(micro_transmitter(0, *((1024, 256) if full else (WIDTH, HIDDEN))), paths["shap-e-transmitter"])
    torch.save(random_diffusion(text, 1), paths["shap-e-text"])
    torch.save(random_diffusion(image, 2), paths["shap-e-image"])
    finetuned = {"model_state_dict": random_diffusion(text, 5), "epoch": 3, "optimizer_state_dict": {"state": {}}}
    torch.save(finetuned, paths["shap-e-text-cap3d"])
    if not full:  # the heads of the released sizes are known
        (folder / "text_cond_config.yaml").write_text(DIFFUSION_YAML.format(grid="", heads=4))
        (folder / "image_cond_config.yaml").write_text(DIFFUSION_YAML.format(grid="Grid", heads=2))
    return paths
