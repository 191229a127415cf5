"""A user's picture -> the cut-out object that pipelines take."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import ImageError
from .job import Job

MAX_SIDE = 1536  # pixels; larger photos are reduced before matting: the networks see at most 512
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels
Picture = str | PathLike[str] | Tensor | np.ndarray  # a file, or [H, W, 3 or 4] float in 0..1 (or uint8)


def check_picture(photo: Picture) -> None:
    """Raise :class:`ImageError` for what cannot be a picture; reads no file, so it is fast."""
    from .files.inputs import check_input

    if isinstance(photo, (str, PathLike)):
        check_input(photo, "a picture", ImageError)
        return
    if not isinstance(photo, (Tensor, np.ndarray)):
        raise ImageError(
            f"a photo must be a file or an array [H, W, 3 or 4], got {type(photo).__name__}; "
            "of a PIL picture give numpy.asarray(picture)"
        )
    if photo.ndim != 3 or photo.shape[-1] not in (3, 4) or 0 in photo.shape:
        raise ImageError(f"a picture array must be [H, W, 3] or [H, W, 4], got {tuple(photo.shape)}")
    kind = str(photo.dtype).removeprefix("torch.")
    if not (kind == "uint8" or "float" in kind):
        raise ImageError(f"a picture array must be uint8 (0..255) or float (0..1), got {kind}")


def load_picture(photo: Picture, exif_rotation: bool = True) -> Tensor:
    """[H, W, 3 or 4] float in 0..1; four channels where the alpha means something or the array has it."""
    from .files.images import read_image

    check_picture(photo)
    if isinstance(photo, np.ndarray):
        photo = torch.from_numpy(np.ascontiguousarray(photo))
    if isinstance(photo, Tensor):
        photo = photo.detach().cpu()
        photo = photo.float() / 255 if photo.dtype == torch.uint8 else photo.float()
        if not bool(torch.isfinite(photo).all()):
            raise ImageError("the picture holds NaN or infinity")
        return photo.clamp(0, 1)
    read = read_image(photo, exif_rotation=exif_rotation)
    return read.rgba if read.has_alpha else read.rgba[..., :3]


def reduced(picture: Tensor, crop: Box | None = None) -> tuple[Tensor, Box | None]:
    """The picture with its longer side at most ``MAX_SIDE``, and the crop box in the new pixels."""
    height, width = picture.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return picture, crop
    from .files.images import resize_image

    small = resize_image(picture, (max(round(height * scale), 1), max(round(width * scale), 1)))
    if crop is None:
        return small, None
    x0, y0, x1, y1 = (round(c * scale) for c in crop)
    return small, (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))


def opaque(picture: Tensor) -> Tensor:
    """[H, W, 4] with alpha 1 where the picture has none."""
    return torch.cat([picture, torch.ones_like(picture[..., :1])], dim=-1) if picture.shape[-1] == 3 else picture


def cut_photo(photo: Picture, matting: bool, crop: Box | None, job: Job) -> Tensor:
    """The object, [H, W, 4] straight alpha in 0..1 on the CPU: read, reduced, cut out.

    Raises :class:`ImageError` (unreadable, crop outside) or :class:`ForegroundError` (nothing found).
    """
    from .matting.cutout import cutout

    with job.stage("read"):
        picture, crop = reduced(load_picture(photo), crop)
    if matting:
        with job.stage("matting"):
            job.tell("cutting out the object", 0.0)
            return cutout(picture, box=crop)
    if crop is not None:
        x0, y0, x1, y1 = (max(c, 0) for c in crop)
        picture = picture[y0:y1, x0:x1]
        if picture.numel() == 0:
            raise ImageError(f"the crop box {crop} lies outside of the picture")
    return opaque(picture)


def picture_name(photo: Picture) -> str:
    """What the report calls the input."""
    return "array" if isinstance(photo, (Tensor, np.ndarray)) else Path(photo).name
