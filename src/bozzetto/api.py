"""The public functions: pictures in, :class:`Asset` out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .asset import Asset, Progress, timed, versions
from .camera import Cameras
from .camera.checks import check_cameras
from .errors import CameraError, ImageError, InputError
from .gaussians import Gaussians
from .zoo import check_name, find_entry, load
from .zoo.entries import ENTRIES

MAX_SIDE = 1536  # pixels; larger photos are reduced before matting: the network sees 256
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels
Picture = str | PathLike[str] | Tensor | np.ndarray  # a file, or [H, W, 3 or 4] float in 0..1 (or uint8)


def pick_device(device: str) -> torch.device:
    """ "auto" (CUDA where there is one), "cpu" or "cuda"; raises :class:`InputError` for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda") and not device.startswith("cuda:"):
        raise InputError(f"device must be auto, cpu or cuda, got {device!r}")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this torch sees no CUDA device; use --device cpu (or auto)")
    return chosen


def image_to_3d(
    photo: Picture,
    *,
    model: str = "lgm-mini",
    seed: int = 0,
    mesh: bool = True,
    matting: bool = True,
    crop: Box | None = None,
    elevation: float = 0.0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Asset:
    """One photo of an object -> a 3D object.

    Args:
        photo: file or picture; one with an alpha channel is used as it is, any other is cut out (``matting``).
        model: a zoo name that takes a photo, or a weights file.
        seed: for models that draw random numbers; recorded in the report.
        mesh: also make a textured mesh.
        matting: False uses the whole picture as the object.
        crop: (x0, y0, x1, y1) in pixels; only what lies inside is looked at.
        elevation: degrees by which the photo was taken from above; the result then stands upright.
        device: "auto", "cpu" or "cuda".
        progress: called with (stage, share done).

    Returns:
        :class:`Asset`, y up, the photo's side facing +z.
    """
    from .matting.cutout import cutout
    from .matting.recenter import recenter
    from .systems.lgm.reconstruct import reconstruct

    target, tell, timings = pick_device(device), progress or (lambda what, share: None), {}
    if not -90 <= elevation <= 90:
        raise InputError(f"elevation must lie in -90..90 degrees, got {elevation}")
    _require_input(model, "photo")
    _seed(seed)
    with timed(timings, "read"):
        rgba, crop = _reduced(_picture(photo), crop)
    if not matting:
        if crop is not None:
            x0, y0, x1, y1 = (max(c, 0) for c in crop)
            rgba = rgba[y0:y1, x0:x1]
            if rgba.numel() == 0:
                raise ImageError(f"the crop box {crop} lies outside of the picture")
        if rgba.shape[-1] == 3:
            rgba = torch.cat([rgba, torch.ones_like(rgba[..., :1])], dim=-1)
    else:
        with timed(timings, "matting"):
            tell("cutting out the object", 0.0)
            rgba = cutout(rgba, box=crop)
    with timed(timings, "load_model"):
        tell(f"loading {model}", 0.0)
        network = load(model, str(target))
    _require_head(network, model)
    with timed(timings, "network"):
        tell("reconstructing", 0.0)
        config = network.config
        square = recenter(rgba, size=config.input_size)
        cameras = Cameras.orbit([0.0], elevation, config.radius, config.fov_y)
        gaussians = reconstruct(network, square.permute(2, 0, 1)[None, None], cameras[None])[0].prune()
    report = {"command": "image", "input": _name(photo), "model": model, "seed": seed, "device": str(target)}
    report |= {"matting": matting, "elevation": elevation, "versions": versions(), "timings": timings}
    return _finish(gaussians, report, mesh, progress)


def views_to_3d(
    images: Sequence[Picture],
    cameras: Cameras,
    *,
    model: str = "lgm-mini",
    seed: int = 0,
    mesh: bool = True,
    matting: bool = True,
    device: str = "auto",
    progress: Progress | None = None,
) -> Asset:
    """Pictures of one object with known cameras -> a 3D object in the cameras' own world frame.

    Any camera distance, orientation and object scale. Pictures with an alpha channel are used as they are, others are cut
    out (``matting``); they may differ in size. lgm-mini uses at most four views (those that see the most different sides),
    LGM up to eight; the report says which.
    """
    from .matting.cutout import cutout
    from .systems.lgm.cameras import SLOTS
    from .systems.lgm.reconstruct import MAX_VIEWS, reconstruct
    from .systems.lgm.views import common_up, normalize_views, snap_to_axis, spread_views

    target, tell, timings = pick_device(device), progress or (lambda what, share: None), {}
    _require_input(model, "views")
    _seed(seed)
    if len(images) == 0:
        raise InputError("there are no pictures; give at least one")
    if cameras.batch_shape != (len(images),):
        raise CameraError(
            f"{len(images)} pictures need {len(images)} cameras, got a batch of {tuple(cameras.batch_shape)}"
        )
    with timed(timings, "load_model"):
        tell(f"loading {model}", 0.0)
        network = load(model, str(target))
    cameras = check_cameras(cameras)
    limit = SLOTS if network.config.head == "ray" else MAX_VIEWS
    used = spread_views(cameras, limit)
    with timed(timings, "matting"):
        pictures = []
        for count, i in enumerate(used):
            tell("cutting out the object", count / len(used))
            rgba, _ = _reduced(_picture(images[i], exif_rotation=False), None)
            if matting:
                rgba = cutout(rgba)
            elif rgba.shape[-1] == 3:
                rgba = torch.cat([rgba, torch.ones_like(rgba[..., :1])], dim=-1)
            pictures.append(rgba)
    with timed(timings, "network"):
        tell("reconstructing", 0.0)
        config = network.config
        fixed = None if config.head == "ray" else (config.radius, config.fov_y)
        views = normalize_views(pictures, cameras[torch.tensor(used)], config.input_size, fixed)
        gaussians = reconstruct(network, views.rgba[None], views.cameras[None])[0].prune()
        gaussians = gaussians.transformed(torch.linalg.inv(views.matrix))
    report = {"command": "views", "inputs": len(images), "views_used": used, "model": model, "seed": seed}
    report |= {"device": str(target), "matting": matting, "versions": versions(), "timings": timings}
    up = snap_to_axis(common_up(cameras))
    report["up"] = up
    return _finish(gaussians, report, mesh, progress, up)


def _finish(
    gaussians: Gaussians,
    report: dict[str, Any],
    mesh: bool,
    progress: Progress | None,
    up: tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> Asset:
    surface = None
    if mesh:
        from .surface import gaussians_to_mesh

        tell = progress or (lambda what, share: None)
        with timed(report["timings"], "mesh"):
            surface = gaussians_to_mesh(
                gaussians, progress=lambda stage, share: tell(f"making the mesh: {stage}", share)
            )
    return Asset(gaussians, surface, up, report)


def _picture(photo: Picture, exif_rotation: bool = True) -> Tensor:
    """[H, W, 3 or 4] float in 0..1; four channels where the alpha means something or the array has it."""
    from .files.images import read_image

    if isinstance(photo, np.ndarray):
        photo = torch.from_numpy(np.ascontiguousarray(photo))
    if isinstance(photo, Tensor):
        if photo.ndim != 3 or photo.shape[-1] not in (3, 4):
            raise ImageError(f"a picture tensor must be [H, W, 3] or [H, W, 4], got {tuple(photo.shape)}")
        photo = photo.float() / 255 if photo.dtype == torch.uint8 else photo.float()
        if not bool(torch.isfinite(photo).all()):
            raise ImageError("the picture holds NaN or infinity")
        return photo.clamp(0, 1)
    read = read_image(photo, exif_rotation=exif_rotation)
    return read.rgba if read.has_alpha else read.rgba[..., :3]


def _reduced(picture: Tensor, crop: Box | None) -> tuple[Tensor, Box | None]:
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


def _name(photo: Picture) -> str:
    return "array" if isinstance(photo, (Tensor, np.ndarray)) else Path(photo).name


def _require_input(model: str, kind: str) -> None:
    check_name(model)
    if model not in ENTRIES:
        return  # a file or a hub id: judged after loading
    entry = find_entry(model)
    if kind not in entry.inputs:
        fitting = [e.name for e in ENTRIES.values() if kind in e.inputs]
        raise InputError(f"{model} does not take a {kind.rstrip('s')} alone; models that do: {', '.join(fitting)}")


def _require_head(network: torch.nn.Module, model: str) -> None:
    if getattr(network.config, "head", None) != "ray":
        raise InputError(
            f"{model} needs posed views and cannot imagine unseen sides; use lgm-mini, or `bozzetto views`"
        )


def _seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must lie in 0..2^63 - 1, got {seed}")
    torch.manual_seed(seed)
    random.seed(seed)
