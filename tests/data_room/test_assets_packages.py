"""Packages: unpacking without tools, hashes, what to do without apt."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile

import pytest

from bozzetto.data.assets import packages
from bozzetto.data.assets.packages import Package, extract_deb, extract_deb_plainly, fetch_package, installed
from bozzetto.data.sources.registry import SOURCES
from bozzetto.errors import InputError


def deb(mode: str = "xz", name: str = "data.tar") -> bytes:
    """A Debian package that holds usr/share/toys/ball.txt."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w" if mode == "zst" else f"w:{mode}") as archive:
        info = tarfile.TarInfo("./usr/share/toys/ball.txt")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"round"))
    data = body.getvalue()
    if mode == "zst":
        data = subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout
    out = b"!<arch>\n"
    members = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (f"{name}.{mode}", data)]
    for label, content in members:
        out += f"{label:16s}{0:<12d}{0:<6d}{0:<6d}{'100644':8s}{len(content):<10d}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


@pytest.mark.parametrize("mode", ["xz", "gz", "zst"])
def test_unpacking_without_dpkg(tmp_path, mode):
    if mode == "zst" and shutil.which("zstd") is None:
        pytest.skip("no zstd command")
    (tmp_path / "toys_1.0_all.deb").write_bytes(deb(mode))
    (tmp_path / "out").mkdir()
    extract_deb_plainly(tmp_path / "toys_1.0_all.deb", tmp_path / "out")
    assert (tmp_path / "out/usr/share/toys/ball.txt").read_text() == "round"


def test_what_is_no_package(tmp_path):
    file = tmp_path / "toys_1.0_all.deb"
    for data, reason in ((b"PK", "not a Debian"), (deb(name="other"), "holds no files"), (deb()[:-120], "damaged")):
        file.write_bytes(data)
        target = tmp_path / reason
        target.mkdir()
        with pytest.raises(InputError, match=reason):
            extract_deb_plainly(file, target)


def test_a_package_put_there_by_hand_is_used_and_verified(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)  # neither apt nor dpkg
    data = deb()
    file = tmp_path / "toys_1.0_all.deb"
    file.write_bytes(data)
    good = Package("1.0", len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(packages.KNOWN, "toys", good)
    assert fetch_package("toys", tmp_path) == tmp_path / "toys"
    assert (tmp_path / "toys/usr/share/toys/ball.txt").exists() and installed("toys", tmp_path) == good
    assert file.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["toys", "toys_1.0_all.deb"]
    shutil.rmtree(tmp_path / "toys")
    file.write_bytes(data[:-1] + b"x")
    with pytest.raises(InputError, match="its sha256 is"):
        fetch_package("toys", tmp_path)
    assert not (tmp_path / "toys").exists()


def test_without_apt_the_message_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(InputError) as caught:
        fetch_package("sweethome3d-furniture", tmp_path)
    text = str(caught.value)
    assert "apt is not on this machine" in text and "3ccb90c6" in text and str(tmp_path) in text and "1.8-1" in text


def test_a_wrong_download_leaves_nothing(tmp_path, monkeypatch):
    def download(package, expected, work, tell):
        (work / "toys_1.0_all.deb").write_bytes(deb())
        return work / "toys_1.0_all.deb"

    monkeypatch.setattr(packages, "in_index", lambda package: Package("1.0", 10, "0" * 64))
    monkeypatch.setattr(packages, "_download", download)
    with pytest.raises(InputError, match="fetch it again"):
        fetch_package("toys", tmp_path / "p")
    assert list((tmp_path / "p").iterdir()) == []


def test_every_package_of_every_collection_has_a_known_hash():
    for source in SOURCES.values():
        for package in source.packages:
            assert len(packages.KNOWN[package].sha256) == 64


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")
def test_unpacking_with_dpkg(tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: toys\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: toys\n"
    )
    (tree / "usr").mkdir()
    (tree / "usr/ball").write_text("round")
    subprocess.run(["dpkg-deb", "-b", str(tree), str(tmp_path / "toys.deb")], check=True, capture_output=True)
    extract_deb(tmp_path / "toys.deb", tmp_path / "a")
    (tmp_path / "b").mkdir()
    extract_deb_plainly(tmp_path / "toys.deb", tmp_path / "b")
    assert (tmp_path / "a/usr/ball").read_text() == (tmp_path / "b/usr/ball").read_text() == "round"
