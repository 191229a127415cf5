"""Copies of datasets: what is chosen, what stays the same byte for byte, and how large files get."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from asset_shapes import arm, ball, ball_object

from bozzetto.app.cli import main
from bozzetto.data.assets.catalogue import Dataset
from bozzetto.data.assets.convert import convert
from bozzetto.data.assets.copy import CopyOptions, copy_dataset
from bozzetto.data.assets.licence_choice import permits
from bozzetto.data.assets.shard import DatasetError
from bozzetto.errors import InputError


def noisy(k: int):
    """A ball whose picture cannot be compressed well."""
    picture = np.random.default_rng(k).integers(0, 256, (256, 256, 4), dtype=np.uint8)
    return ball_object(
        name=f"b/{k}", group=f"g{k}", source="zeroad", parts=[ball(radius=1 + k / 9)], textures=[picture]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("assets")
    tiger = replace(noisy(40), name="fauna/tiger", group="tiger.dae")
    walk = replace(arm(), source="zeroad", name="arm", clips=[*arm().clips, replace(arm(3).clips[0], name="short")])
    convert("zeroad", [*(noisy(k) for k in range(6)), tiger, walk], out)
    convert("ufoai", [replace(noisy(50), source="ufoai")], out)
    return out


def test_everything_is_copied_as_it_is(folder, tmp_path):
    assert copy_dataset([Dataset(folder)], tmp_path / "all") == {"zeroad": 8, "ufoai": 1}
    old, new = Dataset(folder), Dataset(tmp_path / "all")
    assert new.verify() == [] and len(new) == len(old) and new.attribution() == old.attribution()
    for i in range(len(old)):
        a, b = old[i], new[i]
        assert all(np.array_equal(p.vertices, q.vertices) for p, q in zip(a.parts, b.parts))
        assert all(np.array_equal(p, q) for p, q in zip(a.textures, b.textures)) and a.digest == b.digest
        assert [c.name for c in a.clips] == [c.name for c in b.clips]


def test_training_split_small_pictures_and_small_files(folder, tmp_path):
    options = CopyOptions(split="train", texture_size=64, clips=1, shard_bytes=1 << 20)
    copy_dataset([Dataset(folder)], tmp_path / "light", options)
    light = Dataset(tmp_path / "light")
    names = {r["name"] for r in light.records()}
    assert names == {f"b/{k}" for k in range(6)} | {"arm"} and light.verify() == []
    assert all(t.shape == (64, 64, 4) for i in range(len(light)) for t in light[i].textures)
    assert [len(light.record(i)["clips"]) for i in range(7)] == [0] * 6 + [1]
    size = sum(f.stat().st_size for f in (tmp_path / "light").glob("*.assets"))
    assert size < sum(f.stat().st_size for f in folder.glob("zeroad*.assets")) / 2


def test_the_split_is_written_by_todays_rules(folder, tmp_path, monkeypatch):
    from bozzetto.data.assets import catalogue

    rules = catalogue.split_of
    monkeypatch.setattr(catalogue, "split_of", lambda s, n, g, lic: "test" if n == "b/3" else rules(s, n, g, lic))
    assert any("b/3" in line for line in Dataset(folder).verify())
    copy_dataset([Dataset(folder)], tmp_path / "now")
    assert Dataset(tmp_path / "now").verify() == []


def test_files_stay_below_their_size(tmp_path):
    convert("zeroad", [noisy(k) for k in range(60)], tmp_path / "many")
    copy_dataset([Dataset(tmp_path / "many")], tmp_path / "parts", CopyOptions(shard_bytes=1 << 20))
    files = sorted((tmp_path / "parts").glob("*.assets"))
    assert len(files) > 1 and all(f.stat().st_size < 1.05 * (1 << 20) for f in files)
    assert len(Dataset(tmp_path / "parts")) == 60


def test_command(folder, tmp_path, capsys):
    assert main(["data", "copy", str(folder), "-o", str(tmp_path / "c"), "--source", "ufoai", "--split", "test"]) == 0
    assert len(Dataset(tmp_path / "c")) == 1
    for wrong in (["--source", "nothing"], ["--texture-size", "100"], ["--split", "val"]):
        assert main(["data", "copy", str(folder), "-o", str(tmp_path / "d"), *wrong]) != 0
        assert not (tmp_path / "d").exists()
    with pytest.raises(InputError, match="already"):
        copy_dataset([Dataset(folder)], folder)
    with pytest.raises(InputError, match="give it once"):
        copy_dataset([Dataset(folder), Dataset(folder)], tmp_path / "e")


def test_objects_are_chosen_by_licence(tmp_path, capsys):
    licences = [
        "CC0-1.0",
        "CC-BY-3.0-US",
        "CC-BY-SA-3.0",
        "CC-BY-3.0 AND CC-BY-SA-4.0",
        "CC-BY-SA-4.0 OR MIT",
        "GPL-2+",
    ]
    convert("zeroad", [replace(noisy(k), licence=x) for k, x in enumerate(licences)], tmp_path / "many")

    def copied(name, *more):
        target = tmp_path / name
        assert main(["data", "copy", str(tmp_path / "many"), "-o", str(target), *more]) == 0
        copy = Dataset(target)
        assert set(copy.catalogue["sources"]["zeroad"]["licences"]) == {r["licence"] for r in copy.records()}
        return {r["name"] for r in copy.records()}

    assert copied("clean", "--licences", "clean") == {"b/0", "b/1", "b/4"}
    assert "GPL" not in (tmp_path / "clean" / "ATTRIBUTION.md").read_text()
    assert copied("some", "--licences", "cc0-1.0, CC-BY-SA-3.0") == {"b/0", "b/2"}
    assert copied("more", "--licences", "clean,CC-BY-SA-4.0") == {"b/0", "b/1", "b/3", "b/4"}
    capsys.readouterr()
    for wrong, said in (
        (["--licences", "CC-BY-2.0"], ("CC-BY-2.0", "CC-BY-3.0-US", "GPL-2+", "clean")),
        (["--licences", ","], ("clean",)),
        (["--without", "typo"], ("typo", "foliage", "pieces")),
    ):
        assert main(["data", "copy", str(tmp_path / "many"), "-o", str(tmp_path / "x"), *wrong]) != 0
        message = capsys.readouterr().err
        assert all(word in message for word in said) and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "licence, clean",
    [
        ("CC0-1.0", True),
        ("public-domain", True),
        ("CC-BY-3.0 AND CC-BY-4.0", True),
        ("CC-BY-4.0 AND (CC-BY-SA-4.0 OR CC0-1.0)", True),
        ("(CC-BY-3.0 OR GPL-2+)", True),
        ("CC-BY-SA-4.0", False),
        ("CC-BY-3.0-US", True),
        ("CC-BY-3.0-SA", False),
        ("CC-BY-NC-4.0", False),
        ("CC-BY-ND-4.0", False),
        ("CC-BY-4.0 AND GPL-3+", False),
        ("CC-BY-SA-4.0 AND (CC-BY-SA-3.0 OR CC0-1.0)", False),
        ("LGPL-3", False),
        ("some words", False),
        ("", False),
    ],
)
def test_clean_licences(licence, clean):
    assert permits(licence, ("clean",)) is clean


def test_damage_is_not_copied_under_a_new_checksum(tmp_path):
    convert("zeroad", [noisy(k) for k in range(2)], tmp_path / "assets")
    shard = tmp_path / "assets/zeroad-00000.assets"
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    for size in (None, 64):
        with pytest.raises(DatasetError, match="blob 0 is damaged"):
            copy_dataset([Dataset(tmp_path / "assets")], tmp_path / "new", CopyOptions(texture_size=size))
    assert not (tmp_path / "new").exists()
