"""A checkpoint is recognised by its tensors, and one of the wrong system is named as such."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bozzetto.errors import CheckpointError
from bozzetto.systems.lgm.checkpoint import load_lgm, save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.zoo import ENTRIES, identify_file, load, locate
from bozzetto.zoo.identify import identify, read_shapes, recognise, wrong_system_error
from bozzetto.zoo.loading import load_state, read_tensors
from bozzetto.zoo.local import bundled_path, check_file


def manifest(shared, name, part=None):
    """Names and shapes of a published checkpoint."""
    content = json.loads((shared / "parity" / name).read_text())
    content = content[part] if part else content
    if "entries" in content:
        return {e["key"]: tuple(e["shape"]) for e in content["entries"]}
    return {k: tuple(v["shape"] if isinstance(v, dict) else v) for k, v in content["state_dict"].items()}


@pytest.mark.parametrize(
    ("file", "part", "entry"),
    [
        ("lgm/manifest_lgm_big.json", None, "lgm-big"),
        ("lgm/manifest_lgm_tiny.json", None, "lgm-big"),
        ("l4gm/manifest_big.json", None, "l4gm-recon"),
        ("triposr/manifest.json", None, "triposr"),
        ("lgm/manifest_imagedream_unet.json", None, "imagedream"),
        ("lgm/manifest_mvdream_unet.json", None, "mvdream"),
        ("shap_e/manifest.json", "text300M", "shap-e-text"),
        ("shap_e/manifest.json", "image300M", "shap-e-image"),
        ("shap_e/manifest.json", "transmitter", "shap-e-transmitter"),
    ],
)
def test_published_checkpoints(shared, file, part, entry):
    shapes = manifest(shared, file, part)
    kind = identify(shapes, "w.pt")
    assert kind.entry == entry and kind.system == ENTRIES[entry].system
    assert recognise({f"module.{k}": v for k, v in shapes.items()}) == kind  # saved from a parallel run


@pytest.mark.parametrize(
    ("file", "part", "title"),
    [
        ("lgm/manifest_vae.json", None, "VAE"),
        ("lgm/manifest_clip_text_sd21.json", None, "CLIP text encoder"),
        ("lgm/manifest_clip_vision_vith14.json", None, "CLIP image encoder"),
        ("shap_e/manifest.json", "clip_vit_l_14", "OpenAI's own layout"),
    ],
)
def test_parts_that_cannot_be_used_alone(shared, file, part, title):
    with pytest.raises(CheckpointError, match=title):
        identify(manifest(shared, file, part), "w.pt")


def test_the_sizes_and_counts_of_the_list_agree_with_the_manifests(shared):
    """What the zoo states of a network's size is what its tensors add up to."""
    counts = {
        "lgm-big": [("lgm/manifest_lgm_big.json", None)],
        "l4gm-recon": [("l4gm/manifest_big.json", None)],
        "l4gm-interp": [("l4gm/manifest_big.json", None)],
        "triposr": [("triposr/manifest.json", None)],
        "shap-e-text": [("shap_e/manifest.json", "text300M")],
        "shap-e-text-cap3d": [("shap_e/manifest.json", "text300M")],
        "shap-e-image": [("shap_e/manifest.json", "image300M")],
        "shap-e-transmitter": [("shap_e/manifest.json", "transmitter")],
        "imagedream": [
            (f"lgm/manifest_{n}.json", None) for n in ("imagedream_unet", "vae", "clip_text_sd21", "clip_vision_vith14")
        ],
        "mvdream": [(f"lgm/manifest_{n}.json", None) for n in ("mvdream_unet", "vae", "clip_text_sd21")],
        "clip-vit-l14": [("shap_e/manifest.json", "clip_vit_l_14")],
    }
    for name, parts in counts.items():
        numbers = sum(torch.Size(s).numel() for part in parts for s in manifest(shared, *part).values())
        entry = ENTRIES[name]
        assert abs(entry.parameters - numbers) <= 3, (name, numbers)  # OpenAI's file also holds three settings
        width = 2 if "fp16" in entry.file or entry.system == "mvdream" else 4
        if name != "shap-e-text-cap3d":  # that file also holds the optimiser's state
            assert entry.bytes_to_fetch == pytest.approx(numbers * width, rel=4e-3)
    published = json.loads((shared / "parity/lgm/manifest_lgm_big.json").read_text())[
        "published_fp16_safetensors_bytes"
    ]
    assert ENTRIES["lgm-big"].size == published


def test_bundled_weights_and_own_files(tmp_path):
    for name in ("lgm-mini", "u2netp"):
        assert identify(read_shapes(bundled_path(f"{name}.safetensors")), "w").entry == name
    torch.manual_seed(0)
    model = LGM(preset("debug"))
    save_lgm(model, tmp_path / "own.safetensors")
    torch.save({"model": model.state_dict(), "step": 3}, tmp_path / "own.pt")
    for file in ("own.safetensors", "own.pt"):  # with folded input, like lgm-mini
        kind, path = identify_file(str(tmp_path / file))
        assert (kind.entry, path) == ("lgm-mini", tmp_path / file)


def test_the_name_tells_the_two_files_of_l4gm_apart(shared, tmp_path):
    shapes = manifest(shared, "l4gm/manifest_big.json")
    assert identify(shapes, "a/interp.safetensors").entry == "l4gm-interp"
    assert identify(shapes, "a/recon.safetensors").entry == "l4gm-recon"


def triposr_like(tmp_path):
    tensors = {
        "image_tokenizer.model.layernorm.weight": torch.zeros(2),
        "tokenizer.embeddings": torch.zeros(3, 4, 2, 2),
    }
    torch.save(tensors, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt", tensors


def test_a_checkpoint_of_the_wrong_system_is_named(tmp_path):
    path, tensors = triposr_like(tmp_path)
    message = r"model\.ckpt is a TripoSR checkpoint, not LGM; use --model triposr"
    with pytest.raises(CheckpointError, match=message):
        raise wrong_system_error(path, tensors, "lgm")
    assert wrong_system_error(path, tensors, "triposr") is None
    assert wrong_system_error(path, {"a": torch.zeros(1)}, "lgm") is None
    with pytest.raises(CheckpointError, match=message):
        load_lgm(path)
    with pytest.raises(CheckpointError, match=message):
        load_lgm(path, "big")


def test_strict_loading_says_what_the_file_is(tmp_path):
    path, tensors = triposr_like(tmp_path)
    model = LGM(preset("debug"))
    with pytest.raises(
        CheckpointError, match=r"is a TripoSR checkpoint, not lgm-mini \(use --model triposr\); \d+ missing"
    ):
        load_state(model, tensors, str(path))


def test_a_3dgs_training_state_is_no_network(tmp_path):
    """As the reference trainer saves it: a tuple of parameters, the positions second, and the step."""
    captured = (3, *(torch.zeros(5, n) for n in (3, 3, 45, 3, 4, 1)), torch.zeros(5), {}, 4.0)
    torch.save((captured, 7000), tmp_path / "chkpnt7000.pth")
    with pytest.raises(CheckpointError, match="training state of 3D Gaussian splatting"):
        load(str(tmp_path / "chkpnt7000.pth"))
    save_file(
        {"_xyz": torch.zeros(5, 3), "_features_dc": torch.zeros(5, 1, 3), "_opacity": torch.zeros(5, 1)},
        tmp_path / "g.safetensors",
    )
    with pytest.raises(CheckpointError, match="training state of 3D Gaussian splatting"):
        identify_file(str(tmp_path / "g.safetensors"))


def test_tensors_of_nothing_known(tmp_path):
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"no network that bozzetto knows \(1 tensors: a\.weight"):
        identify_file(str(tmp_path / "w.safetensors"))


def test_shapes_are_read_without_the_content(tmp_path):
    path = tmp_path / "big.pt"
    torch.save({"model_state_dict": {"a": torch.zeros(4, 2)}, "optimizer": {"b": [1]}}, path)
    assert read_shapes(path) == {"a": (4, 2)}
    assert list(read_tensors(path)) == ["a"]
    for damaged in (b"", b"PK\x03\x04 not a file", path.read_bytes()[:100]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_shapes(path)
        path.with_suffix(".safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_shapes(path.with_suffix(".safetensors"))


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    """Micro checkpoints of every system, in the published layouts: zoo entry name -> file or folder."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "systems"))
    found = {}
    for system in ("lgm", "triposr", "l4gm", "shap_e", "mvdream"):
        module = importlib.import_module(f"micro_{system}")
        found |= getattr(module, f"write_micro_{system}")(tmp_path_factory.mktemp(system))
    return found


def test_micro_checkpoints_are_recognised_and_load_by_their_tensors(micro):
    inside = {"triposr": "model.ckpt", "imagedream": "unet", "mvdream": "unet"}
    networks = {"lgm-big": "LGM", "triposr": "TripoSR", "l4gm-recon": "L4GM", "l4gm-interp": "L4GM"}
    for name, place in micro.items():
        if name == "clip-vit-l14":
            continue
        path = Path(place) / inside.get(name, "") if Path(place).is_dir() else Path(place)
        path = next(p for p in sorted(path.iterdir()) if p.suffix == ".safetensors") if path.is_dir() else path
        entry = identify_file(str(path))[0].entry
        assert entry == (name if name != "shap-e-text-cap3d" else "shap-e-text"), path
        if name in networks:
            assert type(load(str(path))).__name__ == networks[name]
    with pytest.raises(CheckpointError, match="no network on its own"):
        load(str(micro["shap-e-text"]))


def test_entries_load_from_a_folder_laid_out_like_the_hub(micro, tmp_path, monkeypatch):
    """Sets of files and single files alike; sizes are those of the micro checkpoints here."""
    monkeypatch.setenv("BOZZETTO_WEIGHTS", str(tmp_path))
    for name in ("triposr", "l4gm-recon", "l4gm-interp", "imagedream", "mvdream"):
        entry = ENTRIES[name]
        files = tuple(dataclasses.replace(f, size=None, sha256=None) for f in entry.files)
        monkeypatch.setitem(ENTRIES, name, dataclasses.replace(entry, files=files))
        place = tmp_path / entry.folder
        if Path(micro[name]).is_dir():
            shutil.copytree(micro[name], place, dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(micro[name], place / entry.file)
        assert locate(name) == (place / entry.file if entry.single else place)
        network = load(name)
        assert hasattr(network, "unet") if entry.system == "mvdream" else not network.training


@pytest.mark.slow
def test_a_full_size_file_of_lgm(shared, fill, tmp_path, monkeypatch):
    """All published tensors of LGM in fp16, from deterministic weights: the published size to the byte, and recognised."""
    entries = json.loads((shared / "parity/lgm/manifest_lgm_big.json").read_text())["entries"]
    path, offset, header = tmp_path / ENTRIES["lgm-big"].folder / ENTRIES["lgm-big"].file, 0, {}
    for e in sorted(entries, key=lambda e: e["key"]):
        size = 2 * torch.Size(e["shape"]).numel()
        header[e["key"]] = {"dtype": "F16", "shape": e["shape"], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, what in header.items():
            file.write(fill.fill_array(key, tuple(what["shape"])).astype("float16").tobytes())
    monkeypatch.setenv("BOZZETTO_WEIGHTS", str(tmp_path))
    assert locate("lgm-big") == path  # its size was checked
    kind, found = identify_file(str(path))
    assert (kind.entry, found) == ("lgm-big", path)
    with pytest.raises(CheckpointError, match="sha256"):  # deterministic weights are not the published ones
        check_file(ENTRIES["lgm-big"], path)
