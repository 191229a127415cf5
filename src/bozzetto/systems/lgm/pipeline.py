"""LGM end to end: a photo or a prompt -> four views (ImageDream, MVDream) -> Gaussians.

Source: Tang et al. 2024 (arXiv 2402.05054); the steps and their defaults are those of the authors' inference script (photo)
and demo (text).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...asset import Asset
from ...camera import Cameras
from ...errors import BozzettoError, CheckpointError, ForegroundError
from ...gaussians import Gaussians
from ...job import Job
from ...matting.cutout import cutout
from ...matting.recenter import recenter
from ...raster import rasterize
from .checkpoint import load_lgm
from .imagine import BORDER, free, imagine_views, on_white, show, square_photo
from .network import LGM
from .options import PhotoOptions, TextOptions
from .reconstruct import reconstruct

RING = (0.0, 90.0, 180.0, 270.0)  # azimuths of LGM's views, degrees
WHITE = (1.0, 1.0, 1.0)


def from_photo(rgba: Tensor, options: PhotoOptions, job: Job) -> Asset:
    """Cut-out [H, W, 4], straight alpha -> Gaussians, y up, the photo's side facing +z."""
    views = imagine_views(
        job,
        options.prompt,
        square_photo(rgba),
        negative_prompt=options.negative_prompt,
        steps=options.steps,
        guidance=options.guidance,
        elevation=options.elevation,
        solver=options.solver,
        candidates=options.candidates,
    )
    return Asset(_best(_opaque(views), list(range(len(views))), options.elevation, job))


def from_text(prompt: str, options: TextOptions, job: Job) -> Asset:
    """Description of an object -> Gaussians, y up, front facing +z."""
    views = imagine_views(
        job,
        prompt,
        negative_prompt=options.negative_prompt,
        steps=options.steps,
        guidance=options.guidance,
        elevation=options.elevation,
        solver=options.solver,
        candidates=options.candidates,
    )
    if options.cut_views:
        with job.stage("matting"):
            job.tell("cutting out the views", 0.0)
            views, numbers = _cut_candidates(views, job)
    else:
        views, numbers = _opaque(views), list(range(len(views)))
    return Asset(_best(views, numbers, options.elevation, job))


def _opaque(views: Tensor) -> Tensor:
    """[..., 3] -> [..., 4]."""
    return torch.cat([views, torch.ones_like(views[..., :1])], dim=-1)


def _cut_candidates(views: Tensor, job: Job) -> tuple[Tensor, list[int]]:
    """Views [C, 4, S, S, 3] -> cut out and recentred one by one, [C', 4, S, S, 4], and the numbers of these candidates.

    Candidates of which a view shows no object are dropped.
    """
    cut, numbers, reason = [], [], None
    for number, candidate in enumerate(views):
        try:
            pictures = [recenter(cutout(view), border=BORDER, size=view.shape[0]) for view in candidate]
        except ForegroundError as error:
            reason = error
            continue
        cut.append(torch.stack(pictures))
        numbers.append(number)
    if not cut:
        raise ForegroundError(
            f"the views made for this prompt do not all show an object ({reason}); "
            "try another --seed, more --candidates, a clearer prompt, or --no-cut-views"
        )
    job.report["candidates_without_object"] = len(views) - len(cut)
    return torch.stack(cut), numbers


def _best(candidates: Tensor, numbers: list[int], elevation: float, job: Job) -> Gaussians:
    """Views [C, 4, S, S, 4] -> the Gaussians (unbatched) of the set of views that they reproduce best.

    ``numbers``: what the candidates are called in the report; candidate c started from the seed plus c.
    """
    with job.stage("load_model"):
        job.tell("loading LGM", 0.0)
        path = job.locate("lgm-big")
        network = load_lgm(path, device=job.device)
        if network.config.head != "lgm":
            raise CheckpointError(
                f"{path} holds lgm-mini, which makes no use of four imagined views; use --model lgm-mini"
            )
        if network.config.rotation != "fixed":
            job.report["rotation"] = network.config.rotation
    with job.stage("network"):
        several = bool(job.report.get("candidates_without_object")) or len(candidates) > 1
        results, errors = [], []
        for number, views in enumerate(candidates):
            job.tell("reconstructing", number / len(candidates))
            results.append(reconstruct_views(network, views, elevation))
            errors.append(share_missed(results[-1], network, views, elevation) if several else 0.0)
        best = errors.index(min(errors))
    if several:
        named = {str(number): round(error, 6) for number, error in zip(numbers, errors)}
        job.report |= {"view_errors": named, "chosen_candidate": numbers[best]}
    show(job, on_white(candidates[best]), "views.png")
    del network
    free(job.device)
    return results[best].prune()


def ring(network: LGM, elevation: float) -> Cameras:
    """The cameras (4,) of LGM's views, on the network's device."""
    config = network.config
    return Cameras.orbit(RING, elevation, config.radius, config.fov_y).to(next(network.parameters()).device)


@torch.no_grad()
def reconstruct_views(network: LGM, views: Tensor, elevation: float = 0.0) -> Gaussians:
    """Four views [4, S, S, 4] in LGM's order -> Gaussians on the network's device.

    Raises :class:`BozzettoError` where the result is not finite.
    """
    cameras = ring(network, elevation)
    rgba = views.permute(0, 3, 1, 2).to(cameras.device)  # [4, S, S, 4] -> [4, 4, S, S]
    gaussians = reconstruct(network, rgba[None], cameras[None])[0]
    if not bool(torch.stack([torch.isfinite(t).all() for t in gaussians.tensors()]).all()):
        raise BozzettoError(
            "LGM's result holds NaN or infinity: the checkpoint is damaged, or the views are no pictures"
        )
    return gaussians


@torch.no_grad()
def share_missed(gaussians: Gaussians, network: LGM, views: Tensor, elevation: float = 0.0) -> float:
    """What share of their views [4, S, S, 4] the Gaussians miss.

    It is the squared difference of renders and views over that of views and a white page: a thin or pale object is not
    taken for a well reproduced one because most of its pictures is white.
    """
    config, cameras = network.config, ring(network, elevation)
    shown = rasterize(gaussians, cameras, views.shape[1], WHITE, near=config.znear, far=config.zfar).rgb.clamp(0, 1)
    white = on_white(views.to(cameras.device))
    return float((shown - white).square().mean() / (1 - white).square().mean().clamp_min(1e-4))
