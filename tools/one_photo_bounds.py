"""What new views from one photo could score: the network's, and those of oracles that know shape or colours, or a part of them.

python tools/one_photo_bounds.py lgm-mini --data assets/ --objects 4

The first of the protocol's inputs, the grid's other cameras (every third by default), held-out objects (docs/evaluation.md).
Prints a table: a row for each prediction, PSNR full frame / foreground of all views and by how far, in degrees of azimuth, a
view stands from the photo (to the left or right); means over pictures, then objects, then sources. "Photo's mean" is the mean
colour of the object in the photo. Moved surfaces keep the shading of their true place. Below, in shares of the object's pixels:
how many show a surface that the photo shows, too, and how many the network leaves empty or draws where nothing is.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bozzetto.camera import Cameras
from bozzetto.data.objects import TexturedObject
from bozzetto.data.render import Lights, RenderedViews, SceneBatch, render_objects
from bozzetto.evaluation.models import Measured, load_model
from bozzetto.evaluation.objects import dataset_samples
from bozzetto.evaluation.pictures import on_white
from bozzetto.evaluation.protocol import GRID_AZIMUTHS, SIZE, grid_cameras, novel_of_grid
from bozzetto.evaluation.run import draw
from bozzetto.gaussians import Gaussians
from bozzetto.raster import rasterize
from bozzetto.training.losses import over, psnr

BEHIND = 0.02  # world units by which a point may lie behind what the photo shows there
OPAQUE = 0.5  # least alpha of the network's pictures where they say a colour
STRETCHES = (0.8, 0.9, 1.1, 1.25)
TURNS = (5.0, 10.0)
AT_ONCE = 16  # pictures of Gaussians in one call
ANGLES = {"0–22.5": (0, 22.5), "45–67.5": (45, 67.5), "90": (90, 90), "112.5–157.5": (112.5, 157.5), "180": (180, 180)}
GROUPS = ("all", *ANGLES)
DEPTHS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6)  # tried on the network's Gaussians


def angle_groups(shown: list[int]) -> Tensor:
    """[groups, V] bool: which cameras of the grid belong to which of :data:`GROUPS`."""
    azimuth = torch.tensor([GRID_AZIMUTHS[i % len(GRID_AZIMUTHS)] for i in shown])
    away = torch.minimum(azimuth, 360 - azimuth)
    inside = [(away >= low) & (away <= high) for low, high in ANGLES.values()]
    return torch.stack([torch.ones_like(inside[0]), *inside])


def scores(drawn: Tensor, truth: Tensor) -> Tensor:
    """[V, 2]: PSNR full frame and foreground, as the protocol has them, of [V, S, S, 3] on white against RGBA."""
    drawn, goal = drawn.clamp(0, 1), on_white(truth)
    covered = (truth[..., 3] > 0).float()
    error = (drawn - goal).square().mean(-1)
    inside = (error * covered).sum((-1, -2)) / covered.sum((-1, -2))  # NaN where there is nothing
    return torch.stack([psnr(drawn, goal, dims=(-3, -2, -1)), -10 * torch.log10(inside.clamp_min(1e-10))], -1)


def mean_colour(rgba: Tensor, where: Tensor | float = 1.0) -> Tensor:
    """[3], the mean of straight colours [..., 4], weighted by alpha and ``where``; grey if there is none."""
    weight = rgba[..., 3] * where
    if not bool(weight.any()):
        return rgba.new_full((3,), 0.5)
    return (rgba[..., :3] * weight[..., None]).flatten(0, -2).sum(0) / weight.sum()


def in_photo(views: RenderedViews, cameras: Cameras, photo: RenderedViews, camera: Cameras) -> tuple[Tensor, Tensor]:
    """What the photo shows at the place of each surface point of other views: whether it is that point [V, S, S], and RGBA.

    A point is seen if its side of the surface faces the photo's camera and it does not lie behind what the photo shows there; of
    the 3 x 3 pixels around its place the farthest counts, so that surfaces that the photo sees at a grazing angle are seen.
    """
    depth, size = views.depth[0], views.depth.shape[-1]
    origins, directions = cameras.rays(size)
    forward = -cameras.camera_to_world[:, None, None, :3, 2]
    along = depth / (directions * forward).sum(-1).clamp_min(1e-3)
    points = origins + directions * along[..., None]
    place, z = camera.project(points.reshape(1, -1, 3))
    places = (2 * place - 1).reshape(1, *depth.shape[:2], -1, 2).flatten(1, 2)  # [1, V * S, S, 2]
    farthest = F.max_pool2d(photo.depth[0][:, None], 3, 1, 1)
    shown = F.grid_sample(farthest, places, mode="nearest", align_corners=False).reshape(depth.shape)
    straight = photo.rgba[0]
    solid = torch.cat([straight[..., :3] * straight[..., 3:], straight[..., 3:]], -1).movedim(-1, 1)  # [1, 4, S, S]
    colour = F.grid_sample(solid, places, align_corners=False)[0].movedim(0, -1).reshape(*depth.shape, 4)
    colour = torch.cat([colour[..., :3] / colour[..., 3:].clamp_min(1e-4), colour[..., 3:]], -1)
    facing = (views.normals[0] * (camera.positions[0] - points)).sum(-1) > 0
    return (depth > 0) & (shown > 0) & (z.reshape(depth.shape) - shown < BEHIND) & facing, colour


def stretched(scene: SceneBatch, factor: float, camera: Cameras | None = None) -> SceneBatch:
    """The object ``factor`` times as deep along z about the origin.

    Given a camera, which looks along -z, vertices move on its rays instead: its picture stays as it is.
    """
    x = scene.vertices
    moved = x * x.new_tensor([1, 1, factor])
    if camera is not None:
        stand = camera.positions[0]
        ratio = (stand[2] - moved[:, 2:]) / (stand[2] - x[:, 2:])
        moved = stand + (x - stand) * ratio
    return replace(scene, vertices=moved)


def turned(scene: SceneBatch, degrees: float) -> SceneBatch:
    """The object turned about the vertical axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return replace(scene, vertices=scene.vertices @ scene.vertices.new_tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]]))


def best_depth(gaussians: Gaussians, cameras: Cameras, truth: Tensor) -> Tensor:
    """[V, S, S, 3]: the pictures of Gaussians as often as deep as scores best, of :data:`DEPTHS`."""
    axes = [gaussians.means.new_tensor([1, 1, f]) for f in DEPTHS]
    drawn = (draw(replace(gaussians, means=gaussians.means * a), cameras, truth.shape[-2]) for a in axes)
    return max(drawn, key=lambda pictures: float(scores(pictures, truth)[:, 0].mean()))


def measure_object(model: Measured, made: TexturedObject, shown: list[int], size: int = SIZE) -> dict[str, Tensor]:
    """Name -> [V, 2] scores of each prediction of one object, or [V, 1] shares of its pixels."""
    grid = grid_cameras().to(model.device)
    scene, camera, cameras = SceneBatch.pack([made]).to(model.device), grid[:1], grid[shown]
    lights = Lights.default(1).to(model.device)
    photo, views = (render_objects(scene, c, size, lights) for c in (camera, cameras))
    truth = views.rgba[0]
    colour, alpha = truth[..., :3], truth[..., 3]
    seen, through = in_photo(views, cameras, photo, camera)
    gaussians = model.reconstruct(photo.rgba[0], camera)
    drawn = [rasterize(gaussians, cameras[i : i + AT_ONCE], size) for i in range(0, len(cameras), AT_ONCE)]
    net_solid, net_alpha = (torch.cat([getattr(d, k) for d in drawn]) for k in ("rgb", "alpha"))
    net_colour = (net_solid / net_alpha[..., None].clamp_min(1e-4)).clamp(0, 1)
    mean, rest = mean_colour(photo.rgba[0]), mean_colour(truth, (~seen).float())
    says, holds = (net_alpha > OPAQUE)[..., None], (through[..., 3:] > OPAQUE)
    at, true_at = seen[..., None], (alpha > 0)[..., None]
    predictions = {
        "white": torch.ones_like(colour),
        "network": net_solid + (1 - net_alpha)[..., None],
        "network, as deep as suits its new views best": best_depth(gaussians, cameras, truth),
        "network's outlines, true colours": over(torch.where(true_at, colour, net_colour), net_alpha),
        "true outlines, network's colours, elsewhere photo's mean": over(torch.where(says, net_colour, mean), alpha),
        "true shape, photo's mean": over(mean.expand_as(colour), alpha),
        "true shape, seen: true, unseen: white": over(torch.where(at, colour, 1.0), alpha),
        "true shape, seen: true, unseen: photo's mean": over(torch.where(at, colour, mean), alpha),
        "true shape, seen: true, unseen: what the photo shows before it": over(
            torch.where(at, colour, torch.where(holds, through[..., :3], mean)), alpha
        ),
        "true shape, seen: true, unseen: their own mean": over(torch.where(at, colour, rest), alpha),
    }
    moved = {f"true colours, {f:g} times as deep": stretched(scene, f) for f in STRETCHES}
    moved |= {f"– and the photo unchanged, {f:g}": stretched(scene, f, camera) for f in STRETCHES}
    moved |= {f"true colours, turned by {a:g}°": turned(scene, a) for a in TURNS}
    for name, other in moved.items():
        predictions[name] = on_white(render_objects(other, cameras, size, lights, outputs=("rgba",)).rgba[0])
    parts = {
        "share seen in the photo": seen * alpha,
        "share left empty by the network": (1 - net_alpha) * alpha,
        "share drawn beside it by the network": net_alpha * (1 - alpha),
    }
    shares = {k: (v.sum((-1, -2)) / alpha.sum((-1, -2)))[:, None] for k, v in parts.items()}
    return {k: scores(v, truth) for k, v in predictions.items()} | shares


def table(sources: list[list[dict[str, Tensor]]], shown: list[int]) -> str:
    """Markdown of the objects of all sources: means over pictures, objects, sources."""
    groups = angle_groups(shown)
    lines = ["| new views | " + " | ".join(GROUPS) + " |", "|---|" + "---|" * len(GROUPS)]
    for name in sources[0][0]:
        of_sources = []
        for objects in sources:
            values = [torch.stack([o[name].cpu()[g].double().nanmean(0) for g in groups]) for o in objects]
            of_sources.append(torch.stack(values).nanmean(0))
        means = torch.stack(of_sources).nanmean(0).tolist()  # [groups, 2 or 1]
        cells = [" / ".join(f"{m:.2f}" for m in group) if len(group) == 2 else f"{group[0]:.0%}" for group in means]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--objects", type=int, default=4, help="of each source (4)")
    parser.add_argument("--every", type=int, default=3, help="take every n-th of the 63 views (3)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    model, shown = load_model(options.model, options.device), novel_of_grid(1)[:: options.every]
    samples = [s for s in dataset_samples(options.data, options.objects) if s.counts]
    if "1view" not in model.tasks or not samples:
        parser.error("give a model that takes a single view, and a folder with held-out objects")
    sources = [[measure_object(model, made, shown) for made in sample.objects()] for sample in samples]
    print(table(sources, shown))


if __name__ == "__main__":
    main()
