"""Textures of packed objects: sides that are powers of two up to a limit, WebP."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 80  # WebP's, 0..100


def power_of_two(side: int, limit: int) -> int:
    """The power of two nearest to ``side`` (on the logarithmic scale), at most ``limit``."""
    return max(1, min(1 << max(round(np.log2(max(side, 1))), 0), limit))


def fit_picture(picture: NDArray[np.uint8], limit: int) -> NDArray[np.uint8]:
    """[H, W, 4] -> sides that are powers of two up to ``limit``. Texture coordinates stay as they are.

    Resizing weights colours by alpha, so that what lies under transparent pixels does not bleed into the visible ones.
    """
    height, width = (power_of_two(s, limit) for s in picture.shape[:2])
    if (height, width) == picture.shape[:2]:
        return picture
    image = Image.fromarray(picture, "RGBA")
    kind = (
        Image.Resampling.BOX
        if height < picture.shape[0] / 2 or width < picture.shape[1] / 2
        else Image.Resampling.BICUBIC
    )
    if picture[..., 3].min() == 255:
        return np.array(image.convert("RGB").resize((width, height), kind).convert("RGBA"))
    # Pillow's RGBa is premultiplied.
    return np.array(image.convert("RGBa").resize((width, height), kind).convert("RGBA"))


def encode_picture(picture: NDArray[np.uint8], limit: int, keep_alpha: bool, quality: int = QUALITY) -> bytes:
    """WebP bytes of :func:`fit_picture`; without ``keep_alpha`` (or where it says nothing) only the colours."""
    if not keep_alpha and picture[..., 3].min() < 255:
        picture = picture.copy()
        picture[..., 3] = 255
    picture = fit_picture(picture, limit)
    keep_alpha = keep_alpha and bool(picture[..., 3].min() < 255)
    out = io.BytesIO()
    Image.fromarray(picture if keep_alpha else np.ascontiguousarray(picture[..., :3])).save(
        out, "WEBP", quality=quality, method=4
    )
    return out.getvalue()


def decode_picture(data: bytes) -> NDArray[np.uint8]:
    """[H, W, 4] uint8 of the bytes of a picture. Raises ``OSError`` or ``ValueError`` where they are damaged."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGBA"))


def picture_key(picture: NDArray[np.uint8]) -> bytes:
    """What tells pictures apart: equal for equal pixels."""
    return hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).digest()


class PictureCache:
    """Encodes each distinct picture once."""

    def __init__(self, limit: int, quality: int, entries: int = 2048) -> None:
        self._pending: NDArray[np.uint8] | None = None

        @lru_cache(entries)
        def encode(key: bytes, keep_alpha: bool) -> bytes:
            return encode_picture(self._pending, limit, keep_alpha, quality)

        self._encode = encode

    def encode(self, picture: NDArray[np.uint8], keep_alpha: bool) -> bytes:
        """As :func:`encode_picture`."""
        self._pending = picture
        return self._encode(picture_key(picture), keep_alpha)
