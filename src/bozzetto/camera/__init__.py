"""Where cameras stand and which rays they cast. The conventions are stated at the top of :mod:`.cameras`."""

from .cameras import Cameras, as_size, look_at, orbit_poses, plucker_rays, projection_matrix
from .conventions import (
    blender_to_opengl_world,
    opencv_to_opengl,
    opengl_to_blender_world,
    opengl_to_opencv,
    triposr_to_world,
    world_to_triposr,
)

__all__ = [
    "Cameras",
    "as_size",
    "blender_to_opengl_world",
    "look_at",
    "opencv_to_opengl",
    "opengl_to_blender_world",
    "opengl_to_opencv",
    "orbit_poses",
    "plucker_rays",
    "projection_matrix",
    "triposr_to_world",
    "world_to_triposr",
]
