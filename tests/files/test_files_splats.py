"""The .splat format, and the choice of format by content and name."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess

import pytest
import torch

from bozzetto.errors import OutputError, SplatFileError
from bozzetto.files.splats import read_splats, write_splats
from bozzetto.gaussians import Gaussians


def some(n: int = 40, degree: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(1)
    return Gaussians(
        torch.randn(n, 3, generator=g),
        torch.rand(n, 3, generator=g) * 0.1 + 1e-3,
        torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=-1),
        torch.rand(n, generator=g),
        torch.randn(n, (degree + 1) ** 2, 3, generator=g) * 0.4,
    )


def test_one_splat_byte_by_byte(tmp_path):
    one = Gaussians.from_rgb(
        torch.tensor([[1.0, -2.0, 3.0]]),
        torch.tensor([[0.1, 0.2, 0.3]]),
        torch.tensor([[0.0, 2.0, 0.0, 0.0]]),
        torch.tensor([0.6]),
        torch.tensor([[1.0, 0.2, -0.5]]),
    )
    write_splats(one, tmp_path / "x.splat")
    expected = struct.pack("<6f8B", 1, -2, 3, 0.1, 0.2, 0.3, 255, 51, 0, 153, 128, 255, 128, 128)
    assert (tmp_path / "x.splat").read_bytes() == expected


def test_order_and_round_trip(tmp_path):
    g = some()
    write_splats(g, tmp_path / "x.splat")
    got = read_splats(tmp_path / "x.splat")
    order = torch.argsort(g.scales.double().prod(-1) * g.opacities, descending=True)
    g = g.select(order)
    assert torch.equal(got.means, g.means) and torch.equal(got.scales, g.scales)
    torch.testing.assert_close(got.opacities, g.opacities, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(got.rgb, g.rgb.clamp(0, 1), atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(got.quats, g.quats, atol=0.02, rtol=0)
    torch.testing.assert_close(got.quats.norm(dim=-1), torch.ones(len(g)))


def test_content_decides_for_ply(tmp_path):
    write_splats(some(5, 2), tmp_path / "x.PLY")
    (tmp_path / "x.PLY").rename(tmp_path / "renamed.splat")
    assert read_splats(tmp_path / "renamed.splat").sh_degree == 2


def test_methods_of_gaussians(tmp_path):
    g = some(5, 1)
    g.save(tmp_path / "x.ply")
    torch.testing.assert_close(Gaussians.load(tmp_path / "x.ply").sh, g.sh)


def test_refused(tmp_path):
    write_splats(some(3), tmp_path / "x.splat")
    data = (tmp_path / "x.splat").read_bytes()
    bad = tmp_path / "bad.splat"
    for content, match in (
        (data[:-1], "32-byte"),
        (b"", "empty"),
        (struct.pack("<f", float("nan")) + data[4:], "1 of 3 splats"),
        (data[:12] + struct.pack("<f", -1.0) + data[16:], "1 of 3 splats"),
    ):
        bad.write_bytes(content)
        with pytest.raises(SplatFileError, match=match):
            read_splats(bad)
    with pytest.raises(SplatFileError, match="does not exist"):
        read_splats(tmp_path / "no.splat")
    (tmp_path / "x.spz").write_bytes(b"123")
    with pytest.raises(SplatFileError, match=r"known are \.ply and \.splat"):
        read_splats(tmp_path / "x.spz")


def test_writing_refuses_and_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match=r"\.ply or \.splat"):
        write_splats(some(3), tmp_path / "x.obj")
    with pytest.raises(SplatFileError, match="no Gaussians"):
        write_splats(Gaussians.empty(), tmp_path / "x.splat")
    g = some(3)
    g.opacities[0] = float("inf")
    with pytest.raises(SplatFileError, match="1 of 3"):
        write_splats(g, tmp_path / "x.splat")
    assert list(tmp_path.iterdir()) == []


def test_splat_transform_reads_and_writes_the_same(tmp_path):
    """PlayCanvas' converter, where it is installed: our files through it and back."""
    modules = os.environ.get("BOZZETTO_NODE_MODULES", "")
    tool = shutil.which("splat-transform", path=os.path.join(modules, ".bin")) or shutil.which("splat-transform")
    if tool is None or shutil.which("node") is None:
        pytest.skip("splat-transform is not installed (npm install @playcanvas/splat-transform; BOZZETTO_NODE_MODULES)")
    g = some(200, 3)
    for suffix in ("ply", "splat"):
        source, target = tmp_path / f"a.{suffix}", tmp_path / f"{suffix}.ply"
        g.save(source)
        subprocess.run([tool, str(source), str(target)], check=True, capture_output=True, timeout=60)
        ours, theirs = Gaussians.load(source), Gaussians.load(target)
        ours, theirs = (x.select(torch.argsort(x.means[:, 0])) for x in (ours, theirs))  # it sorts by place
        for name, a, b in zip(("means", "scales", "quats", "opacities", "sh"), ours.tensors(), theirs.tensors()):
            limit = 0.01 if (name, suffix) == ("quats", "splat") else 1e-6  # it decodes bytes to -1..1 its own way
            torch.testing.assert_close(a, b, atol=limit, rtol=1e-5)
