"""The encoders around the diffusion network: values, published names, preprocessing, prompts."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from micro_mvdream import FEATURE_EXTRACTOR, published_state, write_micro_mvdream, write_tokenizer

from bozzetto.errors import CheckpointError, InputError, MissingDependencyError
from bozzetto.systems.mvdream.checks import check_prompts
from bozzetto.systems.mvdream.pictures import ClipPreprocess, decode_latents, latent_moments
from bozzetto.systems.mvdream.vae import VAE, VAEConfig
from bozzetto.zoo.libraries import load_tokenizer, materialize, modern_keys, tokenize
from bozzetto.zoo.loading import load_state

PREFIX = {"vae": "", "text_encoder": "text_model.", "image_encoder": "vision_model."}


def build(part: str, config: dict) -> torch.nn.Module:
    """A network, ours or a library's, on the meta device."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    with torch.device("meta"):
        if part == "vae":
            return VAE(VAEConfig.from_config(config))
        if part == "text_encoder":
            return CLIPTextModel(CLIPTextConfig.from_dict(config))
        return CLIPVisionModel(CLIPVisionConfig.from_dict(config))


@pytest.fixture(scope="module")
def filled(fill):
    """Networks with the reference's deterministic weights, loaded from published names as a file's would be."""

    def make(part: str, config: dict) -> torch.nn.Module:
        module = build(part, config)

        def values(key: str, shape: tuple[int, ...]) -> torch.Tensor:
            return torch.from_numpy(np.asarray(fill.fill_array(key, shape)))

        state = published_state(module, values, PREFIX[part])
        module = materialize(module, "cpu", torch.float32)
        load_state(module, modern_keys(state, module), part)
        return module.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "parity" / "lgm"
    index = json.loads((folder / "goldens_mvdream.json").read_text())
    return index["encoders_micro.npz"]["config"], dict(np.load(folder / "encoders_micro.npz"))


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=tolerance)


def test_vae(golden, filled, fill):
    config, arrays = golden
    vae = filled("vae", config["vae"])
    assert vae.factor == 8
    picture = torch.from_numpy(fill.test_input("encoders/vae_image", (1, 3, 32, 32), -1, 1))
    mean, std = latent_moments(vae, picture[0].permute(1, 2, 0) / 2 + 0.5, 32)
    close(mean, arrays["vae_mean"][0])
    close(2 * std.log(), arrays["vae_logvar"][0])
    latent = torch.from_numpy(fill.test_input("encoders/vae_latent", (1, 4, 4, 4), -(3**0.5), 3**0.5))
    close(vae.decode(latent), arrays["vae_decoded"])
    decoded = decode_latents(vae, latent * 0.18215)
    close(decoded[0].permute(2, 0, 1), (arrays["vae_decoded"][0] / 2 + 0.5).clip(0, 1))
    several = torch.cat([latent, -latent, 2 * latent]) * 0.18215
    close(decode_latents(vae, several, chunk=2), decode_latents(vae, several, chunk=3).numpy(), 1e-5)


def test_clip(golden, filled, fill):
    config, arrays = golden
    vision = filled("image_encoder", config["image_encoder"])
    pixels = torch.from_numpy(fill.test_input("encoders/pixel_values", (2, 3, 28, 28), -2, 2))
    close(vision(pixels, output_hidden_states=True).hidden_states[-2], arrays["vision_hidden_penultimate"])
    text = filled("text_encoder", config["text_encoder"])
    close(text(input_ids=torch.from_numpy(arrays["text_ids"])).last_hidden_state, arrays["text_last_hidden"])


@pytest.mark.parametrize(
    ("manifest", "part"),
    [("vae", "vae"), ("clip_text_sd21", "text_encoder"), ("clip_vision_vith14", "image_encoder")],
)
def test_published_names_fit_the_installed_libraries(shared, manifest, part):
    content = json.loads((shared / "parity" / "lgm" / f"manifest_{manifest}.json").read_text())
    entries = next(v for v in content.values() if isinstance(v, list))
    published = {e["key"]: torch.empty(e["shape"], device="meta") for e in entries}
    assert len(published) == content["num_entries"]
    module = build(part, content["config"])
    renamed = modern_keys(published, module)
    own = module.state_dict()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in own.items()}


def test_names_of_old_files(golden):
    config, _ = golden
    vae = build("vae", config["vae"])
    old = {}
    for key, tensor in vae.state_dict().items():
        for new_name, old_name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            if f".attentions.0.{new_name}." in key:
                key = key.replace(new_name, old_name)
                tensor = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
        old[key] = tensor
    assert old.keys() != vae.state_dict().keys()
    assert {k: v.shape for k, v in modern_keys(old, vae).items()} == {k: v.shape for k, v in vae.state_dict().items()}
    text = build("text_encoder", config["text_encoder"])
    with_buffer = {"text_model.embeddings.position_ids": torch.arange(8)[None], **text.state_dict()}
    assert modern_keys(with_buffer, text).keys() == text.state_dict().keys()


@pytest.mark.parametrize("shape", [(72, 72), (300, 451), (451, 300), (20, 31), (224, 224), (225, 224)])
def test_clip_preprocessing_equals_transformers(shape):
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:
        from transformers import CLIPImageProcessor as Processor
    processor = Processor()
    ours = ClipPreprocess.from_config(processor.to_dict())
    assert ours == ClipPreprocess()
    rgb = torch.rand(*shape, 3, generator=torch.Generator().manual_seed(3))
    levels = (rgb.numpy() * 255).astype(np.uint8)
    theirs = np.asarray(processor(images=levels, return_tensors="np")["pixel_values"][0])
    close(ours(rgb), theirs, 1e-5)


def test_old_and_new_preprocessor_files_mean_the_same():
    new = ClipPreprocess.from_config(FEATURE_EXTRACTOR)
    assert new == ClipPreprocess.from_config({**FEATURE_EXTRACTOR, "size": 28, "crop_size": 28})
    assert new.resize == new.crop == 28


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens") / "tokenizer"
    write_tokenizer(folder)
    return load_tokenizer(folder)


def test_tokens(tokenizer):
    cat, dog, start, end = (
        tokenizer.get_vocab()[t] for t in ("cat</w>", "dog</w>", "<|startoftext|>", "<|endoftext|>")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = tokenize(tokenizer, ["", "Cat  DOG", "黒い猫 🐈"], 20)
    assert ids.shape == (3, 20) and ids.dtype == torch.int64
    assert ids[0].tolist() == [start, end] + 18 * [0]  # padded with "!", as published
    assert ids[1].tolist() == [start, cat, dog, end] + 16 * [0]
    assert end in ids[2].tolist() and len(set(ids[2].tolist())) > 8


def test_the_special_tokens_file_wins_over_the_tokenizer_config(tmp_path):
    """Stable Diffusion 2.1's two files disagree; padding with anything but "!" (id 0) would change every prompt."""
    folder = tmp_path / "tokenizer"
    write_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "<|endoftext|>"}))
    assert tokenize(load_tokenizer(folder), [""], 5).tolist()[0][2:] == [0, 0, 0]


def test_a_long_prompt_is_cut_with_a_warning_that_says_what(tokenizer):
    with pytest.warns(
        UserWarning, match=r"has 12 tokens, the text encoder reads 8; ignored: 'dog dog red dog'"
    ) as caught:
        ids = tokenize(tokenizer, ["cat", "cat cat cat cat cat cat dog dog red dog"], 8)
    assert len(caught) == 1
    assert tokenizer.decode(ids[1, 1:-1]).split() == ["cat"] * 6
    assert ids[1, -1] == tokenizer.eos_token_id


def test_prompts_that_are_refused(tmp_path):
    assert check_prompts("x" * 10_000) == ["x" * 10_000]
    with pytest.raises(InputError, match="10,001 characters"):
        check_prompts(["fine", "x" * 10_001])
    with pytest.raises(InputError, match="must be text, got int"):
        check_prompts([3])
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        load_tokenizer(tmp_path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    write_tokenizer(tmp_path / "tokenizer")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"transformers.*bozzetto\[diffusion\]"):
        load_tokenizer(tmp_path / "tokenizer")


def test_the_libraries_are_imported_only_when_something_is_loaded():
    code = "import sys, bozzetto.systems.mvdream.checkpoint; print({'diffusers', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_pictures_are_made_without_diffusers(tmp_path):
    folder = write_micro_mvdream(tmp_path)["imagedream"]
    code = f"""
import sys, torch
sys.modules["diffusers"] = None
from bozzetto.systems.mvdream.checkpoint import load_mvdream
views = load_mvdream({str(folder)!r}).generate("a cat", torch.rand(1, 16, 16, 3), steps=1, size=32)
print(tuple(views.shape))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 1, 4, 32, 32, 3)", done.stderr
