"""NeRF's and Blender's ``transforms.json``: reading and writing.

The file holds a camera-to-world matrix with OpenGL camera axes per picture. Its world is kept as it is (these files are
often z-up; :func:`bozzetto.camera.blender_to_opengl_world` turns such a world into ours), and so is its scale.

Keys, each for the whole file or per frame (the frame's wins): ``w``, ``h``, ``fl_x``, ``fl_y``, ``cx``, ``cy`` in
pixels; ``camera_angle_x``, ``camera_angle_y`` full angles in radians; ``k1``..``k4``, ``p1``, ``p2`` lens distortion.
Without ``w`` and ``h`` the picture's own size is taken. A missing ``fl_y`` means square pixels, a missing ``cx`` or
``cy`` the centre.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ..errors import CameraError
from .cameras import Cameras, Size, as_size
from .checks import check_poses
from .posed_views import (
    PosedViews,
    check_aspect,
    check_distortion,
    check_focal,
    find_picture,
    picture_size,
    refuse_missing,
    shortened,
    unique_names,
)


def read_transforms(path: str | PathLike[str], require_images: bool = True) -> PosedViews:
    """Cameras and pictures of a ``transforms.json``, in the file's own world frame and scale.

    Args:
        path: the file, or the folder that holds ``transforms.json``. Pictures are looked up relative to its folder,
            with or without their suffix.
        require_images: raise if a picture is missing. Without it the paths are only guesses where nothing is found.

    Returns:
        :class:`PosedViews`: cameras (N,) float32 with names, N picture paths, N sizes.

    Raises:
        CameraError: no such file, malformed JSON, missing keys, no frames, matrices that are no rigid poses, missing
            pictures, pictures of another shape than the intrinsics, visible lens distortion.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "transforms.json"
    data = _load(file)
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        raise CameraError(f'{file} holds no cameras: it needs a non-empty list "frames"')

    names, paths, matrices, missing = [], [], [], []
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise CameraError(f"{file}: frame {i} must be a JSON object, got {type(frame).__name__}")
        name = frame.get("file_path")
        if name is None and not require_images:
            name = f"{i:04d}"
        if not isinstance(name, str) or not name:
            raise CameraError(f'{file}: frame {i} has no "file_path" that names its picture')
        try:
            found = find_picture(file.parent, name)
        except CameraError as error:
            raise CameraError(f"{file}: frame {i}, file_path: {error}") from error
        if found is None:
            missing.append(name)
        names.append(name)
        paths.append(found if found is not None else file.parent / name)
        matrices.append(_matrix(frame, f"{file}: frame {i} ({name})"))
    if require_images:
        refuse_missing(missing, file)

    unique = unique_names(names)
    poses = check_poses(torch.stack(matrices), unique).float()
    intrinsics, sizes = [], []
    for i, frame in enumerate(frames):
        values, size = _intrinsics({**data, **frame}, paths[i], f"{file}: frame {i} ({names[i]})")
        intrinsics.append(values)
        sizes.append(size)
    return PosedViews(Cameras(poses, torch.tensor(intrinsics), unique), paths, sizes)


def write_transforms(
    path: str | PathLike[str], cameras: Cameras, size: Size, files: Sequence[str | PathLike[str]] | None = None
) -> Path:
    """Write cameras (N,) as ``transforms.json``, atomically; the inverse of :func:`read_transforms`.

    Args:
        path: the file to write, or an existing folder (then ``transforms.json`` in it).
        size: picture size in pixels, int or (height, width); the intrinsics are written in pixels of it.
        files: the pictures' paths as they shall stand in the file (relative to its folder, with forward slashes);
            the cameras' names, or 0000, 0001, ... by default.

    Returns:
        The path written. Raises :class:`CameraError` on a wrong batch shape, ``OutputError`` if it cannot be written.
    """
    from ..files.atomic import atomic_path

    if len(cameras.batch_shape) != 1 or len(cameras) == 0:
        raise CameraError(f"transforms.json holds a flat list of cameras, got batch shape {tuple(cameras.batch_shape)}")
    count = len(cameras)
    if files is None:
        files = cameras.names if cameras.names is not None else [f"{i:04d}" for i in range(count)]
    if len(files) != count:
        raise CameraError(f"{count} cameras need {count} file names, got {len(files)}")
    height, width = as_size(size)
    pixels = cameras.to(dtype=torch.float64, device="cpu").pixel_intrinsics((height, width))
    shared = bool((pixels == pixels[0]).all())

    def keys(values: list[float]) -> dict[str, float]:
        fx, fy, cx, cy = values
        return {"camera_angle_x": 2 * math.atan(0.5 * width / fx), "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}

    document: dict[str, Any] = {"w": width, "h": height}
    if shared:
        document |= keys(pixels[0].tolist())
    document["frames"] = [
        {"file_path": Path(name).as_posix()}
        | ({} if shared else keys(pixels[i].tolist()))
        | {"transform_matrix": cameras.camera_to_world[i].double().tolist()}
        for i, name in enumerate(files)
    ]
    out = Path(path)
    if out.is_dir():
        out = out / "transforms.json"
    with atomic_path(out) as temporary:
        Path(temporary).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return out


def _load(file: Path) -> dict[str, Any]:
    """The JSON object of the file; raises :class:`CameraError`."""
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CameraError(f"{file} does not exist; a folder of posed pictures needs a transforms.json") from None
    except OSError as error:
        raise CameraError(f"{file} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # includes JSONDecodeError and UnicodeDecodeError
        raise CameraError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise CameraError(f'{file} must hold a JSON object with "frames", got {type(data).__name__}')
    return data


def _matrix(frame: dict[str, Any], label: str) -> torch.Tensor:
    """The frame's pose [4, 4] in float64; a 3x4 matrix gets its last row."""
    if "transform_matrix" not in frame:
        raise CameraError(f'{label} has no "transform_matrix"')
    try:
        matrix = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CameraError(f"{label}: its transform_matrix is not a table of numbers ({error})") from error
    if matrix.shape == (3, 4):
        matrix = torch.cat([matrix, matrix.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
    if matrix.shape != (4, 4):
        raise CameraError(f"{label}: its transform_matrix must be 4x4, got shape {tuple(matrix.shape)}")
    return matrix


def _number(
    keys: dict[str, Any], name: str, label: str, low: float = -math.inf, high: float = math.inf
) -> float | None:
    """``keys[name]`` as a float strictly between ``low`` and ``high``, None if absent."""
    value = keys.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value < high:
        bounds = "a finite number" if low == -math.inf else f"a number between {low:g} and {high:.5g}"
        raise CameraError(f"{label}: {name} must be {bounds}, got {shortened(repr(value))}")
    return float(value)


def _pixels(keys: dict[str, Any], name: str, label: str) -> float | None:
    """``keys[name]`` as a picture's width or height, None if absent."""
    value = _number(keys, name, label, 0, 1e7)
    if value is not None and value < 1:
        raise CameraError(f"{label}: {name} must be at least 1 pixel, got {value:g}")
    return value


def _intrinsics(keys: dict[str, Any], picture: Path, label: str) -> tuple[list[float], tuple[int, int] | None]:
    """Normalised (fx, fy, cx, cy) and the (height, width) they were stated for."""
    model = str(keys.get("camera_model", ""))
    if keys.get("is_fisheye") or "FISHEYE" in model.upper() or "EQUIRECT" in model.upper():
        raise CameraError(f"{label}: a fisheye or panorama camera; only pinhole cameras are supported, undistort first")
    width, height = _pixels(keys, "w", label), _pixels(keys, "h", label)
    size: tuple[int, int] | None = None
    if picture.is_file():
        size = picture_size(picture)
    if width is not None and height is not None:
        stated = (round(height), round(width))
        if size is not None:
            check_aspect(stated, size, label)
        size = stated
    # Without any size the picture is taken as square; only angles can be used then.
    aspect = 1.0 if size is None else size[1] / size[0]

    def focal(pixel_key: str, angle_key: str, length: int | None) -> float | None:
        pixels = _number(keys, pixel_key, label, 0, 1e14)
        if pixels is not None:
            if length is None:
                raise CameraError(f"{label}: {pixel_key} is in pixels, so the file must also give w and h")
            return check_focal(pixels / length, f"{label}: {pixel_key} {pixels:g}")
        angle = _number(keys, angle_key, label, 0, math.pi)
        return None if angle is None else check_focal(0.5 / math.tan(angle / 2), f"{label}: {angle_key} {angle:g}")

    fx = focal("fl_x", "camera_angle_x", size and size[1])
    fy = focal("fl_y", "camera_angle_y", size and size[0])
    if fx is None and fy is None:
        raise CameraError(f"{label}: no focal length; give camera_angle_x (radians) or fl_x (pixels)")
    fx = fy / aspect if fx is None else fx
    fy = fx * aspect if fy is None else fy
    cx, cy = _number(keys, "cx", label, -1e8, 1e8), _number(keys, "cy", label, -1e8, 1e8)
    if size is None and (cx is not None or cy is not None):
        raise CameraError(f"{label}: cx and cy are in pixels, so the file must also give w and h")
    values = [fx, fy, 0.5 if cx is None else cx / size[1], 0.5 if cy is None else cy / size[0]]
    lens = {k: _number(keys, k, label, -1e8, 1e8) or 0.0 for k in ("k1", "k2", "k3", "k4", "p1", "p2")}
    check_distortion([lens[f"k{i}"] for i in (1, 2, 3, 4)], [lens["p1"], lens["p2"]], values, label)
    return values, size
