"""TripoSR's network against reference outputs and against the published list of tensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bozzetto.errors import CheckpointError, ForegroundError
from bozzetto.systems.triposr.checkpoint import load_triposr
from bozzetto.systems.triposr.config import TripoSRConfig, ViTConfig, read_config
from bozzetto.systems.triposr.network import TripoSR
from bozzetto.systems.triposr.preprocess import composite_on_grey, prepare_photo, resize_foreground, resize_photos

sys.path.insert(0, str(Path(__file__).resolve().parent))
from micro_triposr import CONFIG, fill_seeded, write_config, write_micro_triposr

PUBLISHED = CONFIG  # the published file has the same form; only the numbers differ
for small, large in (
    ("cond_image_size: 64", "cond_image_size: 512"),
    ("plane_size: 8", "plane_size: 32"),
    ("num_channels: 64", "num_channels: 1024"),
    ("num_attention_heads: 4", "num_attention_heads: 16"),
    ("attention_head_dim: 16", "attention_head_dim: 64"),
    ("num_layers: 2", "num_layers: 16"),
    ("cross_attention_dim: 48", "cross_attention_dim: 768"),
    ("in_channels: 64", "in_channels: 1024"),
    ("out_channels: 8", "out_channels: 40"),
    ("in_channels: 24", "in_channels: 120"),
    ("n_neurons: 32", "n_neurons: 64"),
    ("n_hidden_layers: 3", "n_hidden_layers: 9"),
    ("num_samples_per_ray: 32", "num_samples_per_ray: 128"),
):
    PUBLISHED = PUBLISHED.replace(small, large)


def close(value, golden, tolerance=1e-4):
    """Within ``tolerance`` of the reference's standard deviation."""
    golden = torch.from_numpy(np.asarray(golden)).float()
    assert value.shape == golden.shape
    error = float((value - golden).abs().max() / golden.std())
    assert error < tolerance, error


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "parity" / "triposr"


@pytest.fixture(scope="module")
def model(fill, tmp_path_factory):
    network = TripoSR(read_config(write_config(tmp_path_factory.mktemp("micro"))))
    fill.fill_module(network)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs(fill, folder):
    listed = json.loads((folder / "micro.json").read_text())["inputs"]
    return {
        name: torch.from_numpy(fill.test_input(name, *spec))
        for name, spec in listed.items()
        if not isinstance(spec, str)
    }


def test_published_tensors(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    with torch.device("meta"):
        own = {k: list(v.shape) for k, v in TripoSR(TripoSRConfig()).state_dict().items()}
    published = {k: v["shape"] for k, v in manifest["state_dict"].items()}
    assert own == published and len(own) == 549
    assert sum(int(np.prod(s)) for s in own.values()) == manifest["n_elements"]


def test_micro_tensors(folder, model):
    listed = json.loads((folder / "micro.json").read_text())["state_dict"]
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == {k: v["shape"] for k, v in listed.items()}


def test_published_configuration_is_the_default(folder, tmp_path):
    (tmp_path / "config.yaml").write_text(PUBLISHED)
    config = read_config(tmp_path / "config.yaml")
    assert config == TripoSRConfig()
    published = json.loads((folder / "manifest.json").read_text())
    for part in ("tokenizer", "backbone", "post_processor", "decoder", "renderer"):
        for name, value in published["config"][part].items():
            assert getattr(getattr(config, part), name) == value, (part, name)
    assert config.cond_image_size == published["config"]["cond_image_size"]
    for name in ViTConfig.__dataclass_fields__:
        assert getattr(config.vit, name) == published["vit_config"][name]


def test_preprocessing(folder, inputs):
    golden = np.load(folder / "preprocess.npz")
    rgba = torch.from_numpy(golden["rgba"])
    square = resize_foreground(rgba, 0.85)
    assert torch.equal(square, torch.from_numpy(golden["resize_foreground"]))
    grey = composite_on_grey(square)
    assert torch.equal(grey, torch.from_numpy(golden["grey_composite"]))
    assert torch.equal(prepare_photo(rgba.float() / 255, 0.85), grey)
    for picture, name in (
        (grey, "processed_uint8"),
        (inputs["triposr/image"], "processed_float"),
        (inputs["triposr/image_small"], "processed_upsampled"),
    ):
        close(resize_photos([picture], 64).permute(0, 2, 3, 1), golden[name])


def test_image_to_triplane(folder, model, inputs):
    golden = np.load(folder / "image_to_triplane.npz")
    images = resize_photos([inputs["triposr/image"]], 64)
    seen = {}

    def keep(name):
        return lambda module, given, result: seen.__setitem__(name, result)

    parts = {
        "vit_embeddings": model.image_tokenizer.model.embeddings,
        "vit_layer0": model.image_tokenizer.model.encoder["layer"][0],
        "image_tokens": model.image_tokenizer,
        "backbone_block0": model.backbone.transformer_blocks[0],
        "backbone_block_last": model.backbone.transformer_blocks[-1],
        "backbone_out": model.backbone,
    }
    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    triplane = model(images)
    for hook in hooks:
        hook.remove()
    close(model.image_tokenizer.model.embeddings.positions(8, 8), golden["vit_position_embeddings"])
    close(seen["vit_embeddings"], golden["vit_embeddings"])
    close(seen["vit_layer0"], golden["vit_layer0"])
    close(seen["image_tokens"].transpose(1, 2)[:, None], golden["image_tokens"])
    close(model.tokenizer(1), golden["tokenizer_out"])
    close(seen["backbone_block0"], golden["backbone_block0"])
    close(seen["backbone_block_last"], golden["backbone_block_last"])
    close(seen["backbone_out"], golden["backbone_out"], 1e-3)
    close(triplane, golden["scene_codes"], 1e-3)


def test_backbone_and_upsampler_alone(folder, model, inputs):
    golden = np.load(folder / "backbone_and_upsample.npz")
    close(model.backbone(inputs["triposr/hidden"], inputs["triposr/context"]), golden["backbone"], 1e-3)
    close(model.post_processor(inputs["triposr/planes"]), golden["upsample"], 1e-3)


def test_a_batch_is_its_photos_one_by_one(model):
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    together = model(images)
    for i in range(3):
        close(model(images[i : i + 1])[0], together[i].numpy(), 1e-4)
    with pytest.raises(ValueError, match="64, 64"):
        model(images[..., :32])


def test_positions_of_the_native_size_are_not_touched(model):
    embeddings = model.image_tokenizer.model.embeddings
    assert embeddings.positions(6, 6) is embeddings.position_embeddings
    assert embeddings.positions(5, 7).shape == (1, 36, 48)


def test_opaque_photos_are_not_reframed():
    photo = torch.rand(20, 30, 4)
    photo[..., 3] = 1
    assert prepare_photo(photo, 0.85).shape == (20, 30, 3)


def test_stray_faint_pixels_do_not_shrink_the_object():
    rgba = torch.zeros(64, 64, 4)
    rgba[20:41, 20:41] = 1
    clean = prepare_photo(rgba, 0.85)
    rgba[2, 3] = torch.tensor([1.0, 1.0, 1.0, 3 / 255])
    rgba[60, 50, 3] = 0.04
    assert torch.equal(prepare_photo(rgba, 0.85), clean)
    ghost = torch.zeros(64, 64, 4)
    ghost[20:41, 20:41] = 0.04  # faint as a whole: still the object
    assert prepare_photo(ghost, 0.85).shape == clean.shape


@pytest.mark.parametrize("size", [0, 1])
def test_no_foreground(size):
    rgba = torch.zeros(16, 16, 4)
    rgba[4 : 4 + size, 3:9] = 1
    with pytest.raises(ForegroundError):
        prepare_photo(rgba, 0.85)


def test_tall_foreground_is_centred_at_its_ratio():
    rgba = torch.zeros(100, 40, 4, dtype=torch.uint8)
    rgba[10:61, 5:16] = 255  # 51 x 11, of which 50 x 10 are kept
    square = resize_foreground(rgba, 0.5)
    assert square.shape == (100, 100, 4)
    rows, columns = square[..., 3].any(1).nonzero(), square[..., 3].any(0).nonzero()
    assert (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])) == (25, 74, 45, 54)


def test_checkpoint_loads_from_folder_and_from_file(tmp_path):
    write_micro_triposr(tmp_path)
    a, b = load_triposr(tmp_path), load_triposr(tmp_path / "model.ckpt")
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(a(images), b(images))
    assert not a.training and not any(p.requires_grad for p in a.parameters())
    half = load_triposr(tmp_path, dtype=torch.bfloat16)
    assert half.decoder.layers[0].weight.dtype == torch.float32
    assert half(images).dtype == torch.bfloat16


def test_bad_checkpoints_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"must hold model\.ckpt"):
        load_triposr(tmp_path)
    write_micro_triposr(tmp_path)
    state = torch.load(tmp_path / "model.ckpt", weights_only=True)
    torch.save({"unet.conv_in.weight": torch.zeros(3)}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="no TripoSR checkpoint"):
        load_triposr(tmp_path)
    lgm = {"unet.conv_in.weight": torch.zeros(64, 9, 3, 3), "conv.weight": torch.zeros(14, 14, 1, 1)}
    torch.save(lgm, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="is an LGM checkpoint, not TripoSR"):
        load_triposr(tmp_path)
    damaged = {k: torch.full_like(v, torch.nan) if k == "backbone.norm.weight" else v for k, v in state.items()}
    torch.save(damaged, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"NaN or infinity in backbone\.norm\.weight"):
        load_triposr(tmp_path)
    torch.save({k: v for k, v in state.items() if k != "decoder.layers.0.bias"}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"decoder\.layers\.0\.bias"):
        load_triposr(tmp_path)
    torch.save(state, tmp_path / "model.ckpt")
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="does not fit"):  # now taken for the published size
        load_triposr(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tsr.models.network_utils.NeRFMLP", "os.system", "decoder_cls is 'os.system'"),
        ("${tokenizer.num_channels}", "${tokenizer.channels}", "refers to"),
        ("${tokenizer.num_channels}", "${backbone.in_channels}", "circle"),
        ("n_neurons: 32", "n_neurons: many", "n_neurons must be"),
        ("n_neurons: 32", "n_neurones: 32", "n_neurones is not known"),
        ("in_channels: 24", "in_channels: 25", "contradicts"),
        ("density_activation: exp", "density_activation: softplus", "softplus"),
        ("dino-vitb16", "dino-vits8", "not known"),
        ("cond_image_size: 64", "cond_image_size: 65", "multiple"),
        ("renderer:", "rendering:", "renderer is missing"),
        ("cond_image_size: 64", "cond_image_size: [64", "not YAML"),
        (CONFIG, "model: lgm", "not TripoSR's configuration"),
    ],
)
def test_bad_configurations_are_refused(tmp_path, old, new, message):
    file = write_config(tmp_path)
    text = CONFIG.replace(old, new)
    assert text != CONFIG
    file.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_config(file)


def test_fill_seeded_is_deterministic():
    a, b = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    fill_seeded(a)
    fill_seeded(b)
    assert torch.equal(a.weight, b.weight)
