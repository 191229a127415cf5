"""Clips from disk: which frames, at which times, of which size; and what is said about bad files."""

import struct
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from bozzetto.errors import ImageError, InputError
from bozzetto.files.film import write_film
from bozzetto.files.video import read_video


def level(i):
    """Brightness of frame ``i``: tells frames apart after lossy coding."""
    return 20 + 7 * (i % 30)


def grey(i, height=48, width=64):
    return np.full((height, width, 3), level(i), np.uint8)


def encode(path, pictures, times=None, codec="libx264", pixels="yuv420p", base=Fraction(1, 1000), rate=30, **options):
    """A film with given time stamps (in units of ``base``)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if times is not None:
            stream.time_base = stream.codec_context.time_base = base
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture), format="rgba" if picture.shape[2] == 4 else "rgb24"
            )
            frame = frame.reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = times[i], base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(clip):
    """Which frame of ``encode`` each frame of the clip is."""
    return [round((float(f.float().mean()) - 20) / 7) for f in clip.pixels[..., :3]]


def test_every_frame_of_a_steady_film(tmp_path):
    write_film(tmp_path / "a.mp4", [torch.from_numpy(grey(i)).float() / 255 for i in range(25)], 25)
    clip = read_video(tmp_path / "a.mp4")
    assert clip.pixels.shape == (25, 48, 64, 3) and clip.pixels.dtype == torch.uint8
    assert (clip.fps, clip.source_fps, clip.has_alpha, clip.notes) == (25, 25, False, [])
    assert numbers(clip) == list(range(25))
    assert clip.frames.dtype == torch.float32 and float(clip.frame(3).max()) <= 1
    assert clip.report()["frames"] == 25


@pytest.mark.parametrize("suffix", ["webm", "mkv", "mov", "avi"])
def test_other_containers(tmp_path, suffix):
    codec, pixels = {"webm": ("libvpx-vp9", "yuv420p"), "avi": ("mjpeg", "yuvj420p")}.get(
        suffix, ("libx264", "yuv420p")
    )
    path = encode(tmp_path / f"a.{suffix}", [grey(i) for i in range(12)], codec=codec, pixels=pixels)
    clip = read_video(path)
    assert numbers(clip) == list(range(12))
    assert clip.fps == pytest.approx(30, rel=0.01)


def test_resampled_by_time(tmp_path):
    path = encode(tmp_path / "a.mp4", [grey(i) for i in range(30)])
    clip = read_video(path, fps=10)
    assert (numbers(clip), clip.fps, clip.source_fps) == (list(range(0, 30, 3)), 10, 30)
    assert numbers(read_video(path, fps=7)) == [int(k * 30 / 7 + 0.25) for k in range(7)]
    twice = read_video(path, fps=60, max_frames=1000)
    assert numbers(twice) == [k // 2 for k in range(60)]
    assert "repeated" in twice.notes[0]
    assert numbers(read_video(path, start=0.5, max_seconds=0.2)) == list(range(15, 21))
    assert numbers(read_video(path, start=0.98)) == [29]


def test_variable_frame_rate(tmp_path):
    times = [0, 100, 150, 200, 600, 900]  # milliseconds
    path = encode(tmp_path / "a.mkv", [grey(i) for i in range(6)], times)
    clip = read_video(path, fps=10)
    assert numbers(clip)[:10] == [0, 1, 3, 3, 3, 3, 4, 4, 4, 5]


def test_start_far_inside(tmp_path):
    path = encode(tmp_path / "a.mp4", [grey(i) for i in range(120)], g="12")
    clip = read_video(path, start=3.0, max_frames=5)
    assert numbers(clip) == [90 % 30 + k for k in range(5)]
    with pytest.raises(InputError, match=r"4\.00 s long"):
        read_video(path, start=5.0)


def colours():
    """Red left, green right, blue at the bottom."""
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:48, :64, 0] = picture[:48, 64:, 1] = picture[48:, :, 2] = 255
    return picture


def test_colours_of_rgb(tmp_path):
    write_film(tmp_path / "a.mp4", [torch.from_numpy(colours()).float() / 255] * 3, 10, crf=5)
    pixels = read_video(tmp_path / "a.mp4").pixels[1].int()
    for y, x, expected in ((20, 30, (255, 0, 0)), (20, 90, (0, 255, 0)), (56, 64, (0, 0, 255))):
        assert (pixels[y, x] - torch.tensor(expected)).abs().max() <= 6


def test_rotation_and_pixel_aspect(tmp_path):
    path = tmp_path / "a.mp4"
    encode(path, [colours()] * 3)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[at : at + 36] = struct.pack(
        ">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30
    )  # right goes down: a quarter clockwise
    path.write_bytes(data)
    pixels = read_video(path).pixels[0]
    assert pixels.shape == (128, 64, 3)
    assert pixels[30, 40].argmax() == 0 and pixels[100, 40].argmax() == 1 and pixels[64, 5].argmax() == 2
    with av.open(str(tmp_path / "b.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(3, 64, 64), format="rgb24")))
        container.mux(stream.encode())
    assert read_video(tmp_path / "b.mkv").pixels.shape[1:3] == (64, 128)


def cutouts(count=6, size=48):
    frames = np.zeros((count, size, size, 4), np.uint8)
    for i in range(count):
        frames[i, 10:30, 5 + 3 * i : 20 + 3 * i] = (200, 100, 50, 255)
    return frames


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("a.mov", "qtrle", "argb"), ("a.webm", "libvpx-vp9", "yuva420p")]
)
def test_films_with_alpha(tmp_path, name, codec, pixels):
    path = encode(tmp_path / name, list(cutouts()), codec=codec, pixels=pixels)
    clip = read_video(path)
    assert clip.has_alpha and clip.pixels.shape[-1] == 4
    found = clip.pixels[..., 3] > 127
    assert (found.numpy() == (cutouts()[..., 3] > 127)).mean() > 0.99


def test_gif_with_transparency_and_durations(tmp_path):
    frames = [Image.fromarray(f) for f in cutouts()]
    frames[0].save(
        tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[100, 300, 100, 100, 100, 100], disposal=2
    )
    clip = read_video(tmp_path / "a.gif", fps=10)
    assert clip.has_alpha and len(clip) == 8
    shown = [0, 1, 1, 1, 2, 3, 4, 5]
    assert ((clip.pixels[..., 3] > 127).numpy() == (cutouts()[shown, ..., 3] > 127)).mean() > 0.995
    assert read_video(tmp_path / "a.gif").fps == pytest.approx(7.5)
    # Without transparency there are three channels.
    solid = [Image.fromarray(grey(i)) for i in range(4)]
    solid[0].save(tmp_path / "b.gif", save_all=True, append_images=solid[1:], duration=0)
    clip = read_video(tmp_path / "b.gif")
    assert clip.pixels.shape == (4, 48, 64, 3) and clip.fps == pytest.approx(10)


def test_folder_of_frames(tmp_path):
    for i in range(12):
        Image.fromarray(grey(i)).save(tmp_path / f"frame_{i}.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.png").write_bytes(b"no")
    (tmp_path / "sub").mkdir()
    clip = read_video(tmp_path)
    assert numbers(clip) == list(range(12)) and clip.fps == 24
    assert clip.notes == ["1 files that are no pictures were left out (notes.txt)"]
    assert read_video(tmp_path, fps=8).fps == 8 and len(read_video(tmp_path, fps=8)) == 12
    (tmp_path / "frame_5.png").write_bytes(b"broken")
    clip = read_video(tmp_path)
    assert numbers(clip) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert any("frame_5.png was left out" in note for note in clip.notes)


def test_folder_keeps_alpha_and_one_size(tmp_path):
    for i, frame in enumerate(cutouts()):
        Image.fromarray(frame).resize((48, 48) if i < 4 else (24, 36)).save(tmp_path / f"{i}.png")
    clip = read_video(tmp_path)
    assert clip.has_alpha and clip.pixels.shape == (6, 48, 48, 4)
    assert any("2 frames had another size" in note for note in clip.notes)
    assert int(clip.pixels[5, :, :8, 3].max()) == 0  # padded with nothing


def test_large_frames_are_reduced(tmp_path):
    path = encode(tmp_path / "a.mp4", [np.zeros((256, 512, 3), np.uint8)] * 3)
    assert read_video(path, size_limit=128).pixels.shape == (3, 64, 128, 3)


def test_ten_thousand_frames(tmp_path):
    import tracemalloc

    path = encode(tmp_path / "a.mkv", [grey(i, 32, 32) for i in range(30)] * 334, codec="mjpeg", pixels="yuvj420p")
    tracemalloc.start()
    clip = read_video(path, size_limit=32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(clip) == 240 and numbers(clip)[:30] == list(range(30))
    assert "only the first 240 frames (8.0 s of 334.0 s)" in clip.notes[0]
    assert peak < 20e6
    slow = read_video(path, fps=0.5)  # the whole of it, few frames kept
    assert len(slow) == 167 and slow.notes == []


def test_single_frame(tmp_path):
    clip = read_video(encode(tmp_path / "a.mp4", [grey(4)]))
    assert len(clip) == 1 and "single frame" in clip.notes[0]
    Image.fromarray(grey(4)).save(tmp_path / "b.png")
    assert len(read_video(tmp_path / "b.png")) == 1


def test_corrupt_tail(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(60)]
    data = encode(tmp_path / "a.mkv", noise, crf="20").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    clip = read_video(tmp_path / "cut.mkv")
    assert 30 < len(clip) < 50
    assert "cut short" in " ".join(clip.notes) or "damaged" in " ".join(clip.notes)
    broken = bytearray(encode(tmp_path / "b.avi", noise, codec="mjpeg", pixels="yuvj420p").read_bytes())
    half = len(broken) // 2
    broken[half : half + 20000] = bytes(20000)
    (tmp_path / "hole.avi").write_bytes(broken)
    clip = read_video(tmp_path / "hole.avi")
    assert len(clip) > 20


def test_changing_size_inside_a_film(tmp_path):
    parts = []
    for i, size in enumerate(((48, 64), (96, 64))):
        path = encode(tmp_path / f"{i}.ts", [grey(9, *size)] * 10, codec="mpeg2video", rate=25)
        parts.append(path.read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    clip = read_video(tmp_path / "a.ts")
    assert clip.pixels.shape[1:] == (48, 64, 3) and len(clip) >= 15
    assert any("another size" in note for note in clip.notes)


def test_refused(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_video(tmp_path / "no.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ImageError, match="empty"):
        read_video(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("this is not a film " * 50)
    with pytest.raises(ImageError, match="not a video that can be read"):
        read_video(tmp_path / "text.mp4")
    whole = encode(tmp_path / "a.mp4", [grey(i) for i in range(10)]).read_bytes()
    (tmp_path / "torn.mp4").write_bytes(whole[: len(whole) // 3])  # its index was at the end
    with pytest.raises(ImageError):
        read_video(tmp_path / "torn.mp4")
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    with pytest.raises(ImageError, match="only sound"):
        read_video(tmp_path / "a.wav")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("x")
    with pytest.raises(InputError, match="no pictures"):
        read_video(tmp_path / "folder")
    (tmp_path / "folder" / "a.png").write_bytes(b"junk")
    with pytest.raises(ImageError, match="none of the 1 pictures"):
        read_video(tmp_path / "folder")
    (tmp_path / "b.gif").write_bytes(b"GIF89a" + bytes(20))
    with pytest.raises(ImageError):
        read_video(tmp_path / "b.gif")
    for arguments in (
        {"fps": 0},
        {"fps": float("nan")},
        {"start": -1},
        {"max_seconds": 0},
        {"max_frames": 0},
        {"size_limit": 4},
    ):
        with pytest.raises(InputError, match=next(iter(arguments)).removeprefix("max_")):
            read_video(tmp_path / "a.mp4", **arguments)
