"""What a model's name means (zoo entry, file, hub), and that the file is the one it should be."""

from __future__ import annotations

import dataclasses
import os
import re
from types import SimpleNamespace

import pytest
import torch

from bozzetto.errors import CheckpointError, InputError, OutputError, UnknownModelError
from bozzetto.systems.lgm.checkpoint import save_lgm
from bozzetto.systems.lgm.network import LGM
from bozzetto.systems.lgm.presets import preset
from bozzetto.zoo import ENTRIES, WeightsEntry, load, locate, weights_file
from bozzetto.zoo.download import download
from bozzetto.zoo.local import bundled_path, cache_folder, check_file, local_path
from bozzetto.zoo.offline import fetch_commands

BIG = "ashawkey/LGM/model_fp16_fixrot.safetensors"


@pytest.fixture
def no_hub(monkeypatch):
    """Any look at the hub or its cache fails the test."""
    hub = pytest.importorskip("huggingface_hub")

    def refuse(*args, **kwargs):
        raise AssertionError(f"the hub was asked for {args}")

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    monkeypatch.setattr(hub, "try_to_load_from_cache", refuse)


def hub_folder(root):
    """A folder for BOZZETTO_WEIGHTS with an empty place for lgm-big; returns that file's path."""
    path = root / BIG
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    "name", ["./none/w.safetensors", "../none/w.pt", "~/none/w.pt", "a/b/none.pt", "none.pt", "./x"]
)
def test_a_missing_file_is_said_to_be_missing(name, tmp_path, monkeypatch, no_hub):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        load(name)


def test_a_missing_absolute_path_is_no_hub_name(no_hub):
    name = os.path.abspath(os.sep + "bozzetto-none") + "/w.safetensors"  # on POSIX: two slashes
    with pytest.raises(CheckpointError, match="no such file"):
        load(name)


def test_a_file_that_could_be_a_hub_name_is_read(tmp_path, monkeypatch, no_hub):
    torch.manual_seed(0)
    (tmp_path / "a" / "b").mkdir(parents=True)
    save_lgm(LGM(preset("debug")), tmp_path / "a" / "b" / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    assert load("a/b/w.safetensors").config == preset("debug")


@pytest.mark.parametrize("name", ["a b/c d/w.pt", "-a-/b..c/w.pt", "//w.pt"])
def test_a_name_that_no_repository_can_have(name):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(InputError, match=r"unknown model|no such file"):
        load(name)


def test_a_hub_name_asks_the_hub_for_its_revision(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def cache(repo, file, revision=None, repo_type=None):
        asked.append(("cache", repo, file, revision))

    def fetch(repo, file, revision=None):
        asked.append(("download", repo, file, revision))
        return str(tmp_path / "none.pt")

    monkeypatch.delenv("BOZZETTO_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "try_to_load_from_cache", cache)
    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    (tmp_path / "none.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError):
        load("owner/repo/w.pt")
    assert ("cache", "owner/repo", "w.pt", None) in asked and asked[-1] == ("download", "owner/repo", "w.pt", None)
    asked.clear()
    entry = dataclasses.replace(ENTRIES["lgm-big"], revision="v1")
    assert local_path(entry) is None
    file = "model_fp16_fixrot.safetensors"
    assert asked == [("cache", "ashawkey/LGM", file, "v1"), ("cache", "ashawkey/LGM", file, None)]
    with pytest.raises(CheckpointError, match="bytes"):
        download(entry)
    assert asked[-1] == ("download", "ashawkey/LGM", file, "v1")


def test_hub_layout_in_a_local_folder(tmp_path, monkeypatch, no_hub):
    """A hub entry is found in BOZZETTO_WEIGHTS; a file of another size is refused before it is read."""
    monkeypatch.setenv("BOZZETTO_WEIGHTS", str(tmp_path))
    path = hub_folder(tmp_path)
    with path.open("wb") as file:
        file.truncate(ENTRIES["lgm-big"].size)
    assert weights_file("lgm-big") == path
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"has 1 bytes, lgm-big has 830,126,160"):
        weights_file("lgm-big")
    with pytest.raises(CheckpointError, match="bytes"):
        load("lgm-big")


@pytest.mark.parametrize("damage", ["shorter", "one bit"])
def test_damaged_bundled_weights_are_refused_on_load(damage, tmp_path, monkeypatch):
    content = bytearray(bundled_path("lgm-mini.safetensors").read_bytes())
    content[len(content) // 2] ^= 1  # a safetensors reader cannot see this
    (tmp_path / "lgm-mini.safetensors").write_bytes(content[:-1] if damage == "shorter" else content)
    monkeypatch.setattr("bozzetto.zoo.local.bundled_path", lambda file: tmp_path / file)
    with pytest.raises(CheckpointError, match="reinstall"):
        load("lgm-mini")


def test_bundled_weights_are_those_of_the_list():
    for entry in ENTRIES.values():
        if entry.bundled:
            check_file(entry, local_path(entry))
            assert entry.sha256 and entry.size


def test_unknown_names_without_a_hub(no_hub):
    for name in ("lgm-huge", "owner/repo", "a/b/c/d"):
        with pytest.raises(UnknownModelError, match="lgm-mini"):
            load(name)


def test_the_summary_says_how_many_views_are_used():
    from bozzetto.systems.lgm.cameras import SLOTS

    assert SLOTS == 4 and "up to four" in ENTRIES["lgm-mini"].summary


def test_what_the_user_gives_is_taken_as_it_is(tmp_path, no_hub):
    (tmp_path / "w.bin").write_bytes(b"x")
    assert locate("lgm-big", tmp_path / "w.bin") == tmp_path / "w.bin"
    assert locate("imagedream", str(tmp_path)) == tmp_path
    with pytest.raises(CheckpointError, match="no such file or folder"):
        locate("lgm-big", tmp_path / "none.bin")
    with pytest.raises(UnknownModelError):
        locate("lgm-huge", tmp_path)


def test_a_set_of_files_is_a_folder_and_optional_files_may_lack(tmp_path, monkeypatch, no_hub):
    monkeypatch.setenv("BOZZETTO_WEIGHTS", str(tmp_path))
    entry = ENTRIES["imagedream"]
    for file in entry.files:
        place = tmp_path / entry.folder / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as out:
            out.truncate(file.size or 10)
        if file.optional:
            place.unlink()
    assert locate("imagedream") == tmp_path / "ashawkey" / "imagedream-ipmv-diffusers"
    with (tmp_path / entry.folder / "vae/diffusion_pytorch_model.safetensors").open("ab") as out:
        out.write(b"x")
    with pytest.raises(CheckpointError, match=r"imagedream's vae/diffusion_pytorch_model\.safetensors has 167,335,342"):
        locate("imagedream")


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("BOZZETTO_CACHE", str(tmp_path / "a" / "b"))
    monkeypatch.delenv("BOZZETTO_WEIGHTS", raising=False)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1_000_000))
    monkeypatch.setattr("bozzetto.zoo.download.fetch", lambda *a: pytest.fail("asked the network"))
    with pytest.raises(OutputError, match=r"shap-e-text needs 1\.3 GB .* BOZZETTO_CACHE"):
        locate("shap-e-text")
    assert list(tmp_path.iterdir()) == []


def test_files_from_an_address_are_looked_for_in_our_cache(tmp_path, monkeypatch, no_hub):
    monkeypatch.setenv("BOZZETTO_CACHE", str(tmp_path))
    monkeypatch.delenv("BOZZETTO_WEIGHTS", raising=False)
    path = tmp_path / "openai" / "shap-e" / "text_cond.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert locate("shap-e-text") == path


def test_the_place_for_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("BOZZETTO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "bozzetto"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "bozzetto" / "Cache"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder().parts[-3:] == ("Library", "Caches", "bozzetto")


def test_commands_for_another_machine():
    (command,) = fetch_commands(ENTRIES["shap-e-text-cap3d"])
    assert command.startswith("hf download tiange/Cap3D misc/our_finetuned_models/shapE_finetuned_with_330kdata.pth")
    assert "--repo-type dataset" in command and command.endswith("--local-dir weights/tiange/Cap3D")
    (command,) = fetch_commands(ENTRIES["shap-e-image"])
    assert command.endswith("-o weights/openai/shap-e/image_cond.pt " + ENTRIES["shap-e-image"].url + "image_cond.pt")
    assert fetch_commands(ENTRIES["lgm-mini"]) == []


def test_every_entry_is_sound():
    """Hashes look like hashes, paths stay inside their folder, addresses end in a slash, terms are stated."""
    for entry in ENTRIES.values():
        assert entry.terms and entry.licence and entry.summary and entry.parameters
        assert entry.bundled or entry.folder.count("/") == 1
        assert len({f.path for f in entry.files}) == len(entry.files)
        for file in entry.files:
            assert not file.path.startswith("/") and ".." not in file.path
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert entry.revision is None or re.fullmatch(r"[0-9a-f]{40}", entry.revision)
    with pytest.raises(ValueError, match="no files"):
        WeightsEntry(name="x", system="lgm", files=(), licence="", summary="")
