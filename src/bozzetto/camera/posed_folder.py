"""Cameras and pictures of any folder that people have: ``transforms.json``, LGM's ``rgb/`` and ``pose/``, or COLMAP's model."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..errors import CameraError
from .colmap import read_colmap
from .lgm_folder import is_lgm_folder, read_lgm_folder
from .posed_views import PosedViews
from .transforms_json import read_transforms


def is_colmap(folder: str | PathLike[str]) -> bool:
    """Whether ``folder`` is a COLMAP model, or a project with one in ``sparse/0`` or ``sparse``."""
    places = (Path(folder), Path(folder) / "sparse" / "0", Path(folder) / "sparse")
    return any((place / f"cameras{suffix}").is_file() for place in places for suffix in (".bin", ".txt"))


def read_posed_folder(path: str | PathLike[str], require_images: bool = True) -> PosedViews:
    """Cameras (N,) and pictures of a folder, in its own world frame (LGM's: y up) and scale.

    Args:
        path: a folder with ``rgb/`` and ``pose/`` as LGM's training data, with ``transforms.json`` (or a file like it), or a
            COLMAP project with ``sparse/0`` and ``images``; of two in one folder, the one named first here counts.
        require_images: raise if a picture is missing (of LGM's folders, views without one are always left out).

    Raises:
        CameraError: there are no cameras, or they cannot be used. ImageError: a picture is unreadable.
    """
    folder = Path(path).expanduser()
    if is_lgm_folder(folder):
        return read_lgm_folder(folder)
    if not folder.is_dir() or (folder / "transforms.json").is_file():
        return read_transforms(folder, require_images)
    if is_colmap(folder):
        return read_colmap(folder, require_images=require_images)
    raise CameraError(
        f"{folder} holds no posed pictures: it needs transforms.json, rgb/ and pose/, or a COLMAP model in sparse/0"
    )
