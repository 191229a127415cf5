"""Where a model's errors lie: shares of the squared error of new views, by what the true picture shows there.

python tools/error_shares.py lgm-mini --data assets/ --objects 3

Four level pictures, every third of the protocol's other cameras, held-out objects (docs/evaluation.md). "Near" an outline is
within four pixels of one; a surface is "seen" where one of the four pictures shows it.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Cameras
from bozzetto.data.render import Lights, SceneBatch, render_objects
from bozzetto.evaluation.models import load_model
from bozzetto.evaluation.objects import dataset_samples
from bozzetto.evaluation.pictures import on_white
from bozzetto.evaluation.protocol import (
    GRID_AZIMUTHS,
    GRID_ELEVATIONS,
    INPUT_AZIMUTHS,
    SIZE,
    grid_cameras,
    novel_of_grid,
)
from bozzetto.evaluation.run import draw

NEAR = 9  # pixels: window of the outlines
BEHIND = 0.02  # world units by which a point may lie behind what a picture shows there
KINDS = ("background", "background near", "outline", "seen near", "seen inside", "unseen near", "unseen inside")


def seen_points(depth: Tensor, of: Cameras, depths: Tensor, by: Cameras) -> Tensor:
    """[V, S, S]: whether the surface points of pictures with camera z ``depth`` [V, S, S] are shown by others."""
    origins, directions = of.rays(SIZE)
    forward = -of.camera_to_world[:, None, None, :3, 2]
    along = depth / (directions * forward).sum(-1).clamp_min(1e-3)
    points = (origins + directions * along[..., None]).reshape(1, -1, 3)
    seen = torch.zeros_like(depth, dtype=torch.bool)
    for i in range(len(by)):
        place, z = by[i : i + 1].project(points)
        grid = (2 * place - 1).reshape(1, -1, 1, 2)
        shown = F.grid_sample(depths[i, None, None], grid, mode="nearest", align_corners=False).reshape(depth.shape)
        seen |= (shown > 0) & (z.reshape(depth.shape) - shown < BEHIND)
    return seen


def kinds(alpha: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """Masks [V, S, S] by name; they share the pixels out."""
    full, empty = alpha > 0.99, alpha < 0.01
    wide, narrow = (F.max_pool2d(x[:, None], NEAR, 1, NEAR // 2)[:, 0] for x in (alpha, -alpha))
    near = wide + narrow > 0.5
    masks = (empty & ~near, empty & near, ~empty & ~full)
    return dict(
        zip(KINDS, (*masks, full & near & seen, full & ~near & seen, full & near & ~seen, full & ~near & ~seen))
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--objects", type=int, default=3, help="of each source (3)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model, cameras = load_model(options.model, options.device), grid_cameras().to(options.device)
    inputs, shown = [GRID_AZIMUTHS.index(a) for a in INPUT_AZIMUTHS], novel_of_grid(4)[::3]
    elevation = torch.tensor([i // len(GRID_AZIMUTHS) for i in shown])
    errors, pixels = (torch.zeros(len(GRID_ELEVATIONS), len(KINDS), dtype=torch.float64) for _ in range(2))
    for sample in dataset_samples(options.data, options.objects):
        for made in sample.objects():
            scene = SceneBatch.pack([made]).to(options.device)
            true = render_objects(scene, cameras, SIZE, Lights.default(1).to(options.device), outputs=("rgba", "depth"))
            rgba, depth = true.rgba[0], true.depth[0]
            drawn = draw(model.reconstruct(rgba[inputs], cameras[inputs]), cameras[shown])
            error = (drawn - on_white(rgba[shown])).square().mean(-1)
            seen = seen_points(depth[shown], cameras[shown], depth[inputs], cameras[inputs])
            for k, mask in enumerate(kinds(rgba[shown][..., 3], seen).values()):
                for e in range(len(GRID_ELEVATIONS)):
                    rows = (elevation == e).to(mask.device)
                    errors[e, k] += float((error * mask)[rows].sum())
                    pixels[e, k] += int(mask[rows].sum())
    print("| elevation | " + " | ".join(KINDS) + " | squared error |\n|---|" + "---|" * (len(KINDS) + 1))
    rows = [(f"{e:g}", errors[i], pixels[i]) for i, e in enumerate(GRID_ELEVATIONS)]
    for name, error, count in [*rows, ("all", errors.sum(0), pixels.sum(0))]:
        shares = " | ".join(f"{float(s):.0%}" for s in error / error.sum())
        print(f"| {name} | {shares} | {float(error.sum() / count.sum()):.4f} |")
    print("| of the pixels | " + " | ".join(f"{float(s):.1%}" for s in pixels.sum(0) / pixels.sum()) + " | |")


if __name__ == "__main__":
    main()
