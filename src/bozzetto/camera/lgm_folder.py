"""Rendered views as LGM's training data stores them: ``rgb/000.png`` ... and ``pose/000.txt`` ... in one folder per object.

A pose file holds 16 numbers, row by row: camera-to-world in Blender's z-up world with OpenCV camera axes. The field of view is
not in the files; the published data has 49.1 degrees.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch

from ..errors import CameraError
from .cameras import Cameras
from .checks import check_poses
from .conventions import blender_to_opengl_world, opencv_to_opengl, opengl_to_blender_world, opengl_to_opencv
from .posed_views import PosedViews, find_picture, picture_size

FOV_Y = 49.1  # degrees


def is_lgm_folder(path: str | PathLike[str]) -> bool:
    """Whether ``path`` has the folders ``rgb`` and ``pose``."""
    return (Path(path) / "rgb").is_dir() and (Path(path) / "pose").is_dir()


def read_lgm_folder(path: str | PathLike[str], fov_y: float = FOV_Y) -> PosedViews:
    """Cameras and pictures of one object, y up (``fov_y`` in degrees); views without a picture are left out.

    Raises:
        CameraError: no pose file, one that does not hold 16 finite numbers of a rigid pose, or none that has a picture.
        ImageError: a picture is unreadable.
    """
    folder = Path(path)
    poses, paths, names = [], [], []
    for file in sorted((folder / "pose").glob("*.txt")):
        picture = find_picture(folder / "rgb", file.stem)
        if picture is None:
            continue
        try:
            numbers = np.array(file.read_text().replace(",", " ").split(), dtype=np.float64)
        except (OSError, ValueError) as error:
            raise CameraError(f"{file} cannot be read ({error}); it must hold 16 numbers") from error
        if numbers.size != 16 or not np.isfinite(numbers).all():
            raise CameraError(f"{file} holds {numbers.size} numbers; a pose is 16 finite ones, row by row")
        poses.append(torch.from_numpy(numbers.reshape(4, 4)))
        paths.append(picture)
        names.append(file.stem)
    if not poses:
        raise CameraError(f"{folder} has no view with both rgb/NAME.png and pose/NAME.txt")
    camera_to_world = check_poses(poses_to_house(torch.stack(poses)), names).float()
    sizes = [picture_size(p) for p in paths]
    fy = 0.5 / np.tan(np.radians(fov_y) / 2)
    intrinsics = torch.tensor([[fy * h / w, fy, 0.5, 0.5] for h, w in sizes], dtype=torch.float32)
    return PosedViews(Cameras(camera_to_world, intrinsics, tuple(names)), paths, list(sizes))


def poses_to_house(poses: torch.Tensor) -> torch.Tensor:
    """Stored poses [..., 4, 4] -> camera-to-world, y up, OpenGL camera axes."""
    return blender_to_opengl_world(opencv_to_opengl(poses))


def house_to_poses(camera_to_world: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`poses_to_house`: what stands in the pose files."""
    return opengl_to_opencv(opengl_to_blender_world(camera_to_world))
