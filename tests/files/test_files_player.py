"""The player page: what is inside it, what a browser draws from it, and how its time line behaves."""

import base64
import json
import math
import time

import numpy as np
import pytest
import torch
from test_files_viewer import ball, read_page
from test_files_viewer_browser import as_array, psnr, show

from bozzetto.camera import Cameras
from bozzetto.errors import ForegroundError, OutputError
from bozzetto.files import player
from bozzetto.files.player import pack_film, sequence_bounds, write_player
from bozzetto.files.sequence import time_frames
from bozzetto.gaussians import Gaussians
from bozzetto.raster.api import rasterize


def bouncing(frames=6, count=1200, degree=0):
    """A coloured ball that rises, grows and changes its colour: Gaussians [T, N]."""
    first = ball(count, degree)
    t = torch.linspace(0, 1, frames)[:, None, None]
    means = first.means * (1 + 0.3 * t) + torch.tensor([0.0, 0.3, 0.0]) * t
    sh = first.sh * (1 - 0.8 * t[..., None])
    same = [x.expand(frames, *x.shape).clone() for x in (first.scales, first.quats, first.opacities)]
    return Gaussians(means, *same, sh)


def film_of(path):
    page = read_page(path)
    return json.loads(page.texts["scene"])["film"], base64.b64decode(page.texts["splat-data"])


def unpack(meta, data, k):
    """An independent reading of one frame: means, quats, scales, colours, opacities."""
    n, at = meta["counts"][k], meta["offsets"][k]
    assert at % 4 == 0

    def take(dtype, width):
        nonlocal at
        array = np.frombuffer(data, dtype, n * width, at).reshape(n, width)
        at += array.nbytes
        return array.astype(np.float64)

    means = np.array(meta["low"]) + meta["step"] * take("<u2", 3)
    quats = take("i1", 4) / 127
    low, high = meta["logScale"]
    return (
        means,
        quats,
        np.exp(low + (high - low) * take("u1", 3) / 255),
        take("u1", 3) / 255 * meta["colour"],
        take("u1", 1) / 255,
    )


def test_packing_keeps_the_splats(tmp_path):
    gaussians = bouncing()
    gaussians.means[2, 5] = math.nan
    gaussians.opacities[3, :100] = 0.001
    gaussians.means[4, 7] = 1e6  # a stray
    assert write_player(tmp_path / "player.html", gaussians, 12) == []
    meta, data = film_of(tmp_path / "player.html")
    assert meta["counts"] == [1203, 1203, 1202, 1103, 1202, 1203] and meta["fps"] == 12
    for k, frame in enumerate(time_frames(gaussians)):
        kept = frame.prune(1 / 255)
        kept = kept.select(kept.means.norm(dim=-1) < 100)
        means, quats, scales, colours, opacities = unpack(meta, data, k)
        assert np.abs(means - kept.means.numpy()).max() < 1e-4
        assert np.abs(quats - torch.nn.functional.normalize(kept.quats, dim=-1).numpy()).max() < 0.0041
        assert np.abs(np.log(scales / kept.scales.numpy())).max() < 0.02
        assert np.abs(colours - kept.rgb.clamp(0, meta["colour"]).numpy()).max() < 0.004
        assert np.abs(opacities[:, 0] - kept.opacities.numpy()).max() < 0.002


def test_size_is_kept_under_control(tmp_path, monkeypatch):
    gaussians = bouncing(8, 3000)
    for limit, expected in (
        (400_000, ["every second frame"]),
        (10_000_000, []),
    ):
        notes = write_player(tmp_path / "a.html", gaussians, 8, max_bytes=limit)
        assert (tmp_path / "a.html").stat().st_size < limit + 60_000
        meta, _ = film_of(tmp_path / "a.html")
        assert meta["notes"] == notes == expected
        assert len(meta["counts"]) / meta["fps"] == pytest.approx(1.0)  # still one second
    monkeypatch.setattr(player, "FEWEST", 1000)
    notes = write_player(tmp_path / "a.html", gaussians, 8, max_bytes=400_000)
    assert notes == ["the 2,205 weightiest of up to 3,003 splats a frame"]
    assert film_of(tmp_path / "a.html")[0]["counts"] == [2205] * 8


def test_the_faint_and_small_go_first():
    frame = bouncing(1, 500)[0]
    frame.scales[:], frame.opacities[:] = 0.02, 0.5
    frame.opacities[:50] = 0.02
    frame.scales[50:100] = 1e-4
    meta, data = pack_film([frame], *sequence_bounds([frame]), room=403)
    means = unpack(meta, data, 0)[0]
    assert meta["counts"] == [403]
    assert np.abs(means - frame.means[100:].numpy()).max() < 1e-4


def test_notes_on_view_dependent_colour(tmp_path):
    assert write_player(tmp_path / "a.html", bouncing(2, 50, degree=1), 5) == ["colours as seen from all sides"]


def test_page_is_self_contained(tmp_path):
    write_player(tmp_path / "a.html", bouncing(), 12, title="</title><script>alert(1)</script>")
    page = read_page(tmp_path / "a.html")
    assert page.loads == [] and page.scripts == 4
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "fetch(" not in page.texts["script"] and "import " not in page.texts["script"]


def test_refused(tmp_path):
    with pytest.raises(OutputError, match=r"\.html"):
        write_player(tmp_path / "a.txt", bouncing(), 12)
    with pytest.raises(ValueError, match="fps"):
        write_player(tmp_path / "a.html", bouncing(), 0)
    with pytest.raises(ValueError, match="time"):
        write_player(tmp_path / "a.html", bouncing()[0], 12)
    hidden = bouncing()
    hidden.opacities[:] = 0
    with pytest.raises(ForegroundError, match="nothing to see"):
        write_player(tmp_path / "a.html", hidden, 12)
    assert list(tmp_path.iterdir()) == []


# ---- in a browser -------------------------------------------------------------------------------------------------


def still(page, path):
    show(page, path)
    page.evaluate("bozzetto.timeline.setPlaying(false), bozzetto.timeline.setFrame(0), 1")


def picture(page, camera, size, frame):
    arguments = {
        "width": size[1], "height": size[0], "frame": frame,
        "cameraToWorld": camera.camera_to_world[0].flatten().tolist(), "intrinsics": camera.intrinsics[0].tolist(),
    }  # fmt: skip
    url = page.evaluate(f"bozzetto.snapshot({json.dumps(arguments)})")
    return as_array(base64.b64decode(url.split(",")[1]))


@pytest.mark.browser
def test_draws_what_the_rasterizer_draws(tmp_path, page):
    gaussians = bouncing()
    frames = time_frames(gaussians)
    frames[3] = frames[3].select(torch.arange(500))  # another number of splats
    write_player(tmp_path / "player.html", frames, 12)
    still(page, tmp_path / "player.html")
    camera = Cameras.orbit([40.0], [20.0], 2.5, fov_y=49.1)
    camera.intrinsics = camera.intrinsics * torch.tensor([1.0, 1.0, 1.0, 1.0])
    pictures = {}
    for k in (0, 3, 5, 1):
        expected = rasterize(frames[k], camera, 96, (1, 1, 1), backend="reference").rgb[0].clamp(0, 1).numpy()
        pictures[k] = picture(page, camera, (96, 96), k)
        assert expected.std() > 0.1
        assert psnr(pictures[k], expected) > 36, k
    assert psnr(pictures[0], pictures[5]) < 25  # frames differ by far more than that
    assert page.console == []


@pytest.mark.browser
def test_time_line(tmp_path, page):
    write_player(tmp_path / "player.html", bouncing(10, 300), 10, title="ball")
    still(page, tmp_path / "player.html")
    frame = "bozzetto.timeline.frame()"
    assert page.evaluate("document.getElementById('timeline').hidden") is False
    assert page.evaluate("document.getElementById('info').textContent") == "10 frames · 303 splats"
    time.sleep(0.3)
    assert page.evaluate(frame) == 0
    page.evaluate("document.getElementById('play').click()")
    page.wait_for(f"{frame} > 2", timeout=20)
    assert page.evaluate("document.getElementById('play').textContent") == "Pause"
    page.wait_for(f"{frame} < 2", timeout=20)  # starts again at the end
    page.evaluate("document.getElementById('play').click()")
    page.evaluate(
        "document.getElementById('scrub').value = 7, document.getElementById('scrub').dispatchEvent(new Event('input')), 1"
    )
    assert page.evaluate(frame) == 7
    assert page.evaluate("document.getElementById('time').textContent") == "0.70 / 1.00 s"

    def press(key):
        page.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        page.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    press(".")
    assert page.evaluate(frame) == 8
    press(",")
    press(",")
    assert page.evaluate(frame) == 6
    press("]")
    assert page.evaluate("[bozzetto.timeline.speed, document.getElementById('speed').value]") == [2, "2"]
    press("[")
    press("[")
    assert page.evaluate("bozzetto.timeline.speed") == 0.5
    press(" ")
    assert page.evaluate("bozzetto.timeline.playing") is True
    press(" ")
    assert page.evaluate("bozzetto.timeline.playing") is False
    page.evaluate("bozzetto.timeline.step(-bozzetto.timeline.frame() - 1), 1")
    assert page.evaluate(frame) == 9  # before the first comes the last
    before = page.evaluate("bozzetto.camera().cameraToWorld")
    page.drag([(200, 120), (240, 120)])
    time.sleep(0.5)
    assert page.evaluate("bozzetto.camera().cameraToWorld") != before  # orbit works beside it
    assert page.console == []


@pytest.mark.browser
def test_the_window_shows_the_chosen_frame(tmp_path, page):
    gaussians = bouncing(5, 800)
    gaussians.sh[0] = torch.tensor([1.5, -1.5, -1.5])  # the first frame is red, the last blue
    gaussians.sh[4] = torch.tensor([-1.5, -1.5, 1.5])
    write_player(tmp_path / "player.html", gaussians, 10)
    still(page, tmp_path / "player.html")
    for frame, channel in ((0, 0), (4, 2), (0, 0)):
        page.evaluate(f"bozzetto.timeline.setFrame({frame}), 1")
        for _ in range(40):  # a busy machine draws late
            shot = as_array(page.screenshot())
            height, width = shot.shape[:2]
            middle = shot[height * 4 // 10 : height // 2, width * 45 // 100 : width * 55 // 100].mean((0, 1))
            if middle.argmax() == channel and middle.max() - middle.min() > 0.2:
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"frame {frame} is not shown: {middle}")
    assert page.console == []


@pytest.mark.browser
def test_single_frame_and_empty_frames(tmp_path, page):
    write_player(tmp_path / "a.html", bouncing(1, 100), 10)
    still(page, tmp_path / "a.html")
    page.evaluate("bozzetto.timeline.setPlaying(true), 1")
    assert page.evaluate("bozzetto.timeline.playing") is False
    frames = [*time_frames(bouncing(2, 100)), Gaussians.empty()]
    write_player(tmp_path / "b.html", frames, 10)
    still(page, tmp_path / "b.html")
    assert picture(page, Cameras.orbit([0.0], radius=3.0), (16, 16), 2).min() == 1
    assert page.console == []
