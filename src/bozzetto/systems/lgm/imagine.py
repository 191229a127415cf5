"""Four views of an object from a photo or a prompt, by multi-view diffusion: LGM's and L4GM's first stage."""

from __future__ import annotations

import gc

import torch
from torch import Tensor

from ...job import Job
from ...matting.recenter import recenter

BORDER = 0.2  # share of a picture's side that is left free around the object, as published
VIEW_SIZE = 256  # pixels that the diffusion networks draw


def on_white(rgba: Tensor) -> Tensor:
    """Straight-alpha picture [H, W, 4] -> [H, W, 3] on white."""
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def imagine_views(
    job: Job,
    prompt: str = "",
    picture: Tensor | None = None,
    *,
    negative_prompt: str = "",
    steps: int = 30,
    guidance: float = 5.0,
    elevation: float = 0.0,
    solver: str = "ddim",
    candidates: int = 1,
) -> Tensor:
    """Views [C, 4, 256, 256, 3] in 0..1 on the CPU, in LGM's order: front, 90, 180, 270 degrees; C ``candidates``.

    ImageDream where there is a ``picture`` ([H, W, 3] on white), else MVDream. The networks are loaded for this call and
    freed after it. The other arguments are those of ``mvdream.MultiViewDiffusion.generate``.
    """
    from ..mvdream.checkpoint import load_mvdream

    entry, name = ("mvdream", "MVDream") if picture is None else ("imagedream", "ImageDream")
    with job.stage("load_diffusion"):
        job.tell(f"loading {name}", 0.0)
        folder = job.locate(entry)
        diffusion = load_mvdream(folder, job.device)
    with job.stage("diffusion"):
        views = in_lgms_order(
            diffusion.generate(
                [prompt],
                None if picture is None else picture[None],
                negative=negative_prompt,
                steps=steps,
                guidance=guidance,
                elevation=elevation,
                solver=solver,
                candidates=candidates,
                size=VIEW_SIZE,
                seed=job.seed,
                progress=lambda share: job.tell("imagining the other sides", share),
            )[0]
        ).cpu()
    del diffusion
    free(job.device)
    show(job, views[0], "views.png")
    return views


def in_lgms_order(views: Tensor) -> Tensor:
    """Views [C, 4, ...] as the diffusion networks count them -> front, 90, 180, 270 degrees."""
    from ..mvdream.cameras import LGM_ORDER

    return views[:, list(LGM_ORDER)]


def square_photo(rgba: Tensor) -> Tensor:
    """The photo as ImageDream takes it: the cut-out [H, W, 4] centred in a square, on white: [256, 256, 3]."""
    return on_white(recenter(rgba.cpu(), border=BORDER, size=VIEW_SIZE))


def free(device: torch.device) -> None:
    """Give memory of networks that are no longer referenced back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def show(job: Job, views: Tensor, name: str) -> None:
    """Keep views [V, H, W, 3], side by side, to be written beside the result."""
    job.pictures[name] = torch.cat(list(views), dim=1).cpu()
