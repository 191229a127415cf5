"""`bozzetto video --model l4gm` as a whole, with micro checkpoints in the published layout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "systems"))

from micro_l4gm import write_micro_l4gm
from micro_lgm import write_micro_lgm
from micro_mvdream import write_micro_mvdream

from bozzetto import video_to_4d
from bozzetto.app.cli import main
from bozzetto.errors import CheckpointError, ForegroundError
from bozzetto.files.images import write_image


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    paths = write_micro_l4gm(folder) | write_micro_mvdream(folder)
    return {name: paths[name] for name in ("imagedream", "l4gm-recon", "l4gm-interp")}


def write_clip(folder: Path, frames: int) -> Path:
    """A folder of pictures with alpha: a disc that grows; the second frame (if there is one) is empty."""
    folder.mkdir()
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    for i in range(frames):
        disc = ((y - 24) ** 2 + (x - 24) ** 2 < (8 + i) ** 2).float() * (i != 1)
        colour = torch.stack([y / 48, x / 48, torch.full_like(y, 0.5)], dim=-1)
        write_image(folder / f"{i:03d}.png", torch.cat([colour, disc[..., None]], dim=-1))
    return folder


def test_video(weights, tmp_path):
    clip = write_clip(tmp_path / "clip", 3)
    arguments = ["video", str(clip), "-o", str(tmp_path / "out"), "--device", "cpu", "--quiet", "--fps", "10"]
    arguments += ["--steps", "1", "--chunk", "2", "--no-matting"]
    for name, path in weights.items():
        arguments += ["--weights", f"{name}={path}"]
    assert not main(arguments)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["video_frames"], report["sets"]) == (3, 7) and report["sets_per_second"] == 30.0
    assert report["frames_without_object"] == [1] and report["steps"] == 1 and report["chunk"] == 2
    assert {"load_diffusion", "diffusion", "load_model", "first_frame", "network"} <= report["timings"].keys()
    written = {p.name for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert "player.html" in written and sum(name.endswith(".ply") for name in written) == 7
    assert any(name.endswith(".mp4") for name in written)


def test_one_frame(weights, tmp_path):
    clip = write_clip(tmp_path / "clip", 1)
    scene = video_to_4d(clip, device="cpu", steps=1, weights=weights)
    assert scene.gaussians.batch_shape == (1,) and bool(torch.isfinite(scene.gaussians.means).all())


def test_bad_input(weights, tmp_path):
    clip = write_clip(tmp_path / "clip", 2)
    lgm = write_micro_lgm(tmp_path)["lgm-big"]
    with pytest.raises(CheckpointError, match="not L4GM"):
        video_to_4d(clip, device="cpu", steps=1, weights=weights | {"l4gm-recon": lgm})
    empty = tmp_path / "empty"
    empty.mkdir()
    for i in range(2):
        write_image(empty / f"{i}.png", torch.zeros(32, 32, 4))
    with pytest.raises(ForegroundError):
        video_to_4d(empty, device="cpu", steps=1, weights=weights)
