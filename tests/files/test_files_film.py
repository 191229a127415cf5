"""Films: decoded again, and played by a browser."""

import base64
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto.errors import InputError, MissingDependencyError, OutputError
from bozzetto.files import film
from bozzetto.files.film import rgb_to_yuv420, write_film

av = pytest.importorskip("av")

COLOURS = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5), (0.9, 0.6, 0.1), (0.2, 0.4, 0.7)]


def bars(height=48, width=64):
    """Eight vertical bars of known colours."""
    rows = torch.tensor(COLOURS, dtype=torch.float32).repeat_interleave(width // 8, dim=0)
    return rows.expand(height, width, 3)


def moving(count, height=48, width=64):
    """A smooth picture that drifts from frame to frame."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    for i in range(count):
        yield torch.stack([(x + 0.1 * i).sin(), (y - 0.1 * i).cos(), (x + y).sin()], dim=-1) * 0.5 + 0.5


def yuv_to_rgb(frame):
    """An av frame as [H, W, 3] floats, by the equations of BT.709, limited range; chroma repeated."""
    planes = frame.to_ndarray(format="yuv420p").astype(np.float64)
    h, w = frame.height, frame.width
    y = (planes[:h] - 16) / 219
    u, v = ((planes[h:].reshape(2, h // 2, w // 2) - 128) / 224).repeat(2, axis=1).repeat(2, axis=2)
    r, b = y + 1.5748 * v, y + 1.8556 * u
    return np.stack([r, (y - 0.2126 * r - 0.0722 * b) / 0.7152, b], axis=-1)


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        facts = {
            "codec": context.name,
            "format": context.pix_fmt,
            "rate": stream.average_rate,
            "tags": (context.color_primaries, context.color_trc, context.colorspace, context.color_range),
        }
        frames = list(container.decode(video=0))
    return facts, frames


def test_mp4_decodes_to_the_same_pictures(tmp_path):
    path = tmp_path / "new" / "film.mp4"
    write_film(path, moving(12), fps=24)
    facts, frames = decode(path)
    assert facts == {"codec": "h264", "format": "yuv420p", "rate": 24, "tags": (1, 1, 1, 1)}
    assert len(frames) == 12
    assert [f.pts * f.time_base * 24 for f in frames] == list(range(12))
    for got, sent in zip(frames, moving(12)):
        error = np.mean((yuv_to_rgb(got) - sent.numpy()) ** 2)
        assert -10 * np.log10(error) > 36
    assert list(path.parent.iterdir()) == [path]


def test_mp4_can_play_before_it_is_loaded(tmp_path):
    write_film(tmp_path / "f.mp4", moving(3))
    data = (tmp_path / "f.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    assert b"colr" in data


def test_mp4_colours(tmp_path):
    write_film(tmp_path / "f.mp4", [bars()] * 2, crf=1)
    picture = yuv_to_rgb(decode(tmp_path / "f.mp4")[1][0])
    for i, colour in enumerate(COLOURS):
        assert np.allclose(picture[24, i * 8 + 4], colour, atol=0.02), i


def test_yuv_of_known_colours():
    white = rgb_to_yuv420(torch.ones(2, 2, 3))
    assert white.tolist() == [[235, 235], [235, 235], [128, 128]]
    red = rgb_to_yuv420(torch.tensor([1.0, 0, 0]).expand(2, 2, 3))
    assert red.tolist() == [[63, 63], [63, 63], [102, 240]]
    odd = rgb_to_yuv420(torch.full((3, 5, 3), float("nan")))
    assert odd.shape == (6, 6)
    assert odd[:4].max() == 16


def test_odd_sizes_are_padded_with_the_edge(tmp_path):
    picture = torch.zeros(33, 57, 3)
    picture[:, 56] = 1.0
    picture[32] = 1.0
    write_film(tmp_path / "f.mp4", [picture] * 2, crf=1)
    out = yuv_to_rgb(decode(tmp_path / "f.mp4")[1][0])
    assert out.shape == (34, 58, 3)
    assert out[10, 57].min() > 0.95
    assert out[33, 10].min() > 0.95
    assert out[10, 10].max() < 0.05


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 300), (16, 16)])
def test_tiny_films(tmp_path, size):
    write_film(tmp_path / "f.mp4", [torch.rand(*size, 3)] * 3)
    assert len(decode(tmp_path / "f.mp4")[1]) == 3


def test_broken_frame_rates(tmp_path):
    write_film(tmp_path / "f.mp4", moving(3), fps=30000 / 1001)
    assert abs(float(decode(tmp_path / "f.mp4")[0]["rate"]) - 29.97) < 0.001
    with pytest.raises(ValueError, match="positive"):
        write_film(tmp_path / "g.mp4", moving(3), fps=0)


def test_frames_are_streamed(tmp_path):
    seen = []

    def watched():
        for frame in moving(40):
            seen.append(frame)
            assert len([f for f in seen if f is not None]) <= 2  # the one being encoded, and this one
            yield frame
            seen[-1] = None

    write_film(tmp_path / "f.mp4", watched())
    assert len(seen) == 40


@pytest.mark.parametrize(("suffix", "tolerance"), [("webp", 0.06), ("gif", 0.2)])
def test_animated_pictures(tmp_path, suffix, tolerance):
    path = tmp_path / f"f.{suffix}"
    write_film(path, moving(7), fps=30)
    with Image.open(path) as picture:
        assert picture.n_frames == 7
        assert picture.info["loop"] == 0
        durations = []
        for i, sent in enumerate(moving(7)):
            picture.seek(i)
            got = np.asarray(picture.convert("RGB")) / 255
            durations.append(picture.info["duration"])
            assert np.abs(got - sent.numpy()).mean() < tolerance / 2
        assert abs(sum(durations) - 7000 / 30) <= (10 if suffix == "gif" else 1)


def test_folder_of_pngs(tmp_path):
    write_film(tmp_path / "frames", moving(3))
    files = sorted((tmp_path / "frames").iterdir())
    assert [f.name for f in files] == ["frame_00000.png", "frame_00001.png", "frame_00002.png"]
    for file, sent in zip(files, moving(3)):
        assert np.abs(np.asarray(Image.open(file)) / 255 - sent.numpy()).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("name", ["f.mp4", "f.webp", "f.gif", "frames"])
def test_nothing_is_left_after_a_failure(tmp_path, name):
    def failing():
        yield from moving(2)
        raise KeyboardInterrupt

    (tmp_path / "f.mp4").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        write_film(tmp_path / "sub" / name, failing())
    assert not (tmp_path / "sub").exists()
    with pytest.raises(KeyboardInterrupt):
        write_film(tmp_path / "f.mp4", failing())
    assert (tmp_path / "f.mp4").read_bytes() == b"before"


@pytest.mark.parametrize("name", ["f.mp4", "f.gif", "frames"])
def test_bad_frames(tmp_path, name):
    with pytest.raises(InputError, match="at least one"):
        write_film(tmp_path / name, [])
    with pytest.raises(InputError, match=r"\[H, W, 3\]"):
        write_film(tmp_path / name, [torch.zeros(4, 4, 4)])
    with pytest.raises(InputError, match="one size"):
        write_film(tmp_path / name, [torch.zeros(4, 4, 3), torch.zeros(4, 6, 3)])
    assert list(tmp_path.iterdir()) == []


def test_bad_targets(tmp_path):
    with pytest.raises(OutputError, match=r"\.mp4"):
        write_film(tmp_path / "f.avi", moving(1))
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file" / "f.mp4", tmp_path / "file" / "frames", tmp_path / "file"):
        with pytest.raises(OutputError):
            write_film(target, moving(1))
    with pytest.raises(ValueError, match="crf"):
        write_film(tmp_path / "f.gif", moving(1), crf=20)


def test_other_encoders(tmp_path, monkeypatch):
    monkeypatch.setattr(film, "ENCODERS", ("h264_no_such", "h264_nvenc", "libx264"))
    write_film(tmp_path / "a.mp4", moving(3))
    assert decode(tmp_path / "a.mp4")[0]["codec"] == "h264"
    # Any encoder without a constant rate factor stands for the rarer H.264 ones.
    monkeypatch.setattr(film, "ENCODERS", ("mpeg4",))
    write_film(tmp_path / "b.mp4", moving(3))
    assert len(decode(tmp_path / "b.mp4")[1]) == 3
    monkeypatch.setattr(film, "ENCODERS", ("h264_no_such",))
    with pytest.raises(MissingDependencyError, match=r"no H\.264 encoder"):
        write_film(tmp_path / "c.mp4", moving(3))
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.browser
def test_a_browser_plays_it(tmp_path, page):
    write_film(tmp_path / "film.mp4", [bars(120, 160)] * 30, fps=30)
    data = base64.b64encode((tmp_path / "film.mp4").read_bytes()).decode()
    (tmp_path / "film.html").write_text(f'<video muted src="data:video/mp4;base64,{data}"></video>')
    page.open((tmp_path / "film.html").as_uri())
    if not page.wait_for("document.querySelector('video')?.canPlayType('video/mp4; codecs=\"avc1.640028\"') ?? 0"):
        pytest.skip("this Chromium was built without H.264")
    page.evaluate("document.querySelector('video').play()")
    page.wait_for("document.querySelector('video').currentTime > 0.3")
    facts = page.evaluate("(v => [v.videoWidth, v.videoHeight, v.duration])(document.querySelector('video'))")
    assert facts == [160, 120, 1]
    pixels = page.evaluate(
        """(v => {
            const c = new OffscreenCanvas(160, 120).getContext("2d");
            c.drawImage(v, 0, 0);
            return [...Array(8).keys()].map((i) => [...c.getImageData(20 * i + 10, 60, 1, 1).data].slice(0, 3));
        })(document.querySelector("video"))"""
    )
    for got, sent in zip(pixels, COLOURS):
        assert np.allclose(np.array(got) / 255, sent, atol=0.03), (got, sent)


def test_frames_are_made_ahead_in_the_callers_mode(tmp_path):
    """The frame after the one that is being encoded is drawn in another thread; errors and autograd's modes cross over."""
    seen = []

    def frames(count: int, fails: bool = False):
        for i in range(count):
            seen.append((threading.get_ident(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            yield torch.full((16, 16, 3), i / 10)
        if fails:
            raise InputError("nothing more")

    with torch.no_grad():
        write_film(tmp_path / "a.mp4", frames(4))
    assert len({thread for thread, *_ in seen}) == 2 and all(modes == [False, False] for _, *modes in seen)
    seen.clear()
    with torch.inference_mode():
        write_film(tmp_path / "b.mp4", frames(2))
    assert all(inference for *_, inference in seen)
    with pytest.raises(InputError, match="nothing more"):
        write_film(tmp_path / "c.mp4", frames(3, fails=True))
    assert not (tmp_path / "c.mp4").exists()


def test_an_encoder_that_fails_ends_the_other_thread(tmp_path, monkeypatch):
    """Also while the caller keeps the error, and with it the frames of the stack."""
    before = set(threading.enumerate())
    calls = []

    def broken(frame):
        calls.append(frame)
        if len(calls) == 3:
            raise OutputError("the encoder broke")
        return rgb_to_yuv420(frame)

    monkeypatch.setattr(film, "rgb_to_yuv420", broken)
    with pytest.raises(OutputError, match="the encoder broke") as kept:
        write_film(tmp_path / "a.mp4", moving(30))
    assert kept.value.__traceback__ is not None and set(threading.enumerate()) == before
    assert list(tmp_path.iterdir()) == []
