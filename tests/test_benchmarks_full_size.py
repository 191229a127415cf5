"""The full-size checkpoints that benchmarks write: their layout as published, and objects that come out."""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "systems"))

import full_size
import full_size_shapes
import micro_mvdream
import micro_triposr
import published_configs

from bozzetto.errors import MeshError
from bozzetto.systems.lgm.checkpoint import config_from_shapes, guess_preset, load_lgm
from bozzetto.systems.lgm.presets import BIG
from bozzetto.systems.mvdream.checkpoint import load_mvdream, unet_config
from bozzetto.systems.mvdream.network import MultiViewUNet
from bozzetto.systems.shap_e.checkpoint import diffusion_config, load_transmitter, split_transmitter, transmitter_config
from bozzetto.systems.shap_e.network import IMAGE300M, TEXT300M
from bozzetto.systems.shap_e.transmitter import Transmitter, TransmitterConfig
from bozzetto.systems.triposr.checkpoint import load_triposr
from bozzetto.systems.triposr.config import TripoSRConfig
from bozzetto.systems.triposr.config import read_config as read_triposr_config
from bozzetto.systems.triposr.network import TripoSR
from bozzetto.zoo import ENTRIES
from bozzetto.zoo.identify import recognise
from bozzetto.zoo.libraries import modern_keys, read_config

LETTERS = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}


@pytest.fixture(scope="module")
def layouts():
    return {name: full_size.layout(name) for name in full_size.NAMES}


def shapes_of(weights: full_size.Weights) -> dict[str, tuple[int, ...]]:
    return {k: shape for k, (shape, _) in weights.spec.items()}


def safetensors_size(weights: full_size.Weights) -> int:
    """Bytes of the file: eight, the header padded to eight, the numbers."""
    header, end = {"__metadata__": weights.note} if weights.note else {}, 0
    for key, (shape, dtype) in sorted(weights.spec.items(), key=lambda x: (-x[1][1].itemsize, x[0])):
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": LETTERS[dtype], "shape": list(shape), "data_offsets": [start, end]}
    return 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8 + end


@pytest.mark.parametrize("name", full_size.NAMES)
def test_files_have_the_published_names_and_sizes(layouts, name):
    published = {f.path: f for f in ENTRIES[name].files}
    for weights in layouts[name].weights:
        path = next(p for p in published if p == weights.path or p.endswith("/" + weights.path))
        size, about = published[path].size, published[path].about
        numbers = sum(math.prod(s) * d.itemsize for s, d in weights.spec.values()) * (3 if weights.trained else 1)
        if path.endswith(".safetensors") and size:
            assert safetensors_size(weights) == size
        assert 0.999 * (size or about) < numbers < 1.001 * (size or about)
    needed = {p for p, f in published.items() if not f.optional} - {w.path for w in layouts[name].weights}
    extra = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "preprocessor_config.json"}
    assert {p for p in needed if Path(p).name not in extra and len(published) > 1} <= layouts[name].texts.keys()


@pytest.mark.parametrize("name", full_size.NAMES)
def test_tensors_are_recognised(layouts, name):
    weights = layouts[name].weights[0]
    kind = recognise(shapes_of(weights), weights.path)
    assert kind is not None
    assert kind.entry == {"shap-e-text-cap3d": "shap-e-text", "sd21-base": ""}.get(name, name)


def test_lgm_and_l4gm_are_the_big_ones(layouts):
    assert guess_preset(shapes_of(layouts["lgm-big"].weights[0])) == "big"
    for name in ("l4gm-recon", "l4gm-interp"):
        assert config_from_shapes(shapes_of(layouts[name].weights[0]), name) == BIG


def test_triposr_is_the_published_one(layouts, tmp_path):
    (tmp_path / "config.yaml").write_text(layouts["triposr"].texts["config.yaml"])
    assert read_triposr_config(tmp_path / "config.yaml") == TripoSRConfig()


def test_shap_e_is_the_released_one(layouts):
    def shapes(name):
        return shapes_of(layouts[name].weights[0])

    assert diffusion_config(shapes("shap-e-text")) == diffusion_config(shapes("shap-e-text-cap3d")) == TEXT300M
    assert diffusion_config(shapes("shap-e-image")) == IMAGE300M
    used, unused = split_transmitter(
        {k: torch.empty(s, device="meta") for k, s in shapes("shap-e-transmitter").items()}
    )
    config = transmitter_config({k: tuple(v.shape) for k, v in used.items()})
    with torch.device("meta"):
        own = {k: v.shape for k, v in Transmitter(config).state_dict().items()}
    assert config == TransmitterConfig() and own == {k: v.shape for k, v in used.items()}
    assert len(unused) + len(used) == len(shapes("shap-e-transmitter"))


@pytest.mark.parametrize("name", ["imagedream", "mvdream", "sd21-base"])
def test_diffusion_folders_fit_the_loaders_networks(layouts, name, tmp_path):
    """As the loaders do it, on the meta device: the networks of the config files have the weights files' tensors."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    for path, content in layouts[name].texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    builders = {
        "unet": lambda c: UNet2DConditionModel.from_config(c) if "sd" in name else MultiViewUNet(unet_config(c)),
        "vae": AutoencoderKL.from_config,
        "text_encoder": lambda c: CLIPTextModel(CLIPTextConfig.from_dict(c)),
        "image_encoder": lambda c: CLIPVisionModel(CLIPVisionConfig.from_dict(c)),
    }
    for weights in layouts[name].weights:
        part = weights.path.split("/")[0]
        with torch.device("meta"):
            module = builders[part](read_config(tmp_path / part))
            given = {k: torch.empty(s) for k, s in shapes_of(weights).items()}
        own = {k: v.shape for k, v in module.state_dict().items()}
        assert {k: v.shape for k, v in modern_keys(given, module).items()} == own


def test_names_and_shapes_agree_with_reference_manifests(layouts, shared):
    def entries(path, *keys):
        data = json.loads((shared / "parity" / path).read_text())
        for key in keys:
            data = data[key]
        rows = data.items() if isinstance(data, dict) else ((e["key"], e) for e in data)
        return {k: tuple(v["shape"]) for k, v in rows}

    def own(name, part=""):
        found = next(w for w in layouts[name].weights if w.path.startswith(part))
        return {k: s for k, s in shapes_of(found).items() if not k.endswith("position_ids")}

    assert own("lgm-big") == entries("lgm/manifest_lgm_big.json", "entries")
    assert own("l4gm-recon") == own("l4gm-interp") == entries("l4gm/manifest_big.json", "entries")
    assert own("triposr") == entries("triposr/manifest.json", "state_dict")
    for name in ("imagedream", "mvdream"):
        assert own(name, "unet") == entries(f"lgm/manifest_{name}_unet.json", "entries")
    for name in ("imagedream", "mvdream", "sd21-base"):
        assert own(name, "vae") == entries("lgm/manifest_vae.json", "entries")
        assert own(name, "text") == entries("lgm/manifest_clip_text_sd21.json", "entries")
    assert own("imagedream", "image") == entries("lgm/manifest_clip_vision_vith14.json", "entries")
    shap_e = {"shap-e-text": "text300M", "shap-e-text-cap3d": "text300M", "shap-e-image": "image300M"}
    for name, key in (shap_e | {"shap-e-transmitter": "transmitter"}).items():
        assert own(name) == entries("shap_e/manifest.json", key, "state_dict")


def test_draws_are_a_function_of_the_name():
    cpu = torch.device("cpu")
    a = full_size.draw("a.weight", (300, 40, 3), torch.float16, cpu)
    assert torch.equal(a, full_size.draw("a.weight", (300, 40, 3), torch.float16, cpu))
    assert not torch.equal(a, full_size.draw("b.weight", (300, 40, 3), torch.float16, cpu))
    assert a.dtype == torch.float16 and abs(float(a.float().std()) - 120**-0.5) < 0.002
    assert abs(float(full_size.draw("norm.weight", (1000,), torch.float32, cpu).mean()) - 1) < 0.02
    assert full_size.draw("norm.bias", (1000,), torch.float32, cpu).abs().max() < 0.25
    assert torch.equal(full_size.draw("x", (1, 3), torch.int64, cpu), torch.tensor([[0, 1, 2]]))


def test_unknown_name():
    with pytest.raises(ValueError, match="lgm-big"):
        full_size.layout("lgm-huge")


@pytest.fixture
def small(monkeypatch):
    """Toy sizes in place of the published configurations."""
    vocabulary = 600
    monkeypatch.setattr(published_configs, "VOCABULARY", vocabulary)
    for name in ("UNET", "VAE", "TEXT_ENCODER", "IMAGE_ENCODER", "FEATURE_EXTRACTOR"):
        config = copy.deepcopy(getattr(micro_mvdream, name))
        config |= {"vocab_size": vocabulary, "eos_token_id": 599} if name == "TEXT_ENCODER" else {}
        monkeypatch.setattr(published_configs, name, config)


def test_written_folders_load_and_run(small, tmp_path):
    folder = full_size.write_full_size("imagedream", tmp_path)
    model = load_mvdream(folder)
    weight = model.unet.state_dict()["time_embed.0.weight"]
    drawn = full_size.draw("time_embed.0.weight", tuple(weight.shape), torch.float16, torch.device("cpu"))
    assert torch.equal(weight, drawn.float())
    assert model.tokenizer("a red chair")["input_ids"][0::10][0] == 598
    views = model.generate(["a red chair"], torch.rand(1, 64, 64, 3), steps=1, seed=0)
    assert bool(torch.isfinite(views).all())


def write(monkeypatch, folder, module, weights_file, shape, texts=None, single=False):
    """Write a small network's checkpoint with the code that writes the full-size ones."""
    spec = full_size.spec_of(module, torch.float32)
    plan = full_size.Layout([full_size.Weights(weights_file, spec, shape)], texts or {}, single)
    monkeypatch.setattr(full_size, "layout", lambda name: plan)
    return full_size.write_full_size("any", folder)


def test_lgm_has_visible_gaussians(monkeypatch, tmp_path):
    from micro_lgm import MICRO

    from bozzetto.systems.lgm.network import LGM
    from bozzetto.systems.lgm.pipeline import reconstruct_views

    path = write(monkeypatch, tmp_path, LGM(MICRO), "model.safetensors", full_size_shapes.shape_lgm, single=True)
    gaussians = reconstruct_views(load_lgm(path), torch.rand(4, 256, 256, 4))
    assert float((gaussians.opacities > 0.5).float().mean()) > 0.8 and gaussians.scales.max() < 1


def test_triposr_has_a_ball(monkeypatch, tmp_path):
    """The published depth and decoder, narrower."""
    from bozzetto.surface.field_mesh import field_to_mesh
    from bozzetto.systems.triposr.pipeline import photos_to_fields

    config = copy.deepcopy(published_configs.TRIPOSR)
    config["cond_image_size"] = 64
    config["tokenizer"]["num_channels"] = config["post_processor"]["in_channels"] = 64
    config["backbone"] |= {"in_channels": 64, "num_attention_heads": 4, "attention_head_dim": 16}
    config["backbone"] |= {"cross_attention_dim": micro_triposr.VIT["hidden_size"]}
    micro_triposr.write_config(tmp_path)  # for the ViT's
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    with torch.device("meta"):
        model = TripoSR(read_triposr_config(tmp_path / "config.yaml"))
    write(monkeypatch, tmp_path, model, "model.ckpt", full_size_shapes.shape_triposr)
    field = photos_to_fields(load_triposr(tmp_path), [torch.rand(48, 48, 4)])[0]
    given = {"bounds": field.bounds, "resolution": 48, "texture": "vertex"}
    mesh = field_to_mesh(field.density, field.colour, level=25.0, **given)
    radius = mesh.vertices.norm(dim=-1) / 0.87
    assert abs(float(radius.mean()) - 0.3**0.5) < 0.02 and 0 < float(radius.std()) < 0.02
    with pytest.raises(MeshError):
        field_to_mesh(field.density, field.colour, level=1e12, **given)


def test_shap_e_has_balls(monkeypatch, tmp_path):
    """The released function, from a narrower latent."""
    from bozzetto.systems.shap_e.mesh import extract, sdf_grid

    config = TransmitterConfig(width=8)
    with torch.device("meta"):
        model = Transmitter(config)
    own = model.state_dict
    monkeypatch.setattr(
        model, "state_dict", lambda: {("encoder." if k.startswith("params") else "") + k: v for k, v in own().items()}
    )
    path = write(monkeypatch, tmp_path, model, "transmitter.pt", full_size_shapes.shape_transmitter, single=True)
    decoder = load_transmitter(path)
    seen = []
    for seed, size in enumerate((0.3, 1.0, 5.0)):
        latent = size * torch.randn(config.rows * config.width, generator=torch.Generator().manual_seed(seed))
        vertices, faces = extract(sdf_grid(decoder.fields(latent), 24))
        radius = vertices.norm(dim=-1)
        assert 0.4 < float(radius.mean()) < 0.75 and float(radius.std()) < 0.08 and len(faces) > 500
        seen.append(float(radius.mean()))
    assert len(set(seen)) == 3


def test_command_that_writes(tmp_path, monkeypatch, capsys):
    spec = {"a.weight": ((4, 2), torch.float16)}
    plan = full_size.Layout([full_size.Weights("model.pth", spec, trained=True)], single=True)
    monkeypatch.setattr(full_size, "layout", lambda name: plan)
    monkeypatch.setattr(sys, "argv", ["full_size.py", str(tmp_path), "lgm-big", "--device", "cpu"])
    full_size.main()
    about = json.loads(capsys.readouterr().out)
    assert about["name"] == "lgm-big" and about["bytes"] == Path(about["path"]).stat().st_size
    saved = torch.load(about["path"], weights_only=True)
    assert saved["model_state_dict"]["a.weight"].shape == (4, 2)
    assert saved["optimizer_state_dict"]["state"][0]["exp_avg"].shape == (4, 2)
