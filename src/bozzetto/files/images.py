"""Pictures on disk <-> float tensors: RGBA, straight alpha, sRGB, 0..1, channels last."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from ..camera.cameras import Size, as_size
from ..errors import ImageError, OutputError
from .atomic import atomic_write_bytes
from .inputs import check_input

# A picture of this many pixels or more is refused before it is decoded (it would take gigabytes as floats).
MAX_PIXELS = 100_000_000

# Suffix -> Pillow's format name and its options.
WRITERS: dict[str, tuple[str, dict]] = {
    ".png": ("PNG", {"compress_level": 6}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95, "method": 4}),
}

# Vector formats; Pillow would start an outside program to draw them.
_VECTOR = {"EPS", "WMF"}


@dataclass
class ReadImage:
    """A picture as read from disk.

    Attributes:
        rgba: [H, W, 4] float32, sRGB colours and straight alpha, 0..1, upright (EXIF rotation applied).
        has_alpha: True if the file's alpha says something: at least one pixel is more transparent than opaque.
        path: where it came from.
    """

    rgba: Tensor
    has_alpha: bool
    path: Path


def read_image(path: str | PathLike[str], *, exif_rotation: bool = True) -> ReadImage:
    """Read a PNG, JPEG, WebP or any other raster picture that Pillow knows.

    16-bit, palette, CMYK, grey and one-bit pictures become RGBA, embedded colour profiles are converted to sRGB, EXIF
    rotation is applied, and an animation gives its first frame. ``exif_rotation=False`` keeps the pixels as stored, which is
    what the intrinsics of posed pictures are stated for (COLMAP ignores the tag, too).

    Raises:
        ImageError: missing, empty, truncated, not a picture, a folder, or of ``MAX_PIXELS`` pixels or more.
    """
    path = check_input(path, "a picture", ImageError)
    rgba = _decode(path, str(path), exif_rotation)
    return ReadImage(torch.from_numpy(rgba), bool((rgba[..., 3] < 0.5).any()), path)


def decode_image(data: bytes, name: str) -> Tensor:
    """As :func:`read_image` for a picture inside another file: [H, W, 4]; ``name`` stands in the messages."""
    return torch.from_numpy(_decode(io.BytesIO(data), name))


def _decode(source: Path | io.BytesIO, name: str, exif_rotation: bool = True) -> np.ndarray:
    with warnings.catch_warnings():
        # Remarks on sizes (MAX_PIXELS is checked below) and on metadata that is not read.
        warnings.simplefilter("ignore")
        # Decoders raise nearly anything on damaged data, hence the wide net.
        try:
            image = Image.open(source)
        except Image.DecompressionBombError:
            raise ImageError(f"{name} has far more than {_megapixels(MAX_PIXELS)}; scale it down first") from None
        except Image.UnidentifiedImageError:
            raise ImageError(f"{name} is not a picture that can be read{_hint(source)}") from None
        except Exception as problem:
            raise ImageError(f"{name} cannot be read as a picture: {problem}") from problem
        with image:
            width, height = image.size
            if width * height >= MAX_PIXELS:
                raise ImageError(
                    f"{name} has {width} x {height} pixels ({_megapixels(width * height)}); the limit is "
                    f"{_megapixels(MAX_PIXELS)}, scale it down first"
                )
            if image.format in _VECTOR:
                raise ImageError(f"{name} is a drawing ({image.format}), not a picture; export it as PNG first")
            try:
                image.load()
                return _to_rgba(_upright(image) if exif_rotation else image)
            except MemoryError:
                raise ImageError(f"{name} ({width} x {height} pixels) does not fit in memory; scale it down") from None
            except Exception as problem:
                raise ImageError(f"{name} is damaged or truncated ({problem}); save or download it again") from problem


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # malformed EXIF data says nothing about the orientation
        return image


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.0f} megapixels"


def _hint(source: Path | io.BytesIO) -> str:
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(64)
    else:
        head = source.getvalue()[:64]
    if head[4:8] == b"ftyp":
        return " (HEIC, AVIF or a film); convert it to JPEG or PNG first"
    if head.lstrip()[:4].lower() in (b"<svg", b"<?xm"):
        return " (SVG or XML); export it as PNG first"
    if head.lstrip()[:2].lower() == b"<!" or head.lstrip()[:5].lower() == b"<html":
        return " (it is a web page; the download went wrong)"
    return "; give a PNG, JPEG or WebP file"


def _to_rgba(image: Image.Image) -> np.ndarray:
    """[H, W, 4] float32 in 0..1 from a decoded picture of any mode."""
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        return _deep_grey(image)
    profile = image.info.get("icc_profile")
    alpha = None
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
    elif image.mode in ("1", "P"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    colour = np.asarray(_to_srgb(image, profile), dtype=np.float32) / 255  # [H, W, 3]
    out = np.ones((*colour.shape[:2], 4), dtype=np.float32)
    out[..., :3] = colour
    if alpha is not None:
        out[..., 3] = np.asarray(alpha, dtype=np.float32) / 255
    return out


def _deep_grey(image: Image.Image) -> np.ndarray:
    """Grey pictures of 16 or 32 bits a pixel: the full range of the stored type becomes 0..1."""
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=np.finfo(np.float32).max, neginf=0.0)
    top = float(values.max(initial=0.0))
    if image.mode == "F":
        full = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top)
    else:
        full = 65535.0 if top <= 65535 else 2.0**31 - 1
    grey = np.clip(values / full, 0, 1).astype(np.float32)
    out = np.ones((*grey.shape, 4), dtype=np.float32)
    out[..., :3] = grey[..., None]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        out[..., 3] = values != transparent
    return out


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An 8-bit RGB picture; through the embedded profile where it is usable, else by Pillow's plain conversion."""
    source = None
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
            source = None
    if source is not None:
        try:
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, ValueError, OSError):
            pass  # a damaged profile, or one for another colour space than the picture's
    return image.convert("RGB")


def to_uint8(image: Tensor) -> np.ndarray:
    """Floats in 0..1 (clipped; NaN becomes 0), any shape, as the nearest 8-bit values."""
    values = torch.nan_to_num(image.detach().float(), nan=0.0).clamp(0, 1)
    return (values * 255).round().to(torch.uint8).cpu().numpy()


def write_image(path: str | PathLike[str], image: Tensor) -> None:
    """Write [H, W, 3] or [H, W, 4] floats (sRGB, straight alpha, 0..1; clipped) as ``.png``, ``.jpg`` or ``.webp``.

    JPEG knows no alpha: the picture is laid on white. Written atomically.

    Raises:
        OutputError: unknown suffix, or the file cannot be written.
    """
    path = Path(path)
    if image.ndim != 3 or image.shape[-1] not in (3, 4) or 0 in image.shape:
        raise ValueError(f"write_image needs [H, W, 3] or [H, W, 4] with pixels in it, got {tuple(image.shape)}")
    if path.suffix.lower() not in WRITERS:
        raise OutputError(f"cannot write {path}: a picture's name must end in {', '.join(WRITERS)}")
    name, options = WRITERS[path.suffix.lower()]
    if name == "JPEG" and image.shape[-1] == 4:
        image = image[..., :3] * image[..., 3:] + (1 - image[..., 3:])
    # Encoded in memory: Pillow's own writing to a file takes a full disk for success now and then.
    encoded = io.BytesIO()
    try:
        Image.fromarray(to_uint8(image)).save(encoded, format=name, **options)
    except (OSError, ValueError) as problem:
        height, width = image.shape[:2]
        raise OutputError(f"cannot write {path}: {problem} ({width} x {height} pixels); try .png") from problem
    atomic_write_bytes(path, encoded.getbuffer())


def resize_image(image: Tensor, size: Size, method: str = "area") -> Tensor:
    """Resize [H, W, 3] or [H, W, 4] (straight alpha) to ``size``; colours are weighted by alpha, so none bleed in.

    Args:
        method: "area" takes the area-weighted mean along an axis that shrinks and interpolates linearly along one that
            grows; "bilinear" uses a triangle filter that widens as the picture shrinks.
    """
    if method not in ("area", "bilinear"):
        raise ValueError(f"method must be 'area' or 'bilinear', got {method!r}")
    height, width = as_size(size)
    if tuple(image.shape[:2]) == (height, width):
        return image.clone()
    values = image.detach().float().cpu().numpy()
    has_alpha = values.shape[-1] == 4
    if has_alpha:
        values = np.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], axis=-1)

    def resize(plane: np.ndarray) -> np.ndarray:
        if method == "area" and height < plane.shape[0]:
            plane = _area_mean(plane, height)
        if method == "area" and width < plane.shape[1]:
            plane = _area_mean(plane.T, width).T
        picture = Image.fromarray(np.ascontiguousarray(plane))  # mode F
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))

    out = np.stack([resize(values[..., c]) for c in range(values.shape[-1])], axis=-1)  # [height, width, C]
    if has_alpha:
        alpha = out[..., 3:]
        out = np.concatenate([np.where(alpha > 1e-6, out[..., :3] / np.maximum(alpha, 1e-6), 0.0), alpha], axis=-1)
    return torch.from_numpy(out.astype(np.float32)).to(image.device)


def _area_mean(plane: np.ndarray, count: int) -> np.ndarray:
    """The rows of [n, W] averaged into ``count`` < n rows, each over its exact (fractional) share of the old ones."""
    n = plane.shape[0]
    sums = np.zeros((n + 1, plane.shape[1]))
    np.cumsum(plane, axis=0, dtype=np.float64, out=sums[1:])
    edges = np.arange(count + 1) * (n / count)
    whole = np.minimum(edges.astype(int), n - 1)
    integral = sums[whole] + (edges - whole)[:, None] * plane[whole]
    return (np.diff(integral, axis=0) * (count / n)).astype(np.float32)
