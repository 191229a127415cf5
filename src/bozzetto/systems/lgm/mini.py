"""lgm-mini on one photo: recentre, one forward pass, Gaussians."""

from __future__ import annotations

from torch import Tensor

from ...asset import Asset
from ...camera import Cameras
from ...errors import InputError
from ...job import Job
from ...matting.recenter import recenter
from .checkpoint import load_lgm
from .mini_options import PhotoOptions
from .reconstruct import autocast_dtype, reconstruct


def from_photo(rgba: Tensor, options: PhotoOptions, job: Job) -> Asset:
    """Cut-out [H, W, 4] -> Gaussians, y up, the photo's side facing +z."""
    with job.stage("load_model"):
        job.tell("loading lgm-mini", 0.0)
        # On a GPU in the arithmetic itself; on a CPU in float32, from which every call casts.
        dtype = autocast_dtype(job.device) if job.device.type == "cuda" else None
        network = load_lgm(job.locate("lgm-mini"), device=job.device, dtype=dtype)
    if network.config.head != "ray":
        raise InputError("these weights need posed views and cannot imagine unseen sides; use --model lgm")
    with job.stage("network"):
        job.tell("reconstructing", 0.0)
        config = network.config
        square = recenter(rgba, size=config.input_size)
        cameras = Cameras.orbit([0.0], options.elevation, config.radius, config.fov_y)
        gaussians = reconstruct(network, square.permute(2, 0, 1)[None, None], cameras[None])[0].prune()
    return Asset(gaussians)
