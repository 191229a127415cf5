"""Pictures as bytes, and tar files that are the same whenever they are written."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...camera import Cameras
from ...files.atomic import atomic_path
from ..objects import TexturedObject
from ..render import Lights, SceneBatch, render_objects

_VIEWS_AT_ONCE = 32


def render_bytes(obj: TexturedObject, cameras: Cameras, size: int, lights: Lights, device: torch.device) -> Tensor:
    """Pictures [V, size, size, 4] uint8 of one object, straight alpha, on the CPU."""
    scene, lights = SceneBatch.pack([obj]).to(device), lights.to(device)
    parts = []
    for i in range(0, len(cameras), _VIEWS_AT_ONCE):
        some = cameras[i : i + _VIEWS_AT_ONCE].to(device)
        drawn = render_objects(scene, some, size, lights, outputs=("rgba",), dtype=torch.uint8)
        parts.append(drawn.rgba[0].cpu())
    return torch.cat(parts)


def encoded(picture: NDArray[np.uint8], kind: str, **options: object) -> bytes:
    """A picture [H, W], [H, W, 3] or [H, W, 4] as the bytes of a file of ``kind`` ("PNG", "JPEG", "WEBP")."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, **options)
    return out.getvalue()


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 4] -> [H, W, 3] on white."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def numpy_bytes(array: NDArray) -> bytes:
    """The bytes of a ``.npy`` file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """A plain tar file of named contents, whole or not at all; times and owners are left at zero."""
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
