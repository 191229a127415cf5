"""A folder of posed pictures as :func:`fit_gaussians` takes it: COLMAP, ``transforms.json``, or ``rgb/`` and ``pose/``."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ..camera import Cameras, read_colmap
from ..camera.colmap_points import read_colmap_points
from ..camera.posed_folder import is_colmap, read_posed_folder
from ..errors import InputError
from ..files.images import read_image, resize_image

LEAST_SIZE = 16  # pixels


@dataclass
class Views:
    """Pictures [H, W, 3] or [H, W, 4] with their cameras (V,), and the points of the model (positions, colours) or None."""

    images: list[Tensor]
    cameras: Cameras
    points: tuple[Tensor, Tensor] | None


def read_views(folder: str | PathLike[str], size: int = 0) -> Views:
    """Read the pictures and cameras of a folder.

    Args:
        folder: as :func:`~bozzetto.camera.posed_folder.read_posed_folder` takes it; a COLMAP model counts before the others.
        size: pictures whose longer side has more pixels are scaled down to it, from 16 on; 0 keeps them.

    Raises:
        CameraError: there are no cameras, or they cannot be used. ImageError: a picture cannot be read.
        InputError: another ``size``.
    """
    if size and size < LEAST_SIZE:
        raise InputError(f"the size of pictures must be 0, which keeps them, or at least {LEAST_SIZE}, got {size}")
    folder, points = Path(folder).expanduser(), None
    if is_colmap(folder):  # first, for its points
        posed, points = read_colmap(folder, require_images=True), read_colmap_points(folder)
    else:
        posed = read_posed_folder(folder)
    images = []
    for path in posed.paths:
        picture = read_image(path, exif_rotation=False)
        rgba = picture.rgba
        height, width = rgba.shape[:2]
        if size and max(height, width) > size:
            factor = size / max(height, width)
            rgba = resize_image(rgba, (max(round(height * factor), 8), max(round(width * factor), 8)))
        images.append(rgba if picture.has_alpha else rgba[..., :3].contiguous())
    return Views(images, posed.cameras, points)


def hold_out(count: int, every: int) -> tuple[list[int], list[int]]:
    """Numbers of the views to fit and of those kept aside: every ``every``-th, beginning with the first; 0 keeps none."""
    aside = [i for i in range(count) if every and i % every == 0]
    return [i for i in range(count) if i not in set(aside)], aside


def mean_psnr(images: list[Tensor], cameras: Cameras, gaussians: object, background: Tensor, near: float) -> float:
    """Mean PSNR in dB of what Gaussians look like against pictures, on one background, from the near plane ``near`` on."""
    from ..raster import rasterize
    from ..training.losses import over, psnr

    values = []
    for i, image in enumerate(images):
        drawn = rasterize(gaussians, cameras[i : i + 1], image.shape[:2], background, near=near).rgb[0]
        drawn = drawn.clamp(0, 1).cpu()
        goal = over(image[..., :3], image[..., 3], background) if image.shape[-1] == 4 else image
        values.append(float(psnr(drawn, goal)))
    return float(torch.tensor(values).mean()) if values else float("nan")
