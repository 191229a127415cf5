"""How good an lgm-mini is: held-out procedural objects, from four views and from one.

Protocol (frozen): objects are the first ones of the generator's held-out seeds, default light, LGM's camera (fov 49.1
degrees, distance 1.5). Four inputs at azimuth 0, 90, 180, 270, elevation 0; one input at azimuth 0. Eight unseen cameras at
azimuth 22.5 + 45 k and elevation -10, 10, 30, 50, -10, ... degrees. PSNR at 256 pixels on white, mean over pictures;
"foreground" counts only pixels that the true object covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...camera import Cameras
from ...data.render import Lights, SceneBatch, render_objects
from ...raster import rasterize
from ...training.losses import over
from .network import LGM
from .reconstruct import reconstruct

NOVEL_AZIMUTHS = tuple(22.5 + 45 * k for k in range(8))
NOVEL_ELEVATIONS = (-10, 10, 30, 50) * 2


@dataclass
class ProceduralEvaluation:
    """``numbers``: mean PSNRs in dB; ``per_object``: novel-view PSNR of each object from 4 and from 1 view.

    ``sheet`` is [H, W, 3] or None; a row of it: the input view, then truth, prediction from
    four views and prediction from one view, for four new sides.
    """

    numbers: dict[str, float]
    per_object: dict[str, list[float]]
    sheet: Tensor | None


def psnr(error: Tensor) -> Tensor:
    """Mean squared error -> dB."""
    return -10 * torch.log10(error.clamp_min(1e-10))


def on_white(rgba: Tensor) -> Tensor:
    """Straight-alpha pictures [..., 4] -> [..., 3] on white."""
    return over(rgba[..., :3], rgba[..., 3])


@torch.no_grad()
def evaluate_procedural(
    model: LGM,
    device: torch.device | str,
    objects: int = 32,
    batch: int = 8,
    sheet_rows: int = 0,
) -> ProceduralEvaluation:
    """Run the module's protocol on ``objects`` held-out objects. ``model`` is in evaluation mode on ``device``."""
    from ...data.procedural import HELD_OUT_SEEDS, generate_object

    config = model.config
    size = config.input_size
    ring = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 0.0, config.radius, config.fov_y)
    novel = Cameras.orbit(list(NOVEL_AZIMUTHS), list(NOVEL_ELEVATIONS), config.radius, config.fov_y)
    cameras = Cameras.cat([ring, novel]).to(device)
    sums: dict[str, list[float]] = {}
    rows = []
    for start in range(0, objects, batch):
        seeds = [HELD_OUT_SEEDS[i] for i in range(start, min(start + batch, objects))]
        scene = SceneBatch.pack([generate_object(s) for s in seeds]).to(device)
        b = len(seeds)
        views = Cameras.cat([cameras[None]] * b)
        truth = render_objects(scene, views, size, Lights.default(b).to(device), outputs=("rgba",)).rgba
        goal, mask = on_white(truth), truth[..., 3] > 0
        drawn = {}
        for count in (4, 1):
            rgba = truth[:, :count].permute(0, 1, 4, 2, 3).contiguous()
            gaussians = reconstruct(model, rgba, views[:, :count])
            picture = rasterize(gaussians, views, size, (1.0, 1.0, 1.0)).rgb.clamp(0, 1)
            drawn[count] = picture
            error = ((picture - goal) ** 2).mean(-1)  # [B, 12, S, S]
            full = psnr(error.mean((-1, -2)))
            front = psnr((error * mask).sum((-1, -2)) / mask.sum((-1, -2)).clamp_min(1))
            sums.setdefault(f"novel_{count}view", []).extend(full[:, 4:].mean(1).tolist())
            sums.setdefault(f"novel_{count}view_foreground", []).extend(front[:, 4:].mean(1).tolist())
            sums.setdefault(f"input_{count}view", []).extend(full[:, :count].mean(1).tolist())
        white = psnr(((1 - goal[:, 4:]) ** 2).mean((-1, -2, -3))).mean(1)
        sums.setdefault("novel_white", []).extend(white.tolist())
        for i in range(b):
            if len(rows) < sheet_rows:
                tiles = [goal[i, 0]]
                for view in (4, 6, 8, 10):
                    tiles += [goal[i, view], drawn[4][i, view], drawn[1][i, view]]
                rows.append(torch.cat(tiles, dim=1))
    numbers = {k: sum(v) / len(v) for k, v in sums.items()}
    sheet = torch.cat(rows, dim=0) if rows else None
    if sheet is not None:
        sheet = sheet[::2, ::2]
    return ProceduralEvaluation(numbers, {k: sums[k] for k in ("novel_4view", "novel_1view")}, sheet)
