"""L4GM end to end: a video -> views of its first frame (ImageDream) -> Gaussians for every moment.

Source: Ren et al. 2024 (arXiv 2406.10324) and the control flow of its inference scripts; what differs is in docs/l4gm.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...asset4d import Asset4D
from ...errors import CheckpointError
from ...job import Job
from ..lgm.imagine import VIEW_SIZE, free, imagine_views, show
from ..lgm.reconstruct import published_dtype
from .checkpoint import load_l4gm
from .frames import fit_frames
from .inputs import on_white, shrink
from .network import L4GM
from .options import VideoOptions
from .sequence import reconstruct_clip, views_of_first_frame

if TYPE_CHECKING:
    from ...files.video import VideoClip


def from_video(clip: VideoClip, options: VideoOptions, job: Job) -> Asset4D:
    """A matted clip from a still camera -> a sequence of Gaussians, y up, the video's side facing +z."""
    with job.stage("frames"):
        frames = fit_frames(clip.pixels, VIEW_SIZE)
    if frames.empty:
        job.report["frames_without_object"] = frames.empty
    first = on_white(frames.rgba[0])  # [3, S, S]
    views = imagine_views(
        job,
        options.prompt,
        first.permute(1, 2, 0),
        negative_prompt=options.negative_prompt,
        steps=options.steps,
        guidance=options.guidance,
        elevation=options.elevation,
        solver=options.solver,
    )[0].permute(0, 3, 1, 2)  # [4, S, S, 3] -> [4, 3, S, S]
    with job.stage("load_model"):
        job.tell("loading L4GM", 0.0)
        recon = _load("l4gm-recon", job)
        interp = _load("l4gm-interp", job) if options.interpolate else None
        if interp is not None and interp.config != recon.config:
            raise CheckpointError("the weights l4gm-recon and l4gm-interp are of networks of different sizes")
        size = recon.config.input_size
    if size != VIEW_SIZE:
        frames.rgba, first, views = shrink(frames.rgba, size), shrink(first[None], size)[0], shrink(views, size)
    with job.stage("first_frame"):
        job.tell("finding the video's side", 0.0)
        start = views_of_first_frame(recon, views, first, options.elevation, every_degree=options.compat)
        show(job, start.views.permute(0, 2, 3, 1).cpu(), "first_frame.png")
    with job.stage("network"):
        sequence = reconstruct_clip(
            recon,
            interp,
            frames.rgba,
            start.views,
            fps=clip.fps,
            chunk=options.chunk,
            elevation=options.elevation,
            compat=options.compat,
            progress=lambda share: job.tell("reconstructing", share),
        )
    del recon, interp
    free(job.device)
    job.report |= {
        "video_frames": len(frames.rgba),
        "frames_per_second": round(float(clip.fps), 4),
        "sets": len(sequence.times),
        "sets_per_second": round(sequence.fps, 4),
        "azimuth": start.azimuth,
    }
    return Asset4D(sequence.gaussians, sequence.fps, device=job.device)


def _load(entry: str, job: Job) -> L4GM:
    return load_l4gm(job.locate(entry), job.device, published_dtype(job.device))
