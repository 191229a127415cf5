"""Pictures of every kind in, the right RGBA out; every kind of bad file refused with a clear message."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from bozzetto.errors import ImageError
from bozzetto.files import images
from bozzetto.files.images import read_image, to_uint8


@pytest.fixture
def colours() -> np.ndarray:
    """[8, 12, 3] smooth 8-bit colours, different at every corner."""
    y, x = np.mgrid[0:8, 0:12]
    return np.stack([x * 20, y * 30, 255 - x * 10], axis=-1).astype(np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand, for depths that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_lossless_rgb(tmp_path, colours, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(colours).save(path)
    got = read_image(path)
    assert got.rgba.shape == (8, 12, 4) and got.rgba.dtype == torch.float32
    assert not got.has_alpha and got.path == path
    np.testing.assert_array_equal((got.rgba[..., :3].numpy() * 255).round(), colours)
    assert bool((got.rgba[..., 3] == 1).all())


@pytest.mark.parametrize(("suffix", "limit"), [("jpg", 6), ("webp", 12)])
def test_lossy_rgb(tmp_path, colours, suffix, limit):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(colours).resize((120, 80), Image.BILINEAR).save(path, quality=95)
    got = read_image(path).rgba[..., :3].numpy() * 255
    assert np.abs(got - np.asarray(Image.fromarray(colours).resize((120, 80), Image.BILINEAR))).mean() < limit


def test_straight_alpha_keeps_hidden_colours(tmp_path, colours):
    alpha = np.full((8, 12, 1), 255, np.uint8)
    alpha[:4], alpha[4] = 0, 77
    Image.fromarray(np.concatenate([colours, alpha], -1)).save(tmp_path / "x.png")
    got = read_image(tmp_path / "x.png")
    assert got.has_alpha
    np.testing.assert_array_equal(to_uint8(got.rgba), np.concatenate([colours, alpha], -1))


def test_opaque_alpha_says_nothing(tmp_path, colours):
    alpha = np.full((8, 12, 1), 254, np.uint8)
    Image.fromarray(np.concatenate([colours, alpha], -1)).save(tmp_path / "x.png")
    assert not read_image(tmp_path / "x.png").has_alpha


def test_fully_transparent_is_read(tmp_path):
    Image.new("RGBA", (4, 4), (1, 2, 3, 0)).save(tmp_path / "x.png")
    got = read_image(tmp_path / "x.png")
    assert got.has_alpha and float(got.rgba[..., 3].max()) == 0


def test_grey_16_bit(tmp_path):
    values = np.linspace(0, 65535, 48).reshape(4, 12).astype(np.uint16)
    (tmp_path / "x.png").write_bytes(png(12, 4, 16, 0, b"".join(b"\0" + r.astype(">u2").tobytes() for r in values)))
    got = read_image(tmp_path / "x.png").rgba
    np.testing.assert_allclose(got[..., 0], values / 65535, atol=1e-6)
    np.testing.assert_array_equal(got[..., 0], got[..., 2])


def test_grey_16_bit_tiff(tmp_path):
    values = np.linspace(0, 65535, 48).reshape(4, 12).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.tiff")
    np.testing.assert_allclose(read_image(tmp_path / "x.tiff").rgba[..., 1], values / 65535, atol=1e-6)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_colour_16_bit(tmp_path, colour_type, channels):
    values = np.linspace(0, 65535, 48 * channels).reshape(4, 12, channels).astype(np.uint16)
    rows = b"".join(b"\0" + r.astype(">u2").tobytes() for r in values)
    (tmp_path / "x.png").write_bytes(png(12, 4, 16, colour_type, rows))
    got = read_image(tmp_path / "x.png").rgba.numpy()
    expected = values / 65535
    if channels == 2:
        np.testing.assert_allclose(got[..., :3], np.repeat(expected[..., :1], 3, -1), atol=0.005)
        np.testing.assert_allclose(got[..., 3], expected[..., 1], atol=0.005)
    else:
        np.testing.assert_allclose(got[..., :channels], expected, atol=0.005)


def test_float_tiff(tmp_path):
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 12)
    Image.fromarray(values).save(tmp_path / "x.tiff")
    np.testing.assert_allclose(read_image(tmp_path / "x.tiff").rgba[..., 0], values, atol=1e-6)


def test_grey_and_grey_alpha(tmp_path, colours):
    grey = Image.fromarray(colours).convert("L")
    grey.save(tmp_path / "l.png")
    both = Image.merge("LA", (grey, Image.new("L", grey.size, 10)))
    both.save(tmp_path / "la.png")
    for name, alpha in (("l.png", 255), ("la.png", 10)):
        got = to_uint8(read_image(tmp_path / name).rgba)
        np.testing.assert_array_equal(got[..., 0], np.asarray(grey))
        np.testing.assert_array_equal(got[..., 2], np.asarray(grey))
        assert (got[..., 3] == alpha).all()


def test_one_bit(tmp_path):
    bits = np.arange(96).reshape(8, 12) % 3 == 0
    Image.fromarray(bits).save(tmp_path / "x.png")
    got = read_image(tmp_path / "x.png").rgba
    np.testing.assert_array_equal(got[..., 1], bits.astype(np.float32))


def test_palette_with_and_without_transparency(tmp_path, colours):
    image = Image.fromarray(colours).quantize(16)
    image.save(tmp_path / "plain.png")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(to_uint8(read_image(tmp_path / "plain.png").rgba)[..., :3], expected)
    index = np.asarray(image)
    image.save(tmp_path / "one.png", transparency=int(index[0, 0]))
    image.save(tmp_path / "many.png", transparency=bytes(range(0, 160, 10)))
    one, many = read_image(tmp_path / "one.png"), read_image(tmp_path / "many.png")
    assert one.has_alpha
    np.testing.assert_array_equal(one.rgba[..., 3] == 0, index == index[0, 0])
    np.testing.assert_array_equal(to_uint8(many.rgba[..., 3]), index * 10)
    np.testing.assert_array_equal(to_uint8(many.rgba)[..., :3], expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_colour_key_transparency(tmp_path, colours, mode):
    image = Image.fromarray(colours).convert(mode)
    key = image.getpixel((0, 0))
    image.save(tmp_path / "x.png", transparency=key)
    got = read_image(tmp_path / "x.png")
    assert got.has_alpha and got.rgba[0, 0, 3] == 0 and got.rgba[7, 11, 3] == 1


def test_cmyk(tmp_path, colours):
    big = Image.fromarray(colours).resize((96, 64), Image.BILINEAR)
    big.convert("CMYK").save(tmp_path / "x.jpg", quality=98)
    big.convert("CMYK").save(tmp_path / "x.tiff")
    for name in ("x.jpg", "x.tiff"):
        got = read_image(tmp_path / name).rgba[..., :3].numpy() * 255
        assert np.abs(got - np.asarray(big)).mean() < 4, name


def test_embedded_profile_is_converted(tmp_path, colours):
    """sRGB's own profile changes nothing; Lab pixels come back as the colours they stand for."""
    source = ImageCms.createProfile("sRGB")
    lab = ImageCms.createProfile("LAB")
    profile = ImageCms.ImageCmsProfile(source).tobytes()
    Image.fromarray(colours).save(tmp_path / "srgb.png", icc_profile=profile)
    assert np.abs(to_uint8(read_image(tmp_path / "srgb.png").rgba)[..., :3].astype(int) - colours).max() <= 1
    in_lab = ImageCms.profileToProfile(Image.fromarray(colours), source, lab, outputMode="LAB")
    in_lab.save(tmp_path / "lab.tiff")
    assert np.abs(to_uint8(read_image(tmp_path / "lab.tiff").rgba)[..., :3].astype(int) - colours).mean() < 8


def test_foreign_profile_changes_the_numbers(tmp_path):
    """A profile with gamma 1 says that the stored 0.2 is linear light: sRGB 0.48."""
    Image.new("RGB", (4, 4), (51, 51, 51)).save(tmp_path / "x.png", icc_profile=linear_profile())
    got = float(read_image(tmp_path / "x.png").rgba[0, 0, 1])
    assert abs(got - 0.4845) < 0.02


def linear_profile() -> bytes:
    """A minimal matrix ICC profile: sRGB's primaries (adapted to D50), gamma 1."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*values)

    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"line\0" + bytes(4 + 4 + 2 + 1 + 67)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    tags = [
        (b"desc", text),
        (b"wtpt", xyz(0.9642, 1.0, 0.8249)),
        (b"rXYZ", xyz(0.4360, 0.2225, 0.0139)),
        (b"gXYZ", xyz(0.3851, 0.7169, 0.0971)),
        (b"bXYZ", xyz(0.1431, 0.0606, 0.7141)),
        *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I", offset + len(body)) + bytes(4) + struct.pack(">I", 0x02100000)
    head += b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def test_damaged_profile_is_ignored(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "x.png", icc_profile=b"this is no profile" * 20)
    np.testing.assert_array_equal(to_uint8(read_image(tmp_path / "x.png").rgba)[..., :3], colours)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, colours, orientation):
    upright = Image.fromarray(colours)
    undo = {
        2: [Image.FLIP_LEFT_RIGHT], 3: [Image.ROTATE_180], 4: [Image.FLIP_TOP_BOTTOM], 5: [Image.TRANSPOSE],
        6: [Image.ROTATE_90], 7: [Image.TRANSVERSE], 8: [Image.ROTATE_270],
    }  # fmt: skip
    stored = upright
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    raw = read_image(tmp_path / "x.png", exif_rotation=False).rgba
    np.testing.assert_array_equal(to_uint8(raw)[..., :3], np.asarray(stored))
    got = read_image(tmp_path / "x.png").rgba
    assert got.shape == (8, 12, 4)
    np.testing.assert_array_equal(to_uint8(got)[..., :3], colours)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (6, 5), c) for c in ((255, 0, 0), (0, 255, 0))]
    for name in ("x.gif", "x.webp", "x.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
        got = read_image(tmp_path / name).rgba
        assert got.shape == (5, 6, 4)
        assert got[2, 2, 0] > 0.9 and got[2, 2, 1] < 0.1, name


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000)])
def test_extreme_shapes(tmp_path, size):
    Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").rgba.shape == (size[1], size[0], 4)


# ---- bad input ----


def test_missing_empty_folder(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "no.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "empty.png" / "x.png")
    with pytest.raises(ImageError):
        read_image("bad\0name.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_truncated(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format={"jpg": "jpeg"}.get(suffix, suffix))
    data = buffer.getvalue()
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match="x\\."):
        read_image(path)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"hello, this is a text file\n", "PNG, JPEG or WebP"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (bytes(1000), "not a picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "x.png"),
    ],
)
def test_not_a_picture(tmp_path, data, hint):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(ImageError, match=hint):
        read_image(tmp_path / "x.png")


def test_postscript_is_not_executed(tmp_path):
    (tmp_path / "x.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(ImageError, match="EPS"):
        read_image(tmp_path / "x.eps")


@pytest.mark.parametrize("size", [(10_000, 10_000), (12_000, 12_000), (100_000, 100_000)])
def test_a_hundred_megapixels_are_refused_before_decoding(tmp_path, size):
    """The files claim their size in the header only, so decoding them would fail differently."""
    (tmp_path / "x.png").write_bytes(png(*size, 8, 2, b""))
    with pytest.raises(ImageError, match="megapixels"):
        read_image(tmp_path / "x.png")


def test_just_under_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 97)
    Image.new("RGB", (12, 8)).save(tmp_path / "x.png")
    read_image(tmp_path / "x.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 96)
    with pytest.raises(ImageError, match="12 x 8"):
        read_image(tmp_path / "x.png")
