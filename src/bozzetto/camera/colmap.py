"""COLMAP's sparse models, text (``cameras.txt``, ``images.txt``) and binary (``.bin``): reading.

COLMAP stores world-to-camera rotations as quaternions (w, x, y, z) with OpenCV camera axes. The world is kept as it is
(its orientation and scale are arbitrary); the camera axes become OpenGL's. Points are skipped. The layout follows
COLMAP's public format description.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import CameraError
from ..gaussians import quaternion_to_matrix
from .cameras import Cameras
from .checks import check_poses
from .conventions import opencv_to_opengl
from .posed_views import (
    PosedViews,
    check_aspect,
    check_distortion,
    check_focal,
    find_picture,
    picture_size,
    refuse_missing,
    unique_names,
)

# Camera models in the order of their numbers in binary files: (name, number of parameters).
MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
)
_SUPPORTED = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")


@dataclass
class _Lens:
    """One COLMAP camera: size and parameters in pixels."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass
class _Image:
    """One registered picture: world-to-camera rotation (w, x, y, z) and translation, OpenCV axes."""

    quaternion: tuple[float, ...]
    translation: tuple[float, ...]
    camera: int
    name: str


def read_colmap(
    path: str | PathLike[str], images: str | PathLike[str] | None = None, require_images: bool = False
) -> PosedViews:
    """Cameras of a COLMAP sparse model, sorted by picture name, in COLMAP's own world frame and scale.

    Args:
        path: the folder with ``cameras`` and ``images`` (``.bin`` or ``.txt``), or a project folder that holds them in
            ``sparse/0`` or ``sparse``.
        images: the folder of the pictures; by default ``images`` in the project folder, or the model's folder itself.
        require_images: raise if a picture is missing.

    Returns:
        :class:`PosedViews`: cameras (N,) float32 with names, N picture paths, N sizes.

    Raises:
        CameraError: no model there, a malformed or truncated file, no registered pictures, a camera model with visible
            lens distortion or one that is no pinhole, missing pictures.
    """
    folder = Path(path)
    model, suffix = _find_model(folder)
    camera_file, image_file = model / f"cameras{suffix}", model / f"images{suffix}"
    try:
        if suffix == ".bin":
            lenses, entries = _read_cameras_binary(camera_file), _read_images_binary(image_file)
        else:
            lenses, entries = _read_cameras_text(camera_file), _read_images_text(image_file)
    except OSError as error:
        raise CameraError(f"the COLMAP model in {model} cannot be read: {error}") from error
    if not entries:
        raise CameraError(f"{image_file} holds no registered pictures; COLMAP found no poses for this set")
    entries.sort(key=lambda e: e.name)

    if images is not None:
        picture_folder = Path(images)
    else:
        picture_folder = next((f for f in (folder / "images", folder.parent / "images") if f.is_dir()), folder)
    names = unique_names([e.name for e in entries])
    paths, missing, sizes, intrinsics = [], [], [], []
    for entry in entries:
        if entry.camera not in lenses:
            raise CameraError(f"{image_file}: {entry.name} uses camera {entry.camera}, absent from {camera_file}")
        lens = lenses[entry.camera]
        label = f"{camera_file}: camera {entry.camera} ({lens.model})"
        intrinsics.append(_intrinsics(lens, label))
        sizes.append((lens.height, lens.width))
        found = find_picture(picture_folder, entry.name)
        if found is None:
            missing.append(entry.name)
        else:
            check_aspect(sizes[-1], picture_size(found), str(found))
        paths.append(found if found is not None else picture_folder / entry.name)
    if require_images:
        refuse_missing(missing, image_file)

    quaternions = torch.tensor([e.quaternion for e in entries], dtype=torch.float64)
    translations = torch.tensor([e.translation for e in entries], dtype=torch.float64)
    if bool((quaternions.norm(dim=-1) < 1e-6).any()):
        raise CameraError(f"{image_file} holds a rotation of zero length; export the model again")
    rotation = quaternion_to_matrix(quaternions).transpose(-1, -2)  # camera to world
    poses = torch.eye(4, dtype=torch.float64).repeat(len(entries), 1, 1)
    poses[:, :3, :3] = rotation
    poses[:, :3, 3] = -(rotation @ translations[..., None])[..., 0]
    poses = check_poses(opencv_to_opengl(poses), names).float()
    return PosedViews(Cameras(poses, torch.tensor(intrinsics), names), paths, sizes)


def _find_model(folder: Path) -> tuple[Path, str]:
    """The folder that holds the model, and the suffix of its files; raises :class:`CameraError`."""
    for candidate in (folder, folder / "sparse" / "0", folder / "sparse"):
        for suffix in (".bin", ".txt"):
            if (candidate / f"cameras{suffix}").is_file() and (candidate / f"images{suffix}").is_file():
                return candidate, suffix
    raise CameraError(
        f"no COLMAP model in {folder}: it needs cameras.bin and images.bin (or .txt), there or in sparse/0"
    )


def _intrinsics(lens: _Lens, label: str) -> list[float]:
    """Normalised (fx, fy, cx, cy); raises :class:`CameraError` for a lens that is no pinhole."""
    if lens.model not in _SUPPORTED:
        raise CameraError(
            f"{label}: this camera model is not supported (only {', '.join(_SUPPORTED)}); undistort the pictures first "
            "(`colmap image_undistorter`), which writes PINHOLE cameras"
        )
    p = lens.params
    radial: tuple[float, ...] = ()
    tangential: tuple[float, ...] = ()
    if lens.model in ("PINHOLE", "OPENCV"):
        fx, fy, cx, cy = p[:4]
        radial, tangential = p[4:6], p[6:8]
    else:  # one focal length
        fx, cx, cy = p[:3]
        fy, radial = fx, p[3:]
    usable = all(math.isfinite(x) and abs(x) < 1e14 for x in p) and fx > 0 and fy > 0
    if not (usable and 0 < lens.width < 1e7 and 0 < lens.height < 1e7):
        raise CameraError(f"{label}: its focal length and size must be positive and finite, got {p}")
    values = [
        check_focal(fx / lens.width, label),
        check_focal(fy / lens.height, label),
        cx / lens.width,
        cy / lens.height,
    ]
    check_distortion(radial, tangential, values, label)
    return values


# ---- text --------------------------------------------------------------------------------------------------


def _lines(file: Path) -> list[str]:
    """Lines of a text file."""
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CameraError(f"{file} is not a text file ({error})") from error


def _read_cameras_text(file: Path) -> dict[int, _Lens]:
    """cameras.txt by camera number."""
    lenses = {}
    for number, line in enumerate(_lines(file), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            lens = _Lens(words[1], int(words[2]), int(words[3]), tuple(float(w) for w in words[4:]))
            lenses[int(words[0])] = lens
        except (IndexError, ValueError) as error:
            raise CameraError(f"{file}, line {number}: needs CAMERA_ID MODEL WIDTH HEIGHT PARAMS ({error})") from error
        count = dict(MODELS).get(lens.model)
        if count is not None and count != len(lens.params):
            raise CameraError(f"{file}, line {number}: {lens.model} has {count} parameters, got {len(lens.params)}")
    return lenses


def _read_images_text(file: Path) -> list[_Image]:
    """images.txt, in the file's order."""
    entries = []
    lines = _lines(file)
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        number += 1
        if not line or line.startswith("#"):
            continue
        words = line.split(maxsplit=9)
        try:
            values = tuple(float(w) for w in words[1:8])
            entries.append(_Image(values[:4], values[4:], int(words[8]), words[9]))
        except (IndexError, ValueError) as error:
            raise CameraError(
                f"{file}, line {number}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME ({error})"
            ) from error
        number += 1  # the line of 2D points, which may be empty
    return entries


# ---- binary ------------------------------------------------------------------------------------------------


def _unpack(stream: BinaryIO, layout: str, file: Path) -> tuple:
    """The next little-endian values of ``stream``, by ``struct`` letters."""
    layout = "<" + layout
    size = struct.calcsize(layout)
    data = stream.read(size)
    if len(data) < size:
        raise CameraError(f"{file} ends too early; copy or export it again")
    return struct.unpack(layout, data)


def _read_cameras_binary(file: Path) -> dict[int, _Lens]:
    """cameras.bin by camera number."""
    lenses = {}
    with file.open("rb") as stream:
        (count,) = _unpack(stream, "Q", file)
        for _ in range(count):
            identity, model, width, height = _unpack(stream, "iiQQ", file)
            if not 0 <= model < len(MODELS):
                raise CameraError(f"{file}: unknown camera model number {model}; undistort the pictures with COLMAP")
            name, parameters = MODELS[model]
            lenses[identity] = _Lens(name, width, height, _unpack(stream, f"{parameters}d", file))
    return lenses


def _read_images_binary(file: Path) -> list[_Image]:
    """images.bin, in the file's order."""
    entries = []
    size = file.stat().st_size
    with file.open("rb") as stream:
        (count,) = _unpack(stream, "Q", file)
        for _ in range(count):
            values = _unpack(stream, "i7di", file)
            name = bytearray()
            while (byte := _unpack(stream, "c", file)[0]) != b"\0":
                name += byte
            (points,) = _unpack(stream, "Q", file)
            if points * 24 > size - stream.tell():  # each is x, y (double) and a 64-bit point number
                raise CameraError(f"{file} ends too early; copy or export it again")
            stream.seek(points * 24, 1)
            entries.append(_Image(values[1:5], values[5:8], values[8], name.decode("utf-8", "replace")))
    return entries
