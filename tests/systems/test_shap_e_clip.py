"""CLIP through the transformers package against reference outputs of OpenAI's code, and the handling of prompts."""

import json
import re
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from micro_shap_e import write_micro_clip

from bozzetto.errors import CheckpointError, InputError
from bozzetto.systems.shap_e.clip import (
    MEAN,
    STD,
    ClipGrid,
    ClipText,
    clean_prompt,
    load_clip_grid,
    load_clip_text,
    pad_tokens,
)


def relative(got, want) -> float:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / want.std())


def library_keys(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenAI's key names -> those of the transformers package."""
    names = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    }
    parts = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    out = {}
    for key, value in state.items():
        if key in names:
            out[names[key]] = value
            continue
        if key in ("text_projection", "visual.proj"):
            out[{"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}[key]] = value.T
            continue
        for old, new in parts.items():
            key = key.replace(old, new) if key.startswith(old) or "resblocks" in key else key
        key = re.sub(r"^visual\.transformer\.resblocks", "vision_model.encoder.layers", key)
        key = re.sub(r"^transformer\.resblocks", "text_model.encoder.layers", key)
        if "attn.in_proj_" in key:
            for letter, chunk in zip("qkv", value.chunk(3)):
                out[key.replace("attn.in_proj_", f"self_attn.{letter}_proj.")] = chunk
        else:
            out[key] = value
    return out


@pytest.fixture(scope="module")
def reference(shared, fill):
    """(the library's model with the reference weights, reference outputs, input picture)."""
    from transformers import CLIPConfig, CLIPModel

    spec = json.loads((shared / "parity/shap_e/micro.json").read_text())["systems"]["clip"]
    c = spec["config"]
    config = CLIPConfig.from_dict(
        {
            "projection_dim": c["embed_dim"],
            "text_config": {
                "hidden_size": c["transformer_width"],
                "intermediate_size": 4 * c["transformer_width"],
                "num_hidden_layers": c["transformer_layers"],
                "num_attention_heads": c["transformer_heads"],
                "vocab_size": c["vocab_size"],
                "hidden_act": "quick_gelu",
                "projection_dim": c["embed_dim"],
                "eos_token_id": 2,
            },
            "vision_config": {
                "hidden_size": c["vision_width"],
                "intermediate_size": 4 * c["vision_width"],
                "num_hidden_layers": c["vision_layers"],
                "num_attention_heads": max(c["vision_width"] // 64, 1),
                "image_size": c["image_resolution"],
                "patch_size": c["vision_patch_size"],
                "hidden_act": "quick_gelu",
            },
        }
    )
    model = CLIPModel(config).eval().requires_grad_(False)
    state = {
        k: torch.from_numpy(np.asarray(fill.fill_array(k, tuple(v["shape"])))).reshape(v["shape"])
        for k, v in spec["state_dict"].items()
    }
    model.load_state_dict(library_keys(state))
    golden = np.load(shared / "parity/shap_e/clip_micro.npz")
    image = torch.from_numpy(fill.test_input("clip/image", *[tuple(spec["inputs"]["clip/image"][0])], -1.5, 1.5))
    return model, golden, image


class TextHalf(torch.nn.Module):
    """What ``CLIPTextModelWithProjection`` holds, taken from a whole model."""

    def __init__(self, model) -> None:
        super().__init__()
        self.text_model, self.text_projection, self.config = (
            model.text_model,
            model.text_projection,
            model.config.text_config,
        )


def test_text_embedding(reference):
    model, golden, _ = reference
    got = ClipText(TextHalf(model), None).embed_tokens(torch.from_numpy(golden["text_ids"]))
    assert relative(got, golden["text_embedding_normalised"]) < 1e-4
    raw = golden["text_features"]
    assert relative(got, raw / np.linalg.norm(raw, axis=-1, keepdims=True)) < 1e-4


def test_patch_features_and_image_embedding(reference):
    model, golden, image = reference
    assert relative(ClipGrid(model.vision_model).embed_pixels(image), golden["image_grid"]) < 1e-4
    pooled = model.visual_projection(model.vision_model(pixel_values=image).pooler_output)
    assert relative(pooled, golden["image_features"]) < 1e-4
    normalised = torch.nn.functional.normalize(pooled, dim=-1)
    assert relative(normalised, golden["image_embedding_normalised"]) < 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_micro_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def text(folder):
    return load_clip_text(folder)


def test_tokens_of_a_prompt(text):
    vocab = text.tokenizer.get_vocab()
    start, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    ids = text.tokenize(["  A chair  ", "ch &amp;amp; b"])
    assert ids.shape == (2, 77)
    assert ids[0, :5].tolist() == [start, vocab["a</w>"], vocab["chair</w>"], end, 0]
    assert ids[1, :6].tolist() == [start, vocab["c"], vocab["h</w>"], vocab["&</w>"], vocab["b</w>"], end]
    assert int(ids[:, 6:].max()) == 0


def test_long_prompt_is_cut_with_a_warning(text):
    end = text.tokenizer.get_vocab()["<|endoftext|>"]
    with pytest.warns(UserWarning, match="the text encoder reads 77; ignored: 'b b b"):
        ids = text.tokenize(["b " * 5000])
    assert ids.shape == (1, 77) and int(ids[0, -1]) == end and 0 not in ids[0].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(text.tokenize(["b " * 75])[0, -1]) == end  # just fits


def test_empty_and_foreign_prompts(text):
    for empty in ("", "  \n", "&nbsp;"):
        with pytest.raises(InputError, match="prompt is empty"):
            text([empty])
    assert clean_prompt("a &lt;b&gt;") == "a <b>"
    embedded = text(["椅子", "стул", "🪑"])
    assert bool(torch.isfinite(embedded).all()) and not torch.allclose(embedded[0], embedded[1])


def test_padding_does_not_change_an_embedding(text):
    ids = text.tokenize(["a chair"])
    assert torch.allclose(text.embed_tokens(ids), text.embed_tokens(ids[:, :4]), atol=1e-5)


def test_pad_tokens():
    assert pad_tokens([[7, 1, 9], [7, 1, 2, 3, 4, 9]], 4).tolist() == [[7, 1, 9, 0], [7, 1, 2, 9]]


def test_preprocess_takes_the_middle_square(folder):
    grid = load_clip_grid(folder)
    picture = torch.zeros(64, 128, 3)
    picture[:, 32:96] = 1.0
    pixels = grid.preprocess([picture, torch.ones(32, 32, 3)])
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert pixels.shape == (2, 3, 32, 32)
    assert torch.allclose(pixels[0, :, 5:27, 5:27], white[:, None, None].expand(3, 22, 22), atol=1e-5)
    assert torch.allclose(pixels[1, :, 0, 0], white, atol=1e-5)
    assert grid([picture]).shape == (1, 32, 16)


def test_damaged_folders_are_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match="holds no CLIP"):
        load_clip_text(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"no weights in .*model\.safetensors"):
        load_clip_grid(tmp_path)
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["text_model.final_layer_norm.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 missing: text_model\.final_layer_norm\.weight"):
        load_clip_text(tmp_path)
