"""Where cameras stand and which rays they cast. The conventions are stated at the top of :mod:`.cameras`."""

from .cameras import Cameras, as_size, look_at, orbit_poses, plucker_rays, projection_matrix
from .checks import check_cameras, check_poses
from .colmap import read_colmap
from .conventions import (
    blender_to_opengl_world,
    opencv_to_opengl,
    opengl_to_blender_world,
    opengl_to_opencv,
    triposr_to_world,
    world_to_triposr,
)
from .posed_views import PosedViews
from .transforms_json import read_transforms, write_transforms

__all__ = [
    "Cameras",
    "PosedViews",
    "as_size",
    "blender_to_opengl_world",
    "check_cameras",
    "check_poses",
    "look_at",
    "opencv_to_opengl",
    "opengl_to_blender_world",
    "opengl_to_opencv",
    "orbit_poses",
    "plucker_rays",
    "projection_matrix",
    "read_colmap",
    "read_transforms",
    "triposr_to_world",
    "world_to_triposr",
    "write_transforms",
]
